"""A cookie that can be read by whoever has it, and changed by nobody."""

from typing import Any

from itsdangerous import BadData

from ..secret_key.live import LiveRing, Snapshot
from ..signing import signing_serializer


class SignedBox:
    """Seals a value into a cookie for one purpose with the keys of a moment, and opens it again."""

    def __init__(self, live: LiveRing, keys: Snapshot, purpose: str) -> None:
        self._serializer = signing_serializer(live, keys, purpose)

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
