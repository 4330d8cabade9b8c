"""Signed tokens that expire and are valid for one purpose: a password reset, a link in an e-mail.

    token = tokens.sign(user.id, "confirm e-mail")
    user_id = tokens.verify(token, "confirm e-mail", max_age=86400)

Anyone who has a token can read it, and use it until it expires. For a token that works once, sign
something that its use changes: `[user.id, user.session_version]`.

Everything is signed with HMAC-SHA256: stock Flask signs with SHA-1, which OWASP ASVS 5 (11.4.1) does not list.
"""

import hashlib
import hmac
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from flask import current_app
from flask.json.tag import TaggedJSONSerializer
from itsdangerous import BadData, TimestampSigner, URLSafeTimedSerializer

from .keys.key import Key
from .keys.keyring import ACTIVATION_DELAY
from .keys.watcher import ActiveKeys, KeyringWatcher, get_watcher

_SALT = b"flask-secure-start v1"
_JSON = TaggedJSONSerializer()


class Reason(StrEnum):
    """Why a token is refused."""

    EXPIRED = "it has expired"
    INVALID = "it was not signed here for this purpose, or its key has expired"


class InvalidTokenError(Exception):
    """A token that must not be trusted; `reason` says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


def sign(value: Any, purpose: str) -> str:
    """Return a URL-safe token for `value`, which JSON must be able to hold.

    `purpose` is any text; only `verify` with the same text accepts the token.
    """
    return str(_serializer(get_watcher(current_app), purpose).dumps(value))


def verify(token: str | None, purpose: str, max_age: int) -> Any:
    """Return the value of a `token` that was signed for `purpose` at most `max_age` seconds ago.

    A rotation in between changes nothing. Raises InvalidTokenError, or ValueError if `max_age` is longer
    than SECRET_KEY_RETENTION: then set that to at least `max_age`.
    """
    watcher = get_watcher(current_app)
    if not 0 < max_age <= watcher.keyring.retention:
        raise ValueError(f"max_age must be 1 to {watcher.keyring.retention} seconds (SECRET_KEY_RETENTION)")
    try:
        value, signed = _serializer(watcher, purpose).loads(token or "", return_timestamp=True)
    except (BadData, UnicodeError):  # a client can send any text
        raise InvalidTokenError(Reason.INVALID) from None
    age = watcher.now - signed.timestamp()
    # An instance whose clock is ahead signs in our future; the keyring allows for up to its delay.
    if not -ACTIVATION_DELAY < age <= max_age:
        raise InvalidTokenError(Reason.EXPIRED if age > 0 else Reason.INVALID)
    return value


def _serializer(watcher: KeyringWatcher, purpose: str) -> URLSafeTimedSerializer:
    return signing_serializer(watcher, watcher.current(), f"token\0{purpose}", _JSON)


def derive(key: Key, purpose: str) -> bytes:
    """Return 32 bytes from `key` for `purpose` alone (HKDF-SHA256, RFC 5869).

    The secret is the *message* of the first HMAC. An app that shows HMAC(SECRET_KEY, text) for any text, or
    signs with itsdangerous, uses it as the key: it never computes what this function returns.
    """
    extracted = hmac.digest(_SALT, key.text.encode(), "sha256")
    return hmac.digest(extracted, purpose.encode() + b"\x01", "sha256")


def signing_serializer(
    watcher: KeyringWatcher, active: ActiveKeys, purpose: str, serializer: TaggedJSONSerializer
) -> URLSafeTimedSerializer:
    """Return a serializer that signs with the keys of `active` for `purpose`; its results are URL-safe."""
    others = [key for key in reversed(active.verifying) if key != active.signing]
    keys = [derive(key, purpose) for key in (*others, active.signing)]  # itsdangerous signs with the last one
    options = {"key_derivation": "none", "digest_method": hashlib.sha256, "clock": lambda: watcher.now}
    made = URLSafeTimedSerializer(keys, serializer=serializer, signer=_Signer, signer_kwargs=options)
    signer = made.make_signer()
    made.make_signer = lambda salt=None: signer  # type: ignore[method-assign]  # else a new one for each use
    return made


class _Signer(TimestampSigner):
    def __init__(self, *args: Any, clock: Callable[[], float], **options: Any) -> None:
        super().__init__(*args, **options)
        self.get_timestamp = lambda: int(clock())  # type: ignore[method-assign]
