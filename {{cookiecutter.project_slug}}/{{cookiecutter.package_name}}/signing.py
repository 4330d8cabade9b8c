"""Signing with the ring for one purpose: HMAC-SHA256, and the moment of signing.

Stock Flask signs with SHA-1, which OWASP ASVS 5 (11.4.1) no longer lists as suitable.
"""

import hashlib
import hmac
from collections.abc import Iterator

from flask.json.tag import TaggedJSONSerializer
from itsdangerous import TimestampSigner, URLSafeTimedSerializer

from .secret_key.live import LiveRing, Snapshot


def signing_serializer(live: LiveRing, snapshot: Snapshot, purpose: str) -> URLSafeTimedSerializer:
    """A serializer whose results are URL-safe and good for `purpose` alone.

    It takes the keys of `snapshot`, derives from each the one for this purpose, and tells the time by `live`.
    """
    keys = [*reversed(snapshot.verifying), snapshot.signing]
    derived = [hmac.digest(key.text.encode(), purpose.encode(), "sha256") for key in keys]
    return _Serializer(_Signer(live, derived))


class _Signer(TimestampSigner):
    """Signs with keys that are derived already, by the clock of the ring."""

    def __init__(self, live: LiveRing, keys: list[bytes]) -> None:
        super().__init__(keys, key_derivation="none", digest_method=hashlib.sha256)
        self._live = live

    def get_timestamp(self) -> int:
        return int(self._live.now)


class _Serializer(URLSafeTimedSerializer):
    """Has one signer for all its life: itsdangerous builds one, and derives keys, at every use."""

    def __init__(self, signer: _Signer) -> None:
        super().__init__(signer.secret_keys, serializer=TaggedJSONSerializer())
        self._signer = signer

    def make_signer(self, salt: object = None) -> _Signer:
        return self._signer

    def iter_unsigners(self, salt: object = None) -> Iterator[TimestampSigner]:
        yield self._signer
