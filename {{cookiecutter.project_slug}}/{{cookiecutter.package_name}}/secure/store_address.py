"""SESSION_STORE: where sessions are kept, and whether that can be used.

    signed      in a cookie that its owner can read, but not change; the default
    encrypted   in a cookie that nobody can read or change
    redis://…   on a server; rediss:// is Redis with TLS, valkey:// and valkeys:// are the same for Valkey

Needs no Flask, like the settings.
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
"""The schemes of an address, and redis-py's names for them."""

TIMEOUT = 1.0  # seconds to wait for a server; `?socket_timeout=2` at the end of its address changes it
_EXTRAS = {ENCRYPTED: ("encrypted", "cryptography"), **dict.fromkeys(SCHEMES, ("redis", "redis"))}
_ONE_PRIMARY = "hint: name one server that accepts writes, or a proxy or host name that follows the primary"


def problem_with(store: str, ask: bool) -> str | None:
    """Return what is wrong with a SESSION_STORE, with a hint and without a password; None if nothing is.

    `ask` is whether to ask a server for an answer.
    """
    word, colon, _ = store.partition("://")
    if colon and re.search("sentinel|cluster|socket|unix", word):
        return f"Redis Sentinel, Redis Cluster and Unix sockets are not supported\n{_ONE_PRIMARY}"
    if store != SIGNED and (word not in _EXTRAS or bool(colon) != (word in SCHEMES)):
        return "must be signed, encrypted, or an address such as redis://127.0.0.1:6379/0"
    extra, library = _EXTRAS.get(word, ("", ""))
    if library and not find_spec(library):
        return f"needs {library}\nhint: run: uv sync --extra {extra} (or: pip install -e '.[{extra}]')"
    return _problem_with_server(store, ask) if colon else None


def masked(address: str) -> str:
    """Return the address of a server without user, password and options."""
    parts = urlsplit(address)
    _, at, host = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{'***@' if at else ''}{host}{parts.path}"


def connect(address: str) -> "Redis":
    """Return a client for the server at `address`; it connects when it is used, and does not retry."""
    from redis import Redis  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    scheme, _, rest = address.partition("://")
    limits = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, "retry": Retry(NoBackoff(), 0)}
    return Redis.from_url(f"{SCHEMES[scheme]}://{rest}", **limits)


def _problem_with_server(address: str, ask: bool) -> str | None:
    from redis import RedisError  # noqa: PLC0415
    from redis.exceptions import NoPermissionError  # noqa: PLC0415

    try:
        parts = urlsplit(address)
        whole = parts.hostname and parts.port != 0 and not parts.fragment and "@" not in parts.query
    except ValueError:
        whole = False
    if not whole or not re.fullmatch("(/[0-9]*)?", parts.path):
        hint = "write / in a password as %2F, ? as %3F, [ as %5B and ] as %5D"
        return f"is not an address such as redis://user:password@127.0.0.1:6379/0\nhint: {hint}"
    try:
        client = connect(address)
        mode = client.info("server").get("redis_mode") if ask else ""
    except NoPermissionError:
        return None
    except RedisError as error:
        return f"{masked(address)} does not answer ({error})\nhint: start the server, or correct the address"
    except (TypeError, ValueError):
        return "has an option that redis-py does not know"
    if mode in ("sentinel", "cluster"):
        return f"{masked(address)} is a Redis {str(mode).title()} node, which is not supported\n{_ONE_PRIMARY}"
    return None
