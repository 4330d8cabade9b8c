"""A cookie that can be read by whoever has it and changed by nobody: HMAC-SHA256, every key of the ring.

Stock Flask signs with SHA-1, which OWASP ASVS 5 (11.4.1) no longer lists as suitable.
"""

import hashlib
import hmac
from collections.abc import Iterator
from typing import Any

from flask.json.tag import TaggedJSONSerializer
from itsdangerous import BadData, TimestampSigner, URLSafeTimedSerializer

from ..secret_key.live import LiveRing, Snapshot


class SignedBox:
    """Seals a value into a cookie for one purpose, and opens it again."""

    def __init__(self, live: LiveRing, purpose: str) -> None:
        self._live = live
        self._salt = purpose.encode()
        live.on_change(self._follow)

    def _follow(self, snapshot: Snapshot) -> None:
        keys = [*reversed(snapshot.verifying), snapshot.signing]
        derived = [hmac.digest(key.text.encode(), self._salt, "sha256") for key in keys]
        self._serializer = _Serializer(_Signer(self._live, derived))

    def seal(self, value: Any) -> str:
        """The cookie that holds `value` and this moment."""
        return str(self._serializer.dumps(value))

    def open(self, cookie: str) -> tuple[Any, float] | None:
        """What a cookie holds and when it was sealed; None where it was not sealed here."""
        try:
            value, at = self._serializer.loads(cookie, return_timestamp=True)
        except BadData:
            return None
        return value, at.timestamp()


class _Signer(TimestampSigner):
    """Signs with keys that are derived already, by the clock of the ring."""

    def __init__(self, live: LiveRing, keys: list[bytes]) -> None:
        super().__init__(keys, key_derivation="none", digest_method=hashlib.sha256)
        self._live = live

    def get_timestamp(self) -> int:
        return int(self._live.now)


class _Serializer(URLSafeTimedSerializer):
    """Has one signer for all its life: itsdangerous builds one at every use."""

    def __init__(self, signer: _Signer) -> None:
        super().__init__(signer.secret_keys, serializer=TaggedJSONSerializer())
        self._signer = signer

    def make_signer(self, salt: object = None) -> _Signer:
        return self._signer

    def iter_unsigners(self, salt: object = None) -> Iterator[TimestampSigner]:
        yield self._signer
