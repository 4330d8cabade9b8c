"""Cookies that nobody can read or change; the other ones are signed by `tokens.signing_serializer`."""

import os
from datetime import UTC, datetime
from typing import Any

from flask.json.tag import TaggedJSONSerializer
from itsdangerous import BadSignature
from itsdangerous.encoding import base64_decode, base64_encode

from ..keys.watcher import ActiveKeys, KeyringWatcher
from ..tokens import derive

_NONCE = 12


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
        nonce = os.urandom(_NONCE)
        return base64_encode(nonce + self._ciphers[0].encrypt(nonce, text, None)).decode()

    def loads(self, cookie: str, *, return_timestamp: bool = True) -> tuple[Any, datetime]:
        """Return the value and the time of `dumps`. Raises BadData for a cookie that was not encrypted here."""
        encrypted = base64_decode(cookie)
        for cipher in self._ciphers:
            try:
                text = cipher.decrypt(encrypted[:_NONCE], encrypted[_NONCE:], None)
            except self._wrong:
                continue
            at, value = self._serializer.loads(text.decode())
            return value, datetime.fromtimestamp(at, UTC)
        raise BadSignature("no key decrypts it")
