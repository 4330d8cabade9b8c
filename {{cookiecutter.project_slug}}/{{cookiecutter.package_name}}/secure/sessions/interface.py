"""Flask's session interface for every store: the limits, the cookie, sign-ins, and the user's session version.

A cookie contains a value and the time: the session itself, or the ID under which a server keeps it. So the cookie's
age shows for how long a session was not used.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from uuid import UUID

from flask import Flask, Request, Response, g, request
from flask.json.tag import TaggedJSONSerializer
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionInterface
from itsdangerous import BadData, BadSignature, URLSafeTimedSerializer
from werkzeug.exceptions import ServiceUnavailable
from werkzeug.http import dump_cookie

from ..keys.environment import PRODUCTION
from ..keys.keyring import ACTIVATION_DELAY
from ..keys.watcher import ActiveKeys, KeyringWatcher
from ..tokens import EncryptedSerializer

User = str | int | UUID
"""What identifies a user."""

USER = "_user"  # under which `sign_in` puts the user into the session
VERSION = "_version"  # the user's session version at sign-in
VERSIONED = (USER, "_user_id", "user_id")
"""The usual names of a user's ID: ours, Flask-Login's, by hand. `load_session_version` gets the value."""
USER_KEYS = (*VERSIONED, "userid", "uid", "user", "username", "account_id", "identity.id", "logged_in")
"""The names that identify a user; SESSION_USER_KEYS adds more. The first one that a session has is its user."""

LoadSessionVersion = Callable[[Any], str | int | None]
"""Returns a user's session version; None if there is no such user."""
Codec = URLSafeTimedSerializer | EncryptedSerializer

STOCK_COOKIE = "session"  # the name of Flask's cookie, unless it was changed
# The attribute of a request with the codec that opened its session, and saves it: a request in flight while a leaked
# key is revoked must not sign with the new key what the leaked key has signed.
_CODEC = "_session_codec"
PAUSE = 1  # seconds for which a server that did not answer is not asked again, so that requests do not wait for it
_MOST_LABELS = 8
_REFRESH_PART = 20  # a session in use gets a new cookie after this part of its lifetime, so that use keeps it alive
_NO_VERSION = ""
_OF_A_BODY = ("Location", "ETag", "Last-Modified", "Content-Encoding", "Content-Range", "Content-Disposition")


class CookieTooLargeError(RuntimeError):
    """A session that browsers would drop. The message names its largest entries and shows no value."""


class RevocationUnsupportedError(RuntimeError):
    """A store that cannot end the sessions of a user."""


class SessionStoreUnavailableError(ServiceUnavailable):
    """The server that keeps the sessions does not answer, or refuses; the app asks it again by itself."""

    def __init__(self) -> None:
        super().__init__(retry_after=PAUSE)


@dataclass(slots=True, eq=False, repr=False)
class SessionRecord:
    """What a store holds for one browser, and what to do with it at the end of the request."""

    started: int  # seconds since the epoch: the absolute limit counts from there
    content: dict[str, Any] = field(default_factory=dict)
    user: tuple[str, Any] | None = None  # the name and the value that identify the user
    id: str = ""  # under which a server keeps the session
    generation: str = ""  # on a server: the copy of what `revoke_all` deletes
    begins: bool = False  # a user signs in or out: the session does not continue the one that was loaded
    rotates: bool = False  # the session continues under a new ID
    stale: bool = False  # the cookie is so old that it is sent again


class Session(SecureCookieSession):
    """Flask's session, a dict. A page that does not use it asks no store.

    Flask sets `accessed` whenever `flask.session` is used (since 3.1.3). That loads it.
    A value changed in place (`session["list"].append(1)`) is not noticed, as in stock Flask: set `session.modified`.
    """

    def __init__(
        self, initial: Mapping[str, Any] | None = None, load: Callable[[], SessionRecord] | None = None
    ) -> None:
        super().__init__(initial)
        self.record = SessionRecord(0)
        self.lost = False  # whether it could not be loaded; only the first use in a request raises the error
        self._load, self._accessed = load, False

    @property
    def accessed(self) -> bool:
        """Whether the session was used in this request."""
        return self._accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        self._accessed = value
        if value and self._load:
            load, self._load, self.lost = self._load, None, True
            self.record = load()
            self.lost = False
            dict.update(self, self.record.content)


def user_of(app: Flask, content: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Return the name and the value that identify the user of a session; None for a visitor."""
    names = (*USER_KEYS, *app.config.get("SESSION_USER_KEYS", ()))
    if content.keys().isdisjoint(names):  # in one step, as most visitors have none of them
        return None
    for name in names:
        value = content.get(name)
        if value is not None and value is not False and value != "":
            return name, value
    return None


class CookieStore:
    """Keeps nothing. A cookie contains what `save` returns."""

    def load(self, value: Any) -> SessionRecord | None:
        """Return the session of the cookie with `value`; None if it has ended."""
        return SessionRecord(*value)

    def save(self, record: SessionRecord, changed: bool, seconds: int) -> Any:
        """Keep a session for `seconds` and return its cookie's value; None if it ended in the meantime."""
        return [record.started, record.content]

    def delete(self, record: SessionRecord) -> None:
        """Delete a session. A copy of a cookie cannot be deleted."""

    def revoke_all(self, user: User) -> None:
        """End every session of a user. Raises RevocationUnsupportedError."""
        reason = "change the user's session version instead (load_session_version)"
        raise RevocationUnsupportedError(f"sessions in cookies cannot be revoked: {reason}")

    def ready(self) -> bool:
        """Return whether a session can be written now."""
        return True


@dataclass(eq=False, repr=False)
class Sessions(SessionInterface):
    """Sessions in `store`, with the cookies of the codec that `make_codec` returns for the keys of a moment."""

    watcher: KeyringWatcher
    serializer: TaggedJSONSerializer  # Flask's: `register` adds a tag for a type of your own
    make_codec: Callable[[ActiveKeys], Codec]
    store: CookieStore
    load_session_version: LoadSessionVersion | None
    _codec: tuple[ActiveKeys, Codec] | None = None

    def open_session(self, app: Flask, request: Request) -> Session:
        """Return the session of the request's cookie; it is loaded when it is used."""
        keys, made = self.watcher.current(), self._codec
        if made is None or made[0] is not keys:
            made = self._codec = keys, self.make_codec(keys)
        session = Session(load=lambda: self._load(app, request, made[1]))
        # session_transaction() opens a second one and does not use flask.session.
        session.accessed = hasattr(request, _CODEC)
        setattr(request, _CODEC, made[1])
        return session

    def _load(self, app: Flask, request: Request, codec: Codec) -> SessionRecord:
        name = self.get_cookie_name(app)
        cookie = request.cookies.get(name)
        record = self._read(app, cookie, codec) if cookie else None
        # Somebody who has had a cookie of ours never becomes the user of an older one.
        if not record and app.config["SESSION_READ_SHA1"] and (name == STOCK_COOKIE or not cookie):
            record = self._read_stock(app, request)
        if record:
            version = self.version_of(record.user)
            if version is not None and version == record.content.get(VERSION, _NO_VERSION):
                return record
        return SessionRecord(int(self.watcher.now))

    def _read(self, app: Flask, cookie: str, codec: Codec) -> SessionRecord | None:
        try:
            value, at = codec.loads(cookie, return_timestamp=True)
        except BadData:
            return None
        age, lifetime = self.watcher.now - at.timestamp(), app.permanent_session_lifetime.total_seconds()
        # An instance whose clock is ahead signs in our future; the keyring allows for up to its delay.
        record = self.store.load(value) if -ACTIVATION_DELAY < age <= lifetime else None
        if record is None or self.watcher.now - record.started > app.config["SESSION_ABSOLUTE_TIMEOUT"]:
            return None
        record.user, record.stale = user_of(app, record.content), age > lifetime / _REFRESH_PART
        return record

    def _read_stock(self, app: Flask, request: Request) -> SessionRecord | None:
        """Return the session that stock Flask signed with SHA-1; it gets a new cookie."""
        serializer: Any = SecureCookieSessionInterface().get_signing_serializer(app)
        lifetime = int(app.permanent_session_lifetime.total_seconds())
        try:
            content = dict(serializer.loads(request.cookies.get(STOCK_COOKIE, ""), lifetime))
        except BadSignature:
            return None
        user = self._note_version(app, content)
        return SessionRecord(int(self.watcher.now), content, user, begins=True)

    def version_of(self, user: tuple[str, Any] | None) -> Any:
        """Return the session version of a user, None if there is no such user, _NO_VERSION if the app keeps none."""
        if self.load_session_version is None or user is None or user[0] not in VERSIONED:
            return _NO_VERSION
        return self.load_session_version(user[1])

    def _note_version(self, app: Flask, content: dict[str, Any]) -> tuple[str, Any] | None:
        """Put the version of the user into `content`, and return the user."""
        user = user_of(app, content)
        version = self.version_of(user)
        content.pop(VERSION, None)
        if version != _NO_VERSION:
            content[VERSION] = version
        return user

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        """Keep, renew or delete the session, as its use and its age require."""
        if not session.accessed:
            return
        _keep_private(response)
        try:
            if not session.lost:
                self._save(app, session, response)
            elif response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise SessionStoreUnavailableError
        except SessionStoreUnavailableError as error:
            # The app's page for the error; headers that do not belong to the old body stay.
            # Not handle_user_exception: its parameters change in Flask's main branch.
            handler = app._find_error_handler(error, request.blueprints)
            page = app.make_response(app.ensure_sync(handler)(error) if handler else error)
            for name in _OF_A_BODY:
                response.headers.pop(name, None)
            response.headers.update(page.headers)
            if hasattr(response.response, "close"):  # a file that the view sends
                response.response.close()
            response.status, response.direct_passthrough = page.status, False
            response.set_data(page.get_data())

    def _save(self, app: Flask, session: Session, response: Response) -> None:
        record, content, name = session.record, dict(session), self.get_cookie_name(app)
        if session.modified:
            self._note_sign_in(app, record, content, response)
        record.content = content
        refreshes = app.config["SESSION_REFRESH_EACH_REQUEST"] and (session.permanent or record.stale)
        if session.modified and not content:
            self.store.delete(record)
            if name in request.cookies:
                response.headers.add("Set-Cookie", self._cookie(app, "", max_age=0, expires=0))
        elif content and (session.modified or record.begins or refreshes):
            self._send_cookie(app, session, response)
        if app.config["SESSION_READ_SHA1"] and name != STOCK_COOKIE in request.cookies:
            _delete_stock_cookie(response)

    def _note_sign_in(self, app: Flask, record: SessionRecord, content: dict[str, Any], response: Response) -> None:
        """Note whether a user signed in or out, with whatever code, or proved again who they are."""
        if user_of(app, content) != record.user:
            record.begins, record.user = True, self._note_version(app, content)
            # Who planted the visitor's session knows its CSRF token. A script that gets JSON stays on its page and uses it.
            token = app.config.get("WTF_CSRF_FIELD_NAME", "csrf_token")
            if content.get(token) == record.content.get(token) and not _stays_open(response, g.get(token)):
                content.pop(token, None)
        if content.get("_fresh") and not record.content.get("_fresh"):  # Flask-Login's mark of a new sign-in
            record.rotates = True
        if record.begins or record.rotates:
            record.started = int(self.watcher.now)

    def _send_cookie(self, app: Flask, session: Session, response: Response) -> None:
        record = session.record
        absolute = record.started + app.config["SESSION_ABSOLUTE_TIMEOUT"] - self.watcher.now
        seconds = max(1, int(min(app.permanent_session_lifetime.total_seconds(), absolute)))
        value = self.store.save(record, session.modified, seconds)
        if value is None:
            return None
        expires = self.get_expiration_time(app, session)
        cookie = self._cookie(app, getattr(request, _CODEC).dumps(value), expires=expires)
        limit = app.config["MAX_COOKIE_SIZE"]
        if not limit or len(cookie) <= limit:  # 0 turns the limit off
            vars(response)["headers"].add("Set-Cookie", cookie)
            return None
        # The browser keeps the cookie that it has.
        sizes = ((len(self.serializer.dumps(value)), name) for name, value in record.content.items())
        largest = ", ".join(f"{name} ({size})" for size, name in sorted(sizes, reverse=True)[:3])
        error = CookieTooLargeError(
            f"Session not saved: its cookie has {len(cookie)} bytes, and browsers keep at most {limit}.  "
            f"Largest entries: {largest}. Keep less in the session, or keep it in a database"
        )
        if app.config.get("APP_ENV") != PRODUCTION:
            raise error
        return app.logger.error("%s", error)

    def _cookie(self, app: Flask, value: str, **limits: Any) -> str:
        return dump_cookie(
            self.get_cookie_name(app),
            value,
            domain=self.get_cookie_domain(app),
            path=self.get_cookie_path(app),
            secure=self.get_cookie_secure(app),
            partitioned=self.get_cookie_partitioned(app),
            samesite=self.get_cookie_samesite(app),
            httponly=self.get_cookie_httponly(app),
            max_size=0,
            **limits,
        )


def _stays_open(response: Response, token: str | None) -> bool:
    """Whether a page uses this CSRF token: one that is there (it gets JSON), or the response, as far as that can be read."""
    if response.is_json or token is None:
        return response.is_json
    is_readable = response.is_sequence and not response.content_encoding
    return not is_readable or token in str(response.headers) or token.encode() in response.get_data()


def _keep_private(response: Response) -> None:
    """Keep the page out of shared caches; a view's own rule stays unless it is weaker than private."""
    headers = vars(response)["headers"]  # without the default ones: web.py adds them later, in a faster way
    names = set(headers.keys(lower=True))
    if "vary" in names:
        response.vary.add("Cookie")
    else:
        headers.add("Vary", "Cookie")
    if "cache-control" not in names:
        headers.add("Cache-Control", "no-store")
    elif not ((control := response.cache_control).private or control.no_store):
        control.public, control.s_maxage, control.private = False, None, True


def _delete_stock_cookie(response: Response) -> None:
    """Delete stock Flask's cookie under each path and domain that it may have here."""
    labels = request.host.partition(":")[0].split(".")[-_MOST_LABELS:]  # a client can send thousands
    for start in range(len(labels) - 1):
        with suppress(UnicodeError):  # a client can send any host
            response.delete_cookie(STOCK_COOKIE, domain=".".join(labels[start:]))
    parts = f"{request.script_root}{request.path}".split("/")[1:4]
    for end in range(len(parts) + 1):
        response.delete_cookie(STOCK_COOKIE, path="/" + "/".join(parts[:end]))
