"""The settings of a process: its environment and the project's `.env`.

One rule: `.env` is read unless the process sets APP_ENV=production. When it is read, its keys win over copies in the
process environment; for every other setting the process environment wins. No other file counts.

The `flask` command, shells, IDEs and `--env-file` copy `.env` into the process environment. Such a copy must not
outlive a rotation, so the keys come from the file. For the same reason a `.env` that sets APP_ENV=production itself is
read in production too: the process's APP_ENV may be a copy of that line. And in production the `flask` command ignores
what Flask has copied from `.env` and `.flaskenv`: the server does not have it.
"""

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import StringIO
from itertools import takewhile
from pathlib import Path

import click
from click.core import ParameterSource

from .files import FileError, identity, is_absent, read_text
from .text import message

APP_ENV, PRODUCTION = "APP_ENV", "production"
KEY_NAMES = KEY, FALLBACKS, KEY_FILE = "SECRET_KEY", "SECRET_KEY_FALLBACKS", "SECRET_KEY_FILE"


@dataclass(slots=True, eq=False)
class Environment:
    """The variables of a process and of `.env`. Its `repr` shows no value."""

    process: Mapping[str, str] = field(repr=False)
    dotenv: Mapping[str, str] | None = field(repr=False)
    """The variables of `.env`, empty if there is no such file; None if `.env` is not read."""
    root: Path
    """The project's folder, which contains `.env`."""
    dotenv_identity: tuple[int, ...] = ()
    """The state of `.env` (`files.identity`) just before it was read."""

    def get(self, name: str, default: str = "") -> str:
        """Return the value of a setting that is not a key; an empty value counts as unset."""
        return self.process.get(name, (self.dotenv or {}).get(name, "")).strip() or default

    @property
    def dotenv_path(self) -> Path:
        """The path of `.env`, which need not exist."""
        return self.root / ".env"

    @property
    def has_dotenv_keys(self) -> bool:
        """Whether `.env` is read and names a key or a key file."""
        return bool(_texts(_keys(self.dotenv or {}).values()))

    @property
    def keys(self) -> dict[str, str]:
        """The key variables that count: those of `.env` if it names any, else those of the process."""
        return _keys(self.dotenv or {} if self.has_dotenv_keys else self.process)

    def ignored_key(self) -> str:
        """Return a warning if the process names a key or a key file that is not in `.env`, else ""."""
        known = _texts(self.keys.values())
        for name, value in _keys(self.process).items():
            if _texts([value]) - known:
                reason = f"ignored in the process environment, because the keyring is in {self.dotenv_path}"
                repeated = (self.dotenv or {}).get(APP_ENV, "").strip() == PRODUCTION
                use = f"{f'remove {APP_ENV} from .env and ' * repeated}set {APP_ENV}={PRODUCTION}"
                hint = f"unset {name} if it is an old copy; to use it instead of .env, {use} in the process environment"
                return message(name, reason, hint)
        return ""


def read_environment(environ: Mapping[str, str], root: Path) -> Environment:
    """Read `environ` and the `.env` in the folder `root`. Raises FileError if a `.env` that counts cannot be read."""
    path = os.fspath(root / ".env")
    in_production, process = environ.get(APP_ENV, "").strip() == PRODUCTION, dict(environ)
    seen, dotenv = identity(path), None
    try:
        dotenv = _variables(path)
    except FileError:
        if not in_production:
            raise
    if not in_production or (dotenv or {}).get(APP_ENV, "").strip() == PRODUCTION:
        return Environment(process, dotenv, root, seen)
    context = click.get_current_context(silent=True)
    if context and getattr(context.find_root().obj, "load_dotenv_defaults", False):  # `flask` has copied `.env`
        copied: Mapping[str, str] = environ  # where a file is refused here, anything may be a copy
        with suppress(FileError):
            copied = copied if dotenv is None else _variables(f"{root}/.flaskenv") | dotenv
        real = _real(environ, context.find_root())
        process = {
            name: value
            for name, value in environ.items()
            if copied.get(name) != value or real.get(name) == value or name.startswith("FLASK_")
        }
    return Environment(process, None, root, seen)


def _variables(path: str) -> dict[str, str]:
    return {} if is_absent(path) else read_dotenv(path)


def _real(environ: Mapping[str, str], flask: click.Context) -> dict[str, str]:
    """Return the variables with which this process was started.

    Where nothing tells them (no /proc; copies that the reloader has passed on), all but the keys. A file that
    `--env-file` names may say the same as `.env`: then all but the keys, too.
    """
    real = {name: value for name, value in environ.items() if name not in KEY_NAMES}
    if environ.get("WERKZEUG_RUN_MAIN") == "true":
        return real
    with suppress(OSError), open("/proc/self/environ", "rb") as file:
        pairs = (os.fsdecode(pair).partition("=") for pair in file.read().split(b"\0"))
        started = {name: value for name, _, value in pairs}
        named = flask.get_parameter_source("env_file") not in (None, ParameterSource.DEFAULT)
        return real | started if named else started
    return real


def _keys(values: Mapping[str, str]) -> dict[str, str]:
    return {name: values[name] for name in KEY_NAMES if name in values}


def _texts(values: Iterable[str]) -> set[str]:
    return {text.strip() for value in values for text in value.split(",")} - {""}


def read_dotenv(path: str) -> dict[str, str]:
    """Return the variables of a `.env` file; `$` has no meaning in it. Raises FileError."""
    return _parsed(read_text(path))


def edited_dotenv(text: str, changes: Mapping[str, str]) -> str:
    """Return the text of a `.env` file with `changes` made, and every other line byte for byte.

    A variable is changed where it is assigned last, and its earlier assignments are removed. A new one that has a value
    is added at the end. Raises FileError if the result would read back differently.
    """
    from dotenv.parser import parse_stream  # noqa: PLC0415 - as in _parsed

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
            match = re.fullmatch(_ASSIGNMENT, line)
            pieces.append(f"{match['name']}={_quoted(changes[binding.key])}{match['rest']}" if match else line)
        else:
            pieces += takewhile(str.isspace, line.splitlines(keepends=True))  # the blank lines above it
    end = "\r\n" if "\r\n" in text else "\n"
    added = [f"{name}={_quoted(value)}{end}" for name, value in changes.items() if name not in last]
    if added and pieces and not pieces[-1].endswith(("\n", "\r")):
        pieces.append(end)
    edited = "".join(pieces + added)
    if _parsed(edited) != {**before, **changes}:
        names = " and ".join(changes)
        reason = f"a change of {names} would change other lines"
        raise FileError(message("cannot edit .env", reason, f"set {names} with an editor"))
    return edited


_ASSIGNMENT = r"""(?xs)(?P<name>\s*(?:export[^\S\r\n]+)?[^=\s]+)
        (?:[^\S\r\n]*=(?:\#[^\r\n]*?|[^\S\r\n]*(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^\s\#][^\r\n]*?)?))?
        (?P<rest>(?:[^\S\r\n]+\#[^\r\n]*|[^\S\r\n]*)(?:\r\n|\n|\r)?)"""


def _quoted(value: str) -> str:
    if re.fullmatch(r"[\w.,:/+@%~-]*", value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _parsed(text: str) -> dict[str, str]:
    from dotenv import dotenv_values  # noqa: PLC0415 - most productions have no `.env`, and then do not need it

    return {name: value or "" for name, value in dotenv_values(stream=StringIO(text), interpolate=False).items()}
