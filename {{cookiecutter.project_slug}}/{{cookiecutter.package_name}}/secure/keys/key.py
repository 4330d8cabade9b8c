"""A signing key: generated here or made elsewhere, validated before it is used."""

import hashlib
import re
from bisect import bisect_left
from dataclasses import dataclass

from . import key_format
from .foreign import MAX_LENGTH, MIN_LENGTH, PUT_KEY, refusal

LEAKED_HASH_BYTES = 6

_AROUND = " \t\r\n\v\f\x1c\x1d\x1e\x1f\x85\xa0\u200b\u2028\u2029\u2060\u3000\ufeff"
# Not compiled here: a generated key needs neither, and compiling one takes as long as importing a module.
_QUOTED = r"(?s)(['\"]).*\1|[\u2018\u201c\u201e].*[\u2018\u2019\u201c\u201d]"
_WRAPPED = (
    r"(?ai)(?:(?:export )?\w*(?:key|secret)\w* ?[=:] ?(?!//))?(?:[bfru]{0,2}['\"`])?"
    r"([\w+/-]{32,}={0,2})(?:\\[nrt])*(?:['\"`](?:\\[nrt]|[])},;>/])*|[,;])?"
)


class InvalidKeyError(ValueError):
    """A text that must not be a key. The message, the reason, never holds the text.

    `hint` is what fixes it and loses nothing; None where only another key helps.
    """

    def __init__(self, reason: str, hint: str | None = None) -> None:
        self.hint = hint
        super().__init__(reason)


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """A key that may be used. Its `repr` and `str` show the fingerprint, never the secret."""

    text: str
    activation: int | None = None
    """Seconds since the epoch; None for a foreign key, which counts as older than every generated one."""

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that name the key in a log or a table and tell nothing about it."""
        return hashlib.sha256(b"fingerprint of " + self.text.encode()).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"<Key {self.fingerprint}>"

    __str__ = __repr__


def generate_key(activation: int) -> Key:
    """Return a new key that may sign from the moment `activation`, in seconds since the epoch."""
    return Key(key_format.generate_text(activation), activation)


def validate_key(text: str, leaked: bytes) -> Key:
    """Return the key that `text` is: a generated key, or a foreign one that passes the rule of `foreign`.

    `leaked` is the content of `leaked.bin`: truncated hashes. Raises InvalidKeyError for what OWASP ASVS 5 (13.3, 11.5)
    and CVE-2023-27524 warn of: a key that is guessable, public, or not the one that was intended.
    """
    try:
        activation = key_format.activation_of(text)
    except ValueError:
        raise InvalidKeyError("is damaged: its date does not exist", "copy the whole key again") from None
    if activation is not None:
        return Key(text, activation)
    if not text.strip(_AROUND):
        raise InvalidKeyError("is missing or empty")
    if len(text) > MAX_LENGTH:
        raise InvalidKeyError(f"is too long: {len(text)} of at most {MAX_LENGTH} characters", PUT_KEY)
    _check_surroundings(text)
    if re.search(key_format.FRAGMENT, text):
        raise InvalidKeyError("is damaged: its checksum does not match", "copy the whole key again")
    if len(text) < MIN_LENGTH:
        raise InvalidKeyError(f"is too short: {len(text)} of at least {MIN_LENGTH} characters")
    if text.isascii() and is_leaked(text, leaked):
        raise InvalidKeyError("is in a public list of leaked keys")
    if refused := refusal(text):
        raise InvalidKeyError(*refused)
    return Key(text)


def is_leaked(text: str, leaked: bytes) -> bool:
    """Return whether the hash of `text` is in the sorted list `leaked`, found by bisection."""
    wanted = leaked_hash(text)

    def entry(start: int) -> bytes:
        return leaked[start : start + LEAKED_HASH_BYTES]

    starts = range(0, len(leaked), LEAKED_HASH_BYTES)
    return entry(bisect_left(starts, wanted, key=entry) * LEAKED_HASH_BYTES) == wanted


def leaked_hash(text: str) -> bytes:
    """Return the truncated SHA-256 under which `leaked.bin` lists a public key."""
    return hashlib.sha256(text.encode()).digest()[:LEAKED_HASH_BYTES]


def _check_surroundings(text: str) -> None:
    """Refuse what is around a key, with a hint that keeps the key."""
    inner = text.strip(_AROUND)
    if inner.startswith(("#", "//", ";")) and (len(inner) < MIN_LENGTH or " " in inner or "fsk_" in inner):
        raise InvalidKeyError("is a comment", "remove the comment line")
    bom = text.startswith("\u00ef\u00bb\u00bf") * "\ufeff"  # a byte order mark that was read as Latin-1
    for where, around in (("begins", bom + text[: text.index(inner)]), ("ends", text[len(text.rstrip(_AROUND)) :])):
        if around:
            named = "a line break" if set(around) & set("\r\n\v\f\x85\u2028\u2029") else "white space"
            named = "a byte order mark" if "\ufeff" in around else named
            raise InvalidKeyError(f"{where} with {named}", "remove it and keep the rest")
    if re.fullmatch(_QUOTED, text):
        raise InvalidKeyError("is in quotes", "remove the quotes and keep the rest")
    match = re.fullmatch(_WRAPPED, text)
    if match and match[1] != text:
        raise InvalidKeyError("has a name, a quote or a sign around it", "keep the key itself and remove the rest")
