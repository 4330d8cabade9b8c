"""Signed tokens that expire and are good for one purpose: a password reset, a link in an e-mail.

    token = tokens.sign(user.id, "confirm e-mail")
    user_id = tokens.verify(token, "confirm e-mail", max_age=86400)

Whoever has a token can read it, and use it until it expires. To have one that is used once, sign
something that its use changes: `[user.id, user.session_version]`.
"""

from enum import StrEnum
from typing import Any

from flask import current_app
from itsdangerous import BadData, URLSafeTimedSerializer

from .secret_key.keyring import LEAD
from .secret_key.live import LiveRing, live_ring
from .signing import signing_serializer


class Reason(StrEnum):
    """Why a token is refused."""

    EXPIRED = "it has expired"
    INVALID = "it was not signed here for this purpose, or its key is gone"


class TokenRefused(Exception):
    """A token that must not be believed; `reason` says why."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        super().__init__(str(reason))


def sign(value: Any, purpose: str) -> str:
    """A token for `value`, which JSON can hold; fit for a URL.

    `purpose` is any name of your own; only `verify` with the same one takes the token.
    """
    return str(_serializer(live_ring(current_app), purpose).dumps(value))


def verify(token: str | None, purpose: str, max_age: int) -> Any:
    """The value that `token` was signed for, at most `max_age` seconds ago.

    A rotation in between changes nothing. Raises TokenRefused; and ValueError where `max_age` is longer
    than the ring keeps a key: raise SECRET_KEY_RETENTION to it.
    """
    live = live_ring(current_app)
    if not 0 < max_age <= live.ring.retention:
        raise ValueError(f"max_age must be 1 to {live.ring.retention} seconds (SECRET_KEY_RETENTION)")
    try:
        value, signed = _serializer(live, purpose).loads(token or "", return_timestamp=True)
    except (BadData, UnicodeError):  # a client can send any text
        raise TokenRefused(Reason.INVALID) from None
    age = live.now - signed.timestamp()
    # An instance whose clock is ahead signs in our future; the ring allows for up to its lead.
    if age <= -LEAD:
        raise TokenRefused(Reason.INVALID)
    if age > max_age:
        raise TokenRefused(Reason.EXPIRED)
    return value


def _serializer(live: LiveRing, purpose: str) -> URLSafeTimedSerializer:
    return signing_serializer(live, live.current(), f"token: {purpose}")
