"""Where a ring is kept: variables of the process, `.env`, or a key file.

    SECRET_KEY             the newest key
    SECRET_KEY_FALLBACKS   the older ones, comma-separated
    SECRET_KEY_FILE        or: a file with the whole ring, one key a line, newest first

A ring is read from one place: the process, where it names any of the three, else `.env`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from . import handover
from .duration import parse_duration
from .environment import Environment, edited_dotenv, read_dotenv
from .key import Key, mint
from .keyring import RETENTION, Keyring, RingRefused, judge_ring
from .minted import MINTED
from .store import (
    StoreError,
    first_env,
    is_absent,
    key_file_text,
    leaked_hashes,
    read_key_file,
    read_text,
)

KEY = "SECRET_KEY"
FALLBACKS = "SECRET_KEY_FALLBACKS"
KEY_FILE = "SECRET_KEY_FILE"
RETENTION_VARIABLE = "SECRET_KEY_RETENTION"


NAMES = (KEY, FALLBACKS, KEY_FILE)
GENERATE = "set it in the process environment to what this prints: flask secret-key generate"
INIT = "run: flask secret-key init"
ON_A_SERVER = f"{INIT} (on a server, {GENERATE})"
REVOKE = "replace it: flask secret-key revoke"

Entries = list[tuple[str, str]]
"""Pairs of a place, such as "SECRET_KEY", and the text that stands there; newest first."""


@dataclass(frozen=True, slots=True)
class Variables:
    """A ring in the variables of the process. No command can change it, only the next start."""

    values: Mapping[str, str]
    first_key = another_key = GENERATE
    path = None

    def __repr__(self) -> str:
        return "environment"

    def entries(self) -> Entries:
        """What stands in the ring's place."""
        return _entries(self.values)


@dataclass(frozen=True, slots=True)
class Dotenv:
    """A ring in `.env`: a running app follows the file."""

    path: str
    first_key = ON_A_SERVER
    another_key = REVOKE

    def __repr__(self) -> str:
        return ".env"

    def entries(self) -> Entries:
        """What stands in the ring's place; nothing where there is no file. Raises StoreError."""
        return _entries({} if is_absent(self.path) else read_dotenv(self.path))

    def first_text(self, now: int) -> str:
        """The text of a new file, with a key that signs from `now` (epoch seconds)."""
        return first_env(now)

    def text_with(self, keys: tuple[Key, ...]) -> str:
        """The file's text with `keys` in the ring's place. Raises StoreError."""
        return edited_dotenv(read_text(self.path), as_variables(keys))


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A ring in a file of its own: a running app follows the file."""

    path: str
    first_key = INIT
    another_key = REVOKE

    def __repr__(self) -> str:
        return self.path

    def entries(self) -> Entries:
        """What stands in the ring's place. Raises StoreError."""
        if is_absent(self.path):
            raise StoreError(f"{KEY_FILE} names {self.path}, which is not there; {self.first_key}")
        return [(f"{self.path} line {n}", line) for n, line in enumerate(read_key_file(self.path), 1)]

    def first_text(self, now: int) -> str:
        """The text of a new file, with a key that signs from `now` (epoch seconds)."""
        return self.text_with((mint(now),))

    def text_with(self, keys: tuple[Key, ...]) -> str:
        """The file's text with `keys` in the ring's place."""
        return key_file_text(key.text for key in keys)


Source = Variables | Dotenv | KeyFile


def locate(environment: Environment) -> Source:
    """Where the ring is, or where a first key would go. Raises RingRefused where two places are named."""
    in_process = any(name in environment.process for name in NAMES) and not _superseded(environment)
    values = environment.process if in_process else environment.file
    key_file = values.get(KEY_FILE, "").strip()
    if key_file:
        for name in (KEY, FALLBACKS):
            if name in values:
                raise RingRefused([f"{KEY_FILE} and {name} are both set; keep one of them"])
        return KeyFile(os.path.join(environment.root, key_file))
    if in_process or not environment.reads_dotenv:
        return Variables(values)
    return Dotenv(os.fspath(environment.dotenv_path))


def _superseded(environment: Environment) -> bool:
    """Whether the process has a key that `.env` no longer begins with: what `flask` copied from it before.

    A rotation left it among the older keys; a revocation did not, and the development server hands the
    copy on to each process that it starts anew.
    """
    older = [text.strip() for text in environment.file.get(FALLBACKS, "").split(",")]
    key, newest = environment.process.get(KEY, "").strip(), environment.file.get(KEY, "").strip()
    minted = MINTED.fullmatch(key) and MINTED.fullmatch(newest)
    revoked = environment.reloaded and minted and key < newest  # a minted key begins with its moment
    return bool(key) and (key in older or bool(revoked)) and KEY_FILE not in environment.process


def load_ring(environment: Environment) -> tuple[Source, Keyring]:
    """The ring and where it is kept. Raises RingRefused with all that is wrong, never showing a key.

    In a process of a running server the last good ring stands in for one that is refused; for one in `.env`
    it does only where the rest of that file has its stand-in too.
    """
    source = locate(environment)
    try:
        seconds = retention(environment)
    except RingRefused as refusal:
        raise RingRefused([*_problems(source), *refusal.problems]) from None
    try:
        return source, read_ring(source, seconds)
    except RingRefused:
        last = handover.last_good(seconds)
        if last is None or (isinstance(source, Dotenv) and not environment.stands_in):
            raise
        return source, last


def _problems(source: Source) -> Sequence[str]:
    try:
        read_ring(source, RETENTION)
    except RingRefused as refusal:
        return refusal.problems
    return ()


def read_ring(source: Source, retention: int) -> Keyring:
    """The ring as `source` has it now; `retention` in seconds. Raises RingRefused."""
    try:
        entries, leaked = source.entries(), leaked_hashes()
    except StoreError as error:
        raise RingRefused([str(error)]) from None
    has_first = bool(entries[0][1].strip())
    remedy = source.another_key if has_first else source.first_key
    return judge_ring(entries, leaked, remedy, retention)


def retention(environment: Environment) -> int:
    """For how many seconds a retired key verifies. Raises RingRefused where the setting is none."""
    text = environment.get(RETENTION_VARIABLE)
    try:
        return parse_duration(text) if text else RETENTION
    except ValueError as error:
        raise RingRefused([f"{RETENTION_VARIABLE} {error}"]) from None


def as_variables(keys: tuple[Key, ...]) -> dict[str, str]:
    """The variables that hold `keys`. Raises StoreError where a comma in a key would part it in two."""
    if any("," in key.text for key in keys[1:]):
        raise StoreError(f"a key has a comma, which {FALLBACKS} cannot hold; use {KEY_FILE} instead")
    return {KEY: keys[0].text, FALLBACKS: ",".join(key.text for key in keys[1:])}


def _entries(values: Mapping[str, str]) -> Entries:
    older = values.get(FALLBACKS, "")
    texts = [text.strip() for text in older.split(",")] if older.strip() else []
    entries = [(f"{FALLBACKS} entry {number}", text) for number, text in enumerate(texts, 1)]
    return [(KEY, values.get(KEY, "")), *entries]
