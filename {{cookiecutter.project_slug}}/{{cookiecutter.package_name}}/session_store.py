"""SESSION_STORE: where sessions are kept, and whether that can be used.

    signed      in a cookie that can be read, but not changed; the default
    encrypted   in a cookie that can be neither
    redis://…   on a server; rediss:// is Redis with TLS, valkey:// and valkeys:// are the same for Valkey

Needs no Flask, as little as the settings do.
"""

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from redis import Redis

SIGNED = "signed"
ENCRYPTED = "encrypted"
SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
"""The schemes of an address, and what redis-py calls them."""

TIMEOUT = 1.0
"""Seconds to wait for a server; `?socket_timeout=2` at the end of its address changes it."""

_EXTRAS = {ENCRYPTED: ("encrypted", "cryptography"), **dict.fromkeys(SCHEMES, ("redis", "redis"))}


def problem_with(store: str, ask: bool) -> str | None:
    """What is wrong with a SESSION_STORE, never showing a password; None where nothing is.

    `ask` is whether to ask a server for an answer.
    """
    word, colon, _ = store.partition("://")
    if store != SIGNED and (word not in _EXTRAS or bool(colon) != (word in SCHEMES)):
        return "must be signed, encrypted, or an address such as redis://127.0.0.1:6379/0"
    extra, library = _EXTRAS.get(word, ("", ""))
    if library and not find_spec(library):
        return f"needs {library}; run: uv sync --extra {extra} (or: pip install -e '.[{extra}]')"
    return _problem_with_server(store, ask) if colon else None


def masked(address: str) -> str:
    """The address of a server without user, password and options."""
    parts = urlsplit(address)
    _, at, host = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{'***@' if at else ''}{host}{parts.path}"


def connect(address: str) -> "Redis":
    """A client for the server at `address`; it connects when it is used.

    A connection that broke is made anew, once. One that times out is not: the caller waits already.
    """
    from redis import ConnectionError, Redis  # noqa: A004, PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    scheme, _, rest = address.partition("://")
    return Redis.from_url(
        f"{SCHEMES[scheme]}://{rest}",
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=Retry(NoBackoff(), 1, (ConnectionError,)),
    )


def _problem_with_server(address: str, ask: bool) -> str | None:
    from redis import RedisError  # noqa: PLC0415

    if not _is_address(address):
        return (
            "is no address such as redis://user:password@127.0.0.1:6379/0;"
            " write / in a password as %2F, ? as %3F, [ as %5B and ] as %5D"
        )
    try:
        client = connect(address)
        if ask:
            client.ping()
            client.close()
    except RedisError as error:
        return f"names {masked(address)}, which does not answer ({error}); start it, or correct the address"
    except (TypeError, ValueError):
        return "has an option that redis-py does not know"
    return None


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    whole = parts.hostname and port != 0 and not parts.fragment and "@" not in parts.query
    return bool(whole and re.fullmatch("(/[0-9]*)?", parts.path))
