"""Signing with the ring for one purpose: HMAC-SHA256, and the moment of signing.

Stock Flask signs with SHA-1, which OWASP ASVS 5 (11.4.1) no longer lists as suitable.
"""

import hmac
from collections.abc import Iterator
from typing import Any

from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from itsdangerous.encoding import base64_encode
from itsdangerous.signer import SigningAlgorithm

from .secret_key.live import LiveRing, Snapshot
from .tagged_json import TaggedJSON

_COMPRESSED_FROM = 128
"""Bytes of JSON: to try to compress what is shorter takes longer than it is worth."""


def signing_serializer(live: LiveRing, snapshot: Snapshot, purpose: str) -> URLSafeTimedSerializer:
    """A serializer whose results are URL-safe and good for `purpose` alone.

    It takes the keys of `snapshot`, derives from each the one for this purpose, and tells the time by `live`.
    """
    keys = [*reversed(snapshot.verifying), snapshot.signing]
    derived = [hmac.digest(key.text.encode(), purpose.encode(), "sha256") for key in keys]
    return _Serializer(_Signer(live, derived))


class _HMAC(SigningAlgorithm):
    """HMAC-SHA256 in one call to OpenSSL."""

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        return hmac.digest(key, value, "sha256")


class _Signer(TimestampSigner):
    """Signs with keys that are derived already, by the clock of the ring."""

    def __init__(self, live: LiveRing, keys: list[bytes]) -> None:
        super().__init__(keys, key_derivation="none", algorithm=_HMAC())
        self._live = live

    def get_timestamp(self) -> int:
        return int(self._live.now)


class _Serializer(URLSafeTimedSerializer):
    """Has one signer for all its life: itsdangerous builds one, and derives keys, at every use."""

    def __init__(self, signer: _Signer) -> None:
        super().__init__(signer.secret_keys, serializer=TaggedJSON())
        self._signer = signer

    def make_signer(self, salt: object = None) -> _Signer:
        return self._signer

    def iter_unsigners(self, salt: object = None) -> Iterator[TimestampSigner]:
        yield self._signer

    def dump_payload(self, obj: Any) -> bytes:
        payload = self.serializer.dumps(obj).encode()
        return base64_encode(payload) if len(payload) < _COMPRESSED_FROM else super().dump_payload(obj)
