"""Two ways to protect a cookie: signed, which its owner can read, and encrypted.

Each puts a value and the time into a cookie, with the keys of a moment and for one purpose.
"""

import os
from typing import Any

from flask.json.tag import TaggedJSONSerializer
from itsdangerous import BadData
from itsdangerous.encoding import base64_decode, base64_encode

from ..keys.watcher import ActiveKeys, KeyringWatcher
from ..tokens import derive, signing_serializer

_NONCE = 12


class SignedCodec:
    """HMAC-SHA256 by itsdangerous."""

    def __init__(
        self, watcher: KeyringWatcher, serializer: TaggedJSONSerializer, purpose: str, keys: ActiveKeys
    ) -> None:
        self._serializer = signing_serializer(watcher, keys, purpose, serializer)

    def encode(self, value: Any) -> str:
        """Return the text of a cookie for `value`."""
        return str(self._serializer.dumps(value))

    def decode(self, cookie: str) -> tuple[Any, float] | None:
        """Return the value and the time of encoding; None for a cookie that was not encoded here."""
        try:
            value, at = self._serializer.loads(cookie, return_timestamp=True)
        except BadData:
            return None
        return value, at.timestamp()


class EncryptedCodec:
    """AES-256-GCM, which OWASP ASVS 5 (11.3.2) approves first; Fernet would be AES-128-CBC.

    A nonce is 96 random bits, so a key may encrypt 2^32 cookies (NIST SP 800-38D, section 8.3): 136 a second for a
    year. The content is not compressed: the length would reveal secrets that are next to what a visitor sent.
    """

    def __init__(
        self, watcher: KeyringWatcher, serializer: TaggedJSONSerializer, purpose: str, keys: ActiveKeys
    ) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        self._watcher = watcher
        self._serializer = serializer
        others = [key for key in keys.verifying if key != keys.signing]
        self._ciphers = [AESGCM(derive(key, f"encrypted {purpose}")) for key in (keys.signing, *others)]

    def encode(self, value: Any) -> str:
        """Return the text of a cookie for `value`."""
        text = self._serializer.dumps([self._watcher.now, value]).encode()
        nonce = os.urandom(_NONCE)
        return base64_encode(nonce + self._ciphers[0].encrypt(nonce, text, None)).decode()

    def decode(self, cookie: str) -> tuple[Any, float] | None:
        """Return the value and the time of encoding; None for a cookie that was not encoded here."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415

        try:
            encrypted = base64_decode(cookie)
        except BadData:
            return None
        for cipher in self._ciphers:
            try:
                text = cipher.decrypt(encrypted[:_NONCE], encrypted[_NONCE:], None)
            except (InvalidTag, ValueError):  # ValueError: too short for a nonce
                continue
            at, value = self._serializer.loads(text.decode())
            return value, at
        return None
