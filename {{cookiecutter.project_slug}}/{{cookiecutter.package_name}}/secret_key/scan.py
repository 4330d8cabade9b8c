"""Find minted keys, and `.env` files, among what git tracks.

The prefix finds, the checksum decides: what is found is a key, and nothing else is reported.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from .key import KeyRefused, judge
from .minted import MINTED

_FOUND = re.compile(rb"([^\0]+)\0([0-9]+)\0(" + MINTED.pattern.encode() + rb")\n")


class ScanError(Exception):
    """Git cannot be asked. The message is one line."""


def scan(folder: Path) -> list[str]:
    """A line for each finding in the git work tree around `folder`, staged or on disk.

    Raises ScanError where there is no git or no work tree.
    """
    root = Path(_text(_git(folder, "rev-parse", "--show-toplevel")).removesuffix("\n"))
    findings = [*_tracked_dotenv(root), *_keys(root, "--cached"), *_keys(root)]
    return list(dict.fromkeys(findings))


def _tracked_dotenv(root: Path) -> Iterator[str]:
    for name in _text(_git(root, "ls-files", "-z")).split("\0"):
        base = PurePosixPath(name).name
        if base == ".env" or (base.startswith(".env.") and not base.endswith(".example")):
            shown = _shown(name)
            yield f"{shown}: git tracks this file; run: git rm --cached {shlex.quote(f':/{shown}')}"


def _keys(root: Path, *where: str) -> Iterator[str]:
    form = ("-a", "-z", "-n", "-o", "--full-name", "--no-color", "--no-column")
    output = _git(root, "grep", *form, "-E", "-e", MINTED.pattern, *where, no_finding=1)
    for found in _FOUND.finditer(output):
        name, line, text = map(_text, found.group(1, 2, 3))
        try:
            key = judge(text, leaked=b"")
        except KeyRefused:  # the checksum is wrong: an example, or a hash of something
            continue
        yield f"{_shown(name)}:{line}: the secret key {key.fingerprint}"


def _shown(name: str) -> str:
    """A file's name on one line, and nothing in it that a terminal would obey."""
    return name if name.isprintable() else repr(name)


def _git(folder: Path, *arguments: str, no_finding: int = 0) -> bytes:
    command = ("git", "-C", str(folder), *arguments)
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        raise ScanError("git is not installed or cannot be run; it knows which files to scan") from None
    if done.returncode not in (0, no_finding):
        lines = _text(done.stderr).splitlines() or ["nothing, but failed"]
        raise ScanError(f"git says: {next((line for line in lines if line.startswith('fatal:')), lines[-1])}")
    return done.stdout


def _text(output: bytes) -> str:
    return output.decode(errors="replace")
