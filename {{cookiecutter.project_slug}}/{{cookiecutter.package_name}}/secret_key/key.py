"""One signing key: minted here or made elsewhere, judged before it is used."""

import hashlib
import re
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise

from . import minted

MIN_LENGTH = 32
MIN_DISTINCT = 6
LEAKED_HASH_BYTES = 6

_PLACEHOLDER = re.compile(
    "changeme|changethis|changeit|placeholder|replaceme|replacethis|yoursecret|yourkey|yourown"
    "|secretkey|supersecret|topsecret|mysecret|notsecret|notsosecret|insecure|password|example"
    "|verysecret|secrethere|keyhere|default|development"
)
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class KeyRefused(ValueError):
    """A text that must not be used as a key. The message says why and never holds the text.

    `remedy` says what mends it; None where only another key does.
    """

    def __init__(self, reason: str, remedy: str | None = None) -> None:
        self.remedy = remedy
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Key:
    """A key that may be used. Its `repr` and `str` show the fingerprint, never the secret."""

    text: str
    """The secret itself, as Flask gets it."""
    signs_from: int | None = None
    """Seconds since the epoch; None for a foreign key, which counts as older than every minted one."""

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that name the key in a log or a table and tell nothing about it."""
        return hashlib.sha256(b"fingerprint of " + self.text.encode()).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"<Key {self.fingerprint}>"

    __str__ = __repr__


def mint(signs_from: int) -> Key:
    """A new key that may sign from the moment `signs_from`, in seconds since the epoch."""
    return Key(minted.new_text(signs_from), signs_from)


def judge(text: str, leaked: bytes) -> Key:
    """The key that `text` is.

    `leaked` is the sorted, joined list of truncated hashes that `leaked.bin` holds.
    Raises KeyRefused for what OWASP ASVS 5 (13.3, 11.5) and CVE-2023-27524 warn of: a key that is
    guessable, public, or not the one that was meant.
    """
    if not text.strip():
        raise KeyRefused("is missing or empty")
    if _NO_TEXT.search(text):
        raise KeyRefused("has a control character or is not UTF-8 text")
    if text != text.strip():
        raise KeyRefused("begins or ends with white space", "take that away")
    if text[0] == text[-1] and text[0] in "\"'":
        raise KeyRefused("stands in quotes", "take them away")
    if minted.PIECE.search(text):
        return _parse_minted(text)
    if len(text) < MIN_LENGTH:
        raise KeyRefused(f"is too short: {len(text)} of at least {MIN_LENGTH} characters")
    if is_leaked(text, leaked):
        raise KeyRefused("is public: it stands in a word list that attackers use")
    if _is_predictable(text):
        raise KeyRefused("is predictable: its characters repeat or follow one another")
    if _PLACEHOLDER.search(re.sub("[^a-z]", "", text.lower())):
        raise KeyRefused("reads like a placeholder")
    return Key(text)


def is_leaked(text: str, leaked: bytes) -> bool:
    """Whether the hash of `text` is in the sorted list `leaked`, found by bisection."""
    wanted = leaked_hash(text)

    def entry(start: int) -> bytes:
        return leaked[start : start + LEAKED_HASH_BYTES]

    starts = range(0, len(leaked), LEAKED_HASH_BYTES)
    return entry(bisect_left(starts, wanted, key=entry) * LEAKED_HASH_BYTES) == wanted


def leaked_hash(text: str) -> bytes:
    """The truncated SHA-256 under which `leaked.bin` lists a public key."""
    return hashlib.sha256(text.encode()).digest()[:LEAKED_HASH_BYTES]


def _parse_minted(text: str) -> Key:
    try:
        signs_from = minted.start_of(text)
    except ValueError:
        raise KeyRefused("is damaged: it names a moment that does not exist") from None
    if signs_from is None:
        raise KeyRefused("is damaged: its checksum does not match", "copy the whole key again")
    return Key(text, signs_from)


def _is_predictable(text: str) -> bool:
    repeats = text in (text + text)[1:-1]
    neighbours = sum(abs(ord(a) - ord(b)) <= 1 for a, b in pairwise(text))
    return len(set(text)) < MIN_DISTINCT or repeats or 4 * neighbours > 3 * len(text)
