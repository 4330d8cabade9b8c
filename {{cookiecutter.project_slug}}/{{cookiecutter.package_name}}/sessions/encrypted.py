"""A cookie that nobody can read or change: AES-256-GCM, keys derived from the ring by HKDF-SHA256.

AES-GCM is the mode that OWASP ASVS 5 (11.3.2) approves first; Fernet would be AES-128-CBC. A nonce is
96 random bits, so a key is good for 2^32 cookies (NIST SP 800-38D, section 8.3): 136 a second for a year.
The content is not compressed: the length would tell of secrets that stand next to what a visitor sent.
"""

import os
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from itsdangerous import BadData
from itsdangerous.encoding import base64_decode, base64_encode

from ..secret_key.key import Key
from ..secret_key.live import LiveRing, Snapshot
from ..tagged_json import TaggedJSON

_NONCE = 12


class EncryptedBox:
    """Seals a value into a cookie for one purpose with the keys of a moment, and opens it again."""

    def __init__(self, live: LiveRing, keys: Snapshot, purpose: str) -> None:
        self._live = live
        self._format = TaggedJSON()
        others = [key for key in keys.verifying if key != keys.signing]
        self._ciphers = [_cipher(key, purpose) for key in (keys.signing, *others)]

    def seal(self, value: Any) -> str:
        """The cookie that holds `value` and this moment."""
        text = self._format.dumps([self._live.now, value]).encode()
        nonce = os.urandom(_NONCE)
        return base64_encode(nonce + self._ciphers[0].encrypt(nonce, text, None)).decode()

    def open(self, cookie: str) -> tuple[Any, float] | None:
        """What a cookie holds and when it was sealed; None where it was not sealed here."""
        try:
            sealed = base64_decode(cookie)
        except BadData:
            return None
        for cipher in self._ciphers:
            try:
                text = cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
            except (InvalidTag, ValueError):  # ValueError: too short for a nonce
                continue
            at, value = self._format.loads(text.decode())
            return value, at
        return None


def _cipher(key: Key, purpose: str) -> AESGCM:
    derivation = HKDF(SHA256(), length=32, salt=None, info=purpose.encode())
    return AESGCM(derivation.derive(key.text.encode()))
