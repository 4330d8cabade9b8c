"""Where a keyring is kept: variables of the process, the same variables in `.env`, or a key file.

    SECRET_KEY             the newest key
    SECRET_KEY_FALLBACKS   the older ones, comma-separated
    SECRET_KEY_FILE        or: a file with the whole keyring, one key per line, newest first

Running apps follow the two files without a restart.
"""

import os
import re
from collections.abc import Mapping

from . import files
from .environment import FALLBACKS, KEY, KEY_FILE, Environment, edited_dotenv, read_dotenv
from .files import FileError, is_absent
from .key import InvalidKeyError, Key, validate_key
from .key_format import FRAGMENT
from .keyring import RETENTION, InvalidKeyringError, Keyring, validate_keyring
from .text import message, parse_duration

RETENTION_SETTING = "SECRET_KEY_RETENTION"
INIT = "flask secret-key init"
GENERATE = f"set {KEY} to the output of: flask secret-key generate"
RESTORE = "restore the previous key; if there is none: "
REVOKE = f"{RESTORE}flask secret-key revoke"
MOVE = f"move the first valid key of {FALLBACKS} to {KEY}"

_DAMAGED = r"""(?:(?:export )?SECRET_KEY\w* ?[=:] ?)?(?:[\['"]*(?=[a-zA-Z_+/-]*+[0-9])[\w+/-]{16,}+=*+[,'"\]]*+)*+"""
Entries = list[tuple[str, str]]
"""Pairs of a place, such as "SECRET_KEY", and the text found there; newest first."""


class EnvironSource:
    """A keyring in the variables of the process, which only a restart changes."""

    missing_hint, invalid_hint, next_hint = GENERATE, f"{RESTORE}{GENERATE}", MOVE
    path = None

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values

    def __repr__(self) -> str:
        return "the process environment"

    def entries(self) -> Entries:
        """Return the texts of the keys."""
        return _entries(self.values)


class _InFile:
    """A keyring in a file, which a running app follows."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __repr__(self) -> str:
        return self.path


class DotenvSource(_InFile):
    """A keyring in `.env`."""

    missing_hint, invalid_hint, next_hint = f"{INIT} (on a server, {GENERATE})", REVOKE, MOVE

    def entries(self) -> Entries:
        """Return the texts of the keys. Raises FileError."""
        return _entries({} if is_absent(self.path) else read_dotenv(self.path))

    def text_with(self, keys: tuple[Key, ...], first: bool = False) -> str:
        """Return the file's text with `keys` as its keyring; `first` begins an empty file. Raises FileError."""
        text = files.NEW_ENV if is_absent(self.path) else files.read_text(self.path)
        text = files.NEW_ENV if first and not text.strip() else text
        return edited_dotenv(text, as_variables(keys))


class FileSource(_InFile):
    """A keyring in a key file."""

    missing_hint, invalid_hint, next_hint = INIT, REVOKE, "remove this line"

    def entries(self) -> Entries:
        """Return the texts of the keys; blank lines do not count. Raises FileError."""
        if is_absent(self.path):
            hint = f"restore the file; if this is a new app: {INIT}"
            raise FileError(message(f"{KEY_FILE}={self.path}", "no such file", hint))
        lines = enumerate(files.read_key_file(self.path), 1)
        return [(f"{self.path} line {number}", line) for number, line in lines if line]

    def is_foreign(self) -> bool:
        """Whether the file has a text that is no keyring, not even a damaged one: it belongs to something else."""
        try:
            text = files.read_text(self.path)
        except FileError:
            return False
        lines = text.split("\n") if text.strip() else []
        is_keyring = any(map(is_key, text.split())) or all(re.fullmatch(_DAMAGED, line.strip()) for line in lines)
        return files.PEM in text or not is_keyring

    def text_with(self, keys: tuple[Key, ...], first: bool = False) -> str:
        """Return the file's text with `keys` as its keyring, the `first` one or another."""
        return "".join(f"{key.text}\n" for key in keys)


Source = EnvironSource | DotenvSource | FileSource


class UnreadableKeyringError(InvalidKeyringError):
    """A file that could not be read at this moment."""


def find_source(environment: Environment) -> Source:
    """Return where the keyring is, or where a first key would go. Raises InvalidKeyringError."""
    keys = {name: value for name, value in environment.keys.items() if value.strip()}
    path = keys.get(KEY_FILE, "").strip()
    if path:
        if path[0] in "~$":
            reason = f"starts with {path[0]}, which is not expanded here"
            raise InvalidKeyringError([message(KEY_FILE, reason, "write the full path of the file")])
        if not os.path.isabs(path) and is_key(path):
            hint = f"unset {KEY_FILE}, and set {KEY} to the key"
            raise InvalidKeyringError([message(KEY_FILE, "is a key, not the path of a file", hint)])
        for name in (KEY, FALLBACKS):
            if name in keys:
                raise InvalidKeyringError([message(f"{KEY_FILE} and {name}", "both are set", "keep one of them")])
        return FileSource(os.path.join(environment.root, path))
    if environment.dotenv is None or (keys and not environment.has_dotenv_keys):
        return EnvironSource(keys)
    return DotenvSource(os.fspath(environment.dotenv_path))


def is_key(text: str) -> bool:
    """Return whether `text` is or was a key: a generated one may be damaged."""
    try:
        validate_key(text, b"")
    except InvalidKeyError:
        return re.search(FRAGMENT, text) is not None
    return True


def identity(source: Source) -> tuple[int, ...]:
    """Return what tells one state of the source's file from another; variables never change."""
    return () if source.path is None else files.identity(source.path)


def load_keyring(environment: Environment) -> tuple[Source, Keyring, tuple[int, ...]]:
    """Return where the keyring is, the keyring, and the state of the file (`identity`) just before it was read.

    `.env` is not read again. Raises InvalidKeyringError with every problem.
    """
    seconds, problems = RETENTION, tuple[str, ...]()
    try:
        seconds = retention(environment)
    except InvalidKeyringError as error:
        problems = error.problems
    try:
        source = find_source(environment)
        seen, entries = identity(source), None
        if isinstance(source, DotenvSource):
            seen, entries = environment.dotenv_identity, _entries(environment.dotenv or {})
        keyring = read_keyring(source, seconds, entries)
    except InvalidKeyringError as error:
        raise InvalidKeyringError([*error.problems, *problems]) from None
    if problems:
        raise InvalidKeyringError(problems)
    return source, keyring, seen


def read_keyring(source: Source, retention: int, entries: Entries | None = None) -> Keyring:
    """Return the keyring that `source` has now, or that `entries` describe. Raises InvalidKeyringError."""
    try:
        entries, leaked = source.entries() if entries is None else entries, files.leaked_hashes()
    except FileError as error:
        raise UnreadableKeyringError([str(error)]) from None
    hint = source.invalid_hint if entries[0][1].strip() else source.missing_hint
    return validate_keyring(entries, leaked, source.next_hint if len(entries) > 1 else hint, retention)


def retention(environment: Environment) -> int:
    """Return for how many seconds a retired key verifies. Raises InvalidKeyringError."""
    text = environment.get(RETENTION_SETTING)
    try:
        return parse_duration(text) if text else RETENTION
    except ValueError as error:
        raise InvalidKeyringError([message(RETENTION_SETTING, str(error), f"correct {RETENTION_SETTING}")]) from None


def as_variables(keys: tuple[Key, ...]) -> dict[str, str]:
    """Return the variables that hold `keys`. Raises FileError if a comma would split a key in two."""
    if any("," in key.text for key in keys[1:]):
        reason = "a key contains a comma, which separates keys"
        raise FileError(message(FALLBACKS, reason, f"keep the keyring in a file: {KEY_FILE}"))
    return {KEY: keys[0].text, FALLBACKS: ",".join(key.text for key in keys[1:])}


def _entries(values: Mapping[str, str]) -> Entries:
    older = values.get(FALLBACKS, "").strip()
    texts = enumerate(older.split(",") if older else [], 1)
    return [(KEY, values.get(KEY, "")), *((f"{FALLBACKS} entry {number}", text.strip()) for number, text in texts)]
