"""What git tracks: find generated keys and `.env` files in it, and whether it would track a key file.

A search for the prefix finds a key in a file, in a file's name and in the target of a symbolic link, even inside other
text. The checksum must match, so only real keys are reported.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from .key import InvalidKeyError, validate_key
from .key_format import KEY_PATTERN
from .text import message

_FOUND = re.compile(rb"([^\0]+)\0([0-9]+)\0(" + KEY_PATTERN.pattern.encode() + rb")\n")
_DOTENV = re.compile(r"\.env(rc)?([.~_-].*)?", re.IGNORECASE)
_SAMPLE = re.compile(r"[.~_-](example|sample|template|tmpl|dist|defaults?)$", re.IGNORECASE)
_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
"""What git tells its hooks about a repository, which need not be the one around the folder."""


class ScanError(Exception):
    """git does not work. The message gives the reason, and a hint if there is one."""


def scan(folder: Path) -> list[str]:
    """Return a message, which shows no key, for each finding in the git work tree around `folder`. Raises ScanError."""
    root = Path(_text(_git(folder, "rev-parse", "--show-toplevel")).removesuffix("\n"))
    return list(dict.fromkeys(_findings(root, "")))


def would_track(path: str) -> bool:
    """Whether git tracks the file at `path` or would add it; False outside a repository or without git."""
    folder, name = os.path.split(os.path.realpath(path))
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "SECRET_KEY"))}
    # A command that root runs in the repository of another user must work, but no program of that user may run: not
    # for the state of the files, and not to fetch what a partial clone lacks.
    environ |= {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"}
    options = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false")
    command = ["git", "-C", folder, *options, "check-ignore", "--quiet", "--", name]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=environ, check=False)
    except OSError:
        return False
    return done.returncode == 1


def untrack(path: str) -> str:
    """Return a command that makes git ignore a file; the file stays."""
    folder, name = os.path.split(os.path.realpath(path))
    ignore = f"printf '\\n/%s\\n' {shlex.quote(name)} >> {shlex.quote(os.path.join(folder, '.gitignore'))}"
    return f"{ignore} && git -C {shlex.quote(folder)} rm --cached --quiet --ignore-unmatch -- {shlex.quote(name)}"


def _findings(root: Path, above: str) -> Iterator[str]:
    """Find keys and `.env` files in the work tree `root`, which is at `above` in the outermost one."""
    for entry in _text(_git(root, "ls-files", "--stage", "-z")).split("\0")[:-1]:
        about, name = entry.split("\t", 1)
        (mode, staged, _), base, shown = about.split(" "), PurePosixPath(name).name, _shown(above + name)
        if _DOTENV.fullmatch(base) and not _SAMPLE.search(base):
            command = f"git -C {shlex.quote(_shown(str(root)))} rm --cached -- {shlex.quote(_shown(name))}"
            yield message(shown, "git tracks this file", command)
        yield from _keys(shown, "its name has ", name)
        if mode == "120000":  # a symbolic link
            yield from _keys(shown, "it links to ", _text(_git(root, "cat-file", "blob", staged)))
            with suppress(OSError):  # it is no link on the disk
                yield from _keys(shown, "it links to ", os.readlink(root / name))
        if mode == "160000" and (root / name / ".git").exists():  # a submodule
            yield from _findings(root / name, f"{above}{name}/")
    form = ("-a", "-z", "-n", "-o", "--full-name", "--no-color", "--no-column", "-E", "-e", KEY_PATTERN.pattern)
    for staged_too in ((), ("--cached",)):
        for found in _FOUND.finditer(_git(root, "grep", *form, *staged_too, nothing=1)):
            name, line, text = map(_text, found.group(1, 2, 3))
            yield from _keys(f"{_shown(above + name)}:{line}", "", text)


def _keys(where: str, what: str, text: str) -> Iterator[str]:
    for found in KEY_PATTERN.finditer(text):
        with suppress(InvalidKeyError):  # the checksum is wrong: an example, or a hash of something
            key = validate_key(found[0], leaked=b"")
            hint = "remove the key, then replace it on every machine: flask secret-key revoke"
            yield message(where, f"{what}the secret key {key.fingerprint}", hint)


def _shown(name: str) -> str:
    """Return a file's name on one line, with no key and nothing that a terminal would obey."""
    name = KEY_PATTERN.sub("<secret key>", name)
    return name if name.isprintable() else repr(name)


def _git(folder: Path, *arguments: str, nothing: int = 0) -> bytes:
    command = ("git", "-C", str(folder), *arguments)
    left_out = (*_PLACES, "SECRET_KEY")  # Flask may have copied the key of `.env`
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    try:
        done = subprocess.run(command, capture_output=True, check=False, env=environment)
    except OSError:
        raise ScanError(message("cannot scan", "git is missing or cannot be run", "install git")) from None
    if done.returncode not in (0, nothing):
        lines = _text(done.stderr).splitlines() or ["unknown error"]
        reason = next((line for line in lines if line.startswith("fatal:")), lines[-1])
        raise ScanError(message("git cannot scan", reason.removeprefix("fatal: ")))
    return done.stdout


def _text(output: bytes) -> str:
    return output.decode(errors="replace")
