"""Signed tokens that expire and are valid for one purpose: a password reset, a link in an e-mail.

    token = tokens.sign(user.id, "confirm e-mail")
    user_id = tokens.verify(token, "confirm e-mail", max_age=86400)

Anyone who has a token can read it, and use it until it expires. For a token that works once, sign
something that its use changes: `[user.id, user.session_version]`.

Everything is signed with HMAC-SHA256: stock Flask signs with SHA-1, which OWASP ASVS 5 (11.4.1) does not list.
Session cookies are signed, or encrypted, here too.
"""

import hmac
import os
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from flask import current_app
from flask.json.tag import TaggedJSONSerializer
from itsdangerous import BadData, BadSignature, TimedSerializer, TimestampSigner, URLSafeTimedSerializer
from itsdangerous.encoding import base64_decode, base64_encode
from itsdangerous.signer import SigningAlgorithm

from .keys.key import Key
from .keys.keyring import ACTIVATION_DELAY
from .keys.watcher import ActiveKeys, KeyringWatcher, get_watcher

_SALT = b"flask-secure-start v1"
_JSON = TaggedJSONSerializer()
_NONCE_BYTES = 12
_COMPRESSED_BYTES = 500


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
    options = {"key_derivation": "none", "algorithm": _HmacSha256(keys), "clock": lambda: watcher.now}
    made = _SigningSerializer(keys, serializer=serializer, signer=_Signer, signer_kwargs=options)
    signer = made.make_signer()
    made.make_signer = lambda salt=None: signer  # type: ignore[method-assign]  # else a new one for each use
    return made


class _SigningSerializer(URLSafeTimedSerializer):
    """Compresses only long content: of a short one, zlib saves few bytes and takes a twentieth of a request."""

    def dump_payload(self, obj: Any) -> bytes:
        text = TimedSerializer.dump_payload(self, obj)
        return base64_encode(text) if len(text) < _COMPRESSED_BYTES else super().dump_payload(obj)


class _HmacSha256(SigningAlgorithm):
    """HMAC-SHA256 (RFC 2104) with its keys set up once: itsdangerous does that for each use."""

    def __init__(self, keys: list[bytes]) -> None:
        self._started = {key: hmac.new(key, digestmod="sha256") for key in keys}

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        mac = self._started[key].copy()
        mac.update(value)
        return mac.digest()


class _Signer(TimestampSigner):
    def __init__(self, *args: Any, clock: Callable[[], float], **options: Any) -> None:
        super().__init__(*args, **options)
        self.get_timestamp = lambda: int(clock())  # type: ignore[method-assign]


class EncryptedSerializer:
    """AES-256-GCM, which OWASP ASVS 5 (11.3.2) approves first; Fernet would be AES-128-CBC.

    A nonce is 96 random bits, so a key may encrypt 2^32 cookies (NIST SP 800-38D, section 8.3): 136 a second for a
    year. The content is not compressed: the length would reveal secrets that are next to what a visitor sent.
    """

    def __init__(
        self, watcher: KeyringWatcher, active: ActiveKeys, purpose: str, serializer: TaggedJSONSerializer
    ) -> None:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        self._watcher, self._serializer = watcher, serializer
        keys = [active.signing, *(key for key in active.verifying if key != active.signing)]
        self._ciphers = [AESGCM(derive(key, f"encrypted {purpose}")) for key in keys]
        self._wrong = (InvalidTag, ValueError)  # ValueError: too short for a nonce

    def dumps(self, value: Any) -> str:
        """Return the text of a cookie for `value`."""
        text = self._serializer.dumps([self._watcher.now, value]).encode()
        nonce = os.urandom(_NONCE_BYTES)
        return base64_encode(nonce + self._ciphers[0].encrypt(nonce, text, None)).decode()

    def loads(self, cookie: str, *, return_timestamp: bool = True) -> tuple[Any, datetime]:
        """Return the value and the time of `dumps`. Raises BadData for a cookie that was not encrypted here."""
        encrypted = base64_decode(cookie)
        for cipher in self._ciphers:
            try:
                text = cipher.decrypt(encrypted[:_NONCE_BYTES], encrypted[_NONCE_BYTES:], None)
            except self._wrong:
                continue
            at, value = self._serializer.loads(text.decode())
            return value, datetime.fromtimestamp(at, UTC)
        raise BadSignature("no key decrypts it")
