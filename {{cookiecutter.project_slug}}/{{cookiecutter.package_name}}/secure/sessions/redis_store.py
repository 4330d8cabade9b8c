"""Sessions on a Redis or Valkey server: all instances share them, and each can be ended at once.

The cookie holds an ID of 256 bits, signed with the keyring. The server knows only its SHA-256, so its content is not
a list of cookies. Content is JSON: someone who can write to the server must not run code here (Flask-Session 0.8
unpickles what it reads).

A session without a user stays in the signed cookie and moves to the server at sign-in: anonymous visitors cannot fill
the server.

Each user has a *generation*, a random text, and each of the user's sessions holds a copy. A session is valid while
both are equal. `revoke_all` deletes the generation, so what a request in flight writes afterwards is not valid.

If two requests change one session at once, the last one wins. A request that only reads writes nothing, and one that
ends after its session does not bring it back.
"""

import hashlib
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from flask.json.tag import TaggedJSONSerializer
from redis import ConnectionError, Redis, RedisError, TimeoutError  # noqa: A004
from redis.exceptions import OutOfMemoryError

from ..store_address import connect, masked
from .interface import PAUSE, CookieStore, SessionRecord, SessionStoreUnavailableError, User

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class RedisStore(CookieStore):
    """The sessions of the app `name` on the server at `address`; none lives longer than `absolute` seconds."""

    def __init__(self, address: str, name: str, serializer: TaggedJSONSerializer, absolute: int) -> None:
        self._client, self._shown = connect(address), masked(address)
        self._name, self._serializer, self._absolute = name, serializer, absolute
        self._is_down, self._ask_from = False, 0.0

    def load(self, value: Any) -> SessionRecord | None:
        """Return the session of a visitor from the cookie, that of a user from the server."""
        match value:
            case [str(identifier), str(user)]:
                keys = [self._key("session", identifier), self._key("user", user)]
            case _:
                return super().load(value)
        text, current = cast(list[bytes | None], self._ask(lambda client: client.mget(keys)))
        if text is None or current is None:
            return None
        try:
            started, content, generation = self._serializer.loads(text.decode())
            if isinstance(started, int) and isinstance(content, dict) and generation == current.decode():
                return SessionRecord(started, content, id=identifier, generation=generation)
        except Exception as error:  # anything else in its place is not a session
            _log.warning("Ignoring invalid session data in %s: %s", self._shown, type(error).__name__)
        return None

    def save(self, record: SessionRecord, changed: bool, seconds: int) -> Any:
        """Write a session, all of it or nothing, and return its ID and user; None if it ended in the meantime.

        Every command has the same result when it is sent twice, so it is safe to ask again.
        """
        if not record.user:
            self.delete(record)
            return super().save(record, changed, seconds)
        user = _user(record.user[1])
        user_key = self._key("user", user)
        old = record.id and self._key("session", record.id)
        begins = record.begins or not old
        if begins:
            record.generation = self._begin(user_key)
        if begins or record.rotates:
            record.id = secrets.token_urlsafe(32)
        key = self._key("session", record.id)
        text = self._serializer.dumps([record.started, record.content, record.generation])

        def write(client: Redis) -> bool:
            with client.pipeline() as transaction:
                transaction.expire(user_key, self._absolute)
                if old and begins:
                    transaction.delete(old)
                elif old and record.rotates:
                    transaction.rename(old, key)
                if changed or begins:
                    # A session that continues must still exist; only a sign-in begins one.
                    transaction.set(key, text, ex=seconds, xx=not begins)
                else:
                    transaction.expire(key, seconds)
                return _succeeded(transaction.execute(raise_on_error=False))

        return [record.id, user] if self._ask(write) else None

    def _begin(self, user_key: str) -> str:
        """Return the generation of a user, a new one if there is none."""

        def begin(client: Redis) -> bytes:
            with client.pipeline() as transaction:
                transaction.set(user_key, secrets.token_urlsafe(12), ex=self._absolute, nx=True)
                transaction.get(user_key)
                return cast(bytes, transaction.execute()[-1])

        return self._ask(begin).decode()

    def delete(self, record: SessionRecord) -> None:
        """Delete a session from the server."""
        if record.id:
            self._ask(lambda client: client.delete(self._key("session", record.id)))

    def revoke_all(self, user: User) -> None:
        """End every session of a user."""
        self._ask(lambda client: client.delete(self._key("user", _user(user))))

    def ready(self) -> bool:
        """Return whether a session can be written now."""
        try:
            return bool(self._ask(lambda client: client.set(f"{self._name}:ready", 1, ex=60)))
        except SessionStoreUnavailableError:
            return False

    def _ask(self, question: Callable[[Redis], _T]) -> _T:
        """Return the server's answer. Raises SessionStoreUnavailableError."""
        if time.monotonic() < self._ask_from:
            raise SessionStoreUnavailableError
        try:
            try:
                answer = question(self._client)
            except OutOfMemoryError:
                raise
            except RedisError:
                # After a failover the open connections lead to the old primary (READONLY, MASTERDOWN), and an idle one
                # may have been dropped silently. Connections that other threads use are theirs to close.
                self._client.connection_pool.disconnect(inuse_connections=False)
                answer = question(self._client)
        except RedisError as error:
            was_down, self._is_down = self._is_down, isinstance(error, ConnectionError | TimeoutError)
            if self._is_down:
                self._ask_from = time.monotonic() + PAUSE
            if not (was_down and self._is_down):
                problem = "does not answer" if self._is_down else "refuses a command"
                _log.error("The session store %s %s: %s", self._shown, problem, error)
            raise SessionStoreUnavailableError from error
        if self._is_down:
            _log.info("The session store %s answers again", self._shown)
        self._is_down = False
        return answer

    def _key(self, kind: str, name: str) -> str:
        return f"{self._name}:{kind}:{_hash(name)}"


def _succeeded(answers: list[Any]) -> bool:
    """Return whether the last command of a transaction found its key. Raises the error of any but RENAME."""
    for answer in answers:
        if isinstance(answer, RedisError) and str(answer) != "no such key":
            raise answer
    return bool(answers[-1])


def _user(user: object) -> str:
    # It is in the cookie, so it must be short.
    return _hash(str(user))[:32]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
