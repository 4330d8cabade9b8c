"""What the process environment and `.env` say, and how `.env` is changed.

`.env` is read without touching `os.environ`. A process variable wins over it, and where the process
itself says APP_ENV=production it is not read at all: a stray `.env` on a server changes nothing.

The `flask` command copies `.env` into `os.environ` before any code of ours runs, so a variable's
presence does not tell where it came from: one that repeats what `.env` says counts as coming from it.
"""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from io import StringIO
from itertools import takewhile
from pathlib import Path

import dotenv
from dotenv.parser import parse_stream

from .store import StoreError, read_text

PRODUCTION = "production"


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables of a process, parted by where they come from. Its `repr` shows no value."""

    process: Mapping[str, str] = field(repr=False)
    """What the process environment alone says."""
    file: Mapping[str, str] = field(repr=False)
    """What `.env` says; empty where it is not there or not read."""
    root: Path
    """The project's folder, which has `.env`."""
    stands_in: bool = False
    """Whether `file` is what `.env` said when it was good last, whatever it says by now."""
    copied: frozenset[str] = frozenset()
    """The names of the variables that the process has, and that count as coming from `.env`."""

    def get(self, name: str, default: str = "") -> str:
        """The value of a variable; the process wins over `.env`, and an empty one counts as unset."""
        return self.process.get(name, self.file.get(name, "")).strip() or default

    @property
    def dotenv_path(self) -> Path:
        """Where `.env` is, or would be."""
        return self.root / ".env"

    @property
    def reads_dotenv(self) -> bool:
        """Whether `.env` counts here."""
        return self.process.get("APP_ENV", "").strip() != PRODUCTION

    @property
    def reloaded(self) -> bool:
        """Whether the development server has started this process anew, with its own old variables."""
        return self.process.get("WERKZEUG_RUN_MAIN") == "true"


def read_environment(
    environ: Mapping[str, str], root: Path, copied: Collection[str] = frozenset()
) -> Environment:
    """Part the variables of `environ` from those that `.env` in the folder `root` says.

    `copied` names those that came from it when this server started, whatever it says by now.
    Raises StoreError where a `.env` that counts cannot be read.
    """
    own = root / ".env"
    try:
        file = read_dotenv(str(own)) if os.path.lexists(own) else {}
    except StoreError:
        if environ.get("APP_ENV", "").strip() != PRODUCTION:
            raise
        file = {}
    found = _found_by_flask()
    repeated = {name for name, value in environ.items() if value in (file.get(name), found.get(name))}
    environment = parted(environ, file, root, repeated | set(copied))
    return environment if environment.reads_dotenv else replace(environment, file={})


def parted(
    environ: Mapping[str, str], file: Mapping[str, str], root: Path, copied: Collection[str]
) -> Environment:
    """The variables of `environ` but those that `copied` names, beside those that `.env` says."""
    process = {name: value for name, value in environ.items() if name not in copied}
    return Environment(process, file, root, copied=frozenset(copied) & environ.keys())


def project_root(package: Path) -> Path:
    """The folder with the project's `.env`: above `package` in a checkout, else the working directory."""
    above = package.resolve().parent
    return above if (above / "pyproject.toml").is_file() else Path.cwd()


def read_dotenv(path: str) -> dict[str, str]:
    """The variables of a `.env` file; `$` has no meaning there. Raises StoreError."""
    return _parsed(read_text(path))


def edited_dotenv(text: str, changes: Mapping[str, str]) -> str:
    """The text of a `.env` file with `changes` made, and every other line as it was.

    A variable is changed where it stands last, its earlier assignments go; a new one that has a value
    is added at the end.
    Raises StoreError where the result would not be read back as meant.
    """
    before = _parsed(text)
    changes = {name: value for name, value in changes.items() if value or name in before}
    bindings = list(parse_stream(StringIO(text)))
    last = {binding.key: number for number, binding in enumerate(bindings)}
    pieces = []
    for number, binding in enumerate(bindings):
        line = binding.original.string
        if binding.key not in changes:
            pieces.append(line)
        elif last[binding.key] == number:
            pieces.append(_with_value(line, changes[binding.key]))
        else:
            pieces += takewhile(str.isspace, line.splitlines(keepends=True))  # the blank lines above it
    added = [f"{name}={_quoted(value)}\n" for name, value in changes.items() if name not in last]
    if added and pieces and not pieces[-1].endswith("\n"):
        pieces.append("\n")
    edited = "".join(pieces + added)
    if _parsed(edited) != {**before, **changes}:
        raise StoreError("`.env` has lines that cannot be kept as they are: change it by hand")
    return edited


_ASSIGNMENT = re.compile(
    r"""(?P<name>\s*(?:export[^\S\r\n]+)?[^=\s]+)
        (?:[^\S\r\n]*=(?:\#[^\r\n]*?|[^\S\r\n]*(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^\s\#][^\r\n]*?)?))?
        (?P<rest>(?:[^\S\r\n]+\#[^\r\n]*|[^\S\r\n]*)(?:\r\n|\n|\r)?)""",
    re.VERBOSE | re.DOTALL,
)


def _with_value(line: str, value: str) -> str:
    match = _ASSIGNMENT.fullmatch(line)
    return f"{match['name']}={_quoted(value)}{match['rest']}" if match else line


def _quoted(value: str) -> str:
    if re.fullmatch(r"[\w.,:/+@%~-]*", value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _parsed(text: str) -> dict[str, str]:
    values = dotenv.dotenv_values(stream=StringIO(text), interpolate=False)
    return {name: value or "" for name, value in values.items()}


def _found_by_flask() -> dict[str, str]:
    """What the `.env` says that the `flask` command finds upward from here, ours or not: as it reads it."""
    try:
        text = read_text(dotenv.find_dotenv(usecwd=True))
        return {name: value or "" for name, value in dotenv.dotenv_values(stream=StringIO(text)).items()}
    except (OSError, StoreError):  # OSError: the working directory is gone, or not ours to see
        return {}
