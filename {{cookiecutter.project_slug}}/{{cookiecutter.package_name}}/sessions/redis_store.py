"""Sessions on a Redis or Valkey server: every instance shares them, and each can be ended at once.

The cookie holds an id of 256 bits, signed with the ring; the server knows its SHA-256 only, so that what it
holds is no list of cookies. Content is JSON: whoever can write the server must not run code here, which
is why this is not Flask-Session 0.8, which unpickles what it reads.

Two requests of one session at once: the last one that changed it wins. One that only read it writes
nothing, and one that ends after the session does not bring it back.
"""

import hashlib
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any, TypeVar

from redis import ConnectionError, Redis, RedisError, TimeoutError  # noqa: A004
from redis.client import Pipeline
from werkzeug.exceptions import ServiceUnavailable

from ..secret_key.keyring import LEAD
from ..secret_key.live import LiveRing
from ..session_store import connect, masked
from ..tagged_json import TaggedJSON
from .lazy import USER, Held, User

PAUSE = 1
"""Seconds for which a server that did not answer is not asked again: nobody waits in vain meanwhile."""

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class StoreGone(ServiceUnavailable):
    """The server that keeps the sessions does not answer; it is asked again by itself."""

    def __init__(self) -> None:
        super().__init__(retry_after=PAUSE)


class RedisStore:
    """Sessions of the app `name` on the server at `address`; none lives longer than `absolute` seconds."""

    def __init__(self, address: str, name: str, live: LiveRing, absolute: int) -> None:
        self._client = connect(address)
        self._shown = masked(address)
        self._name = name
        self._live = live
        self._absolute = absolute
        self._format = TaggedJSON()
        self._gone = False
        self._ask_from = 0.0

    def fetch(self, value: str) -> Held | None:
        """The session with the id `value`; None where there is none, or something that is none."""
        text = self._ask(lambda client: client.get(self._key(value)))
        if text is None:
            return None
        try:
            started, content = self._format.loads(str(text, "utf-8"))  # type: ignore[arg-type]
            if isinstance(started, int) and isinstance(content, dict):
                return Held(started, content, value)
        except Exception as error:  # whatever else stands there is no session
            _log.warning("What %s holds for a session is none: %s", self._shown, type(error).__name__)
        return None

    def keep(self, held: Held, changed: bool, seconds: int) -> str | None:
        """Write a session where it has changed, and let it live for `seconds`; all of it or nothing.

        Its id; None where it was ended while this request was under way: it stays so.
        """
        is_new, old = not held.id, self._key(held.replaces)
        held.id = held.id or secrets.token_urlsafe(32)
        key = self._key(held.id)
        # What goes on has to be there still; only a visitor's first session, or a sign-in's, begins.
        goes_on = not is_new or (bool(held.replaces) and not held.begins)

        def write(client: Redis) -> bool:
            with client.pipeline() as transaction:
                self._list(transaction, held, key)
                if is_new and goes_on:
                    transaction.rename(old, key)
                elif held.replaces:
                    transaction.delete(old)
                if is_new or changed:
                    transaction.set(key, self._text(held), ex=seconds, xx=goes_on)
                else:
                    transaction.expire(key, seconds)
                return _found(transaction.execute(raise_on_error=False))

        return held.id if self._ask(write) else None

    def _list(self, transaction: Pipeline, held: Held, key: str) -> None:
        """Have the user's list name a session, for as long as it may live, and drop what is dead by now."""
        user = held.content.get(USER)
        if user is not None:
            index = self._index(user)
            transaction.zadd(index, {key: held.started + self._absolute})
            transaction.zremrangebyscore(index, "-inf", self._live.now - LEAD)
            transaction.expire(index, self._absolute)

    def forget(self, held: Held) -> None:
        """Drop a session."""
        keys = [self._key(name) for name in (held.id, held.replaces) if name]
        if keys:
            self._ask(lambda client: client.delete(*keys))

    def end_all(self, user: User) -> int:
        """End every session of a user; how many there were."""
        index = self._index(user)

        def end(client: Redis) -> int:
            keys = client.zrange(index, 0, -1)
            if not keys:
                return 0
            with client.pipeline() as transaction:
                transaction.delete(*keys)
                # Not the whole index: somebody may be signing in.
                transaction.zrem(index, *keys)
                return int(transaction.execute()[0])

        return self._ask(end)

    def ready(self) -> bool:
        """Whether the server answers."""
        try:
            return self._ask(lambda client: client.ping())
        except StoreGone:
            return False

    def _ask(self, question: Callable[[Redis], _T]) -> _T:
        """What the server answers. Raises StoreGone."""
        if time.monotonic() < self._ask_from:
            raise StoreGone
        try:
            answer = question(self._client)
        except (ConnectionError, TimeoutError) as error:
            self._ask_from = time.monotonic() + PAUSE
            if not self._gone:
                _log.error("The sessions' server %s does not answer: %s", self._shown, error)
            self._gone = True
            raise StoreGone from error
        except RedisError as error:
            _log.error("The sessions' server %s refuses: %s", self._shown, error)
            raise StoreGone from error
        if self._gone:
            _log.info("The sessions' server %s answers again", self._shown)
        self._gone = False
        return answer

    def _text(self, held: Held) -> str:
        return self._format.dumps([held.started, held.content])

    def _key(self, name: str) -> str:
        return f"{self._name}:session:{_hash(name)}"

    def _index(self, user: User) -> str:
        return f"{self._name}:sessions-of:{_hash(str(user))}"


def _found(answers: list[Any]) -> bool:
    """Whether the last command of a transaction found its key; nothing may have failed but a rename."""
    for answer in answers:
        if isinstance(answer, RedisError) and str(answer) != "no such key":
            raise answer
    return bool(answers[-1])


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
