"""What is the same for every store: the limits, the cookie, the user's session version.

A box seals a value into a cookie, with the moment: the session itself, or the id under which a server
keeps it. So the cookie's age tells for how long a session was not used.
"""

from collections.abc import Callable
from typing import Any, Protocol

from flask import Flask, Request, Response
from flask.json import dumps
from flask.sessions import SecureCookieSessionInterface, SessionInterface
from itsdangerous import BadSignature
from werkzeug.http import dump_cookie

from ..secret_key.environment import PRODUCTION
from ..secret_key.keyring import LEAD
from ..secret_key.live import LiveRing, Snapshot
from .lazy import USER, VERSION, Box, Held, Session, User

VersionOf = Callable[[Any], str | int | None]
"""Tells a user's session version; None where there is no such user."""

STOCK_COOKIE = "session"
"""What Flask calls its cookie, where nobody has given it another name."""
OPENED = "session.opened"
"""Where a request's environment has its session, once it is open."""
_REFRESH_PART = 20
"""A session that is used gets a new cookie after this part of its lifetime, so that use keeps it alive."""


class CookieTooLarge(RuntimeError):
    """A session that browsers would drop. The message names what fills it, and shows no value."""


class Store(Protocol):
    """Keeps sessions; what it gives to the box is all that a cookie holds."""

    def fetch(self, value: Any) -> Held | None:
        """The session that the cookie with `value` stands for; None where there is none."""

    def keep(self, held: Held, changed: bool, seconds: int) -> Any:
        """Keep a session for `seconds`; what its cookie must hold. None where it has ended meanwhile."""

    def forget(self, held: Held) -> None:
        """Drop a session."""

    def end_all(self, user: User) -> int:
        """End every session of a user; how many there were. Raises CannotEnd."""

    def ready(self) -> bool:
        """Whether sessions can be read and written now."""


class CannotEnd(RuntimeError):
    """Sessions that nobody keeps a list of."""


class InCookie:
    """The store that is none: the cookie holds the whole session."""

    def fetch(self, value: Any) -> Held | None:
        """The session that the cookie holds."""
        started, content = value
        return Held(started, content)

    def keep(self, held: Held, changed: bool, seconds: int) -> Any:
        """What the cookie must hold."""
        return held.started, held.content

    def forget(self, held: Held) -> None:
        """Nothing to do: whoever has copied the cookie still has it."""

    def end_all(self, user: User) -> int:
        """Not here."""
        raise CannotEnd("a cookie cannot be called back; move the user's session version: docs/sessions.md")

    def ready(self) -> bool:
        """Always."""
        return True


class Sessions(SessionInterface):
    """Flask's session interface for any store, and for the boxes that `box_with` makes of keys."""

    _box: Box

    def __init__(
        self,
        live: LiveRing,
        box_with: Callable[[Snapshot], Box],
        store: Store,
        version_of: VersionOf | None,
    ) -> None:
        self.live = live
        self.store = store
        self.version_of = version_of
        self._box_with = box_with
        self._stock = SecureCookieSessionInterface()
        live.on_change(self._follow)

    def _follow(self, keys: Snapshot) -> None:
        self._box = self._box_with(keys)

    def open_session(self, app: Flask, request: Request) -> Session:
        """The session of the request's cookie; it is read when it is used."""
        # Sealed with the keys that it was opened with: else a request that is under way while a leaked key
        # is revoked would carry what that key has signed over to the new one.
        box = self._box
        session = Session(lambda: self._load(app, request, box), box)
        request.environ[OPENED] = session
        return session

    def _load(self, app: Flask, request: Request, box: Box) -> Held:
        cookie = request.cookies.get(self.get_cookie_name(app))
        held = (self._read(app, cookie, box) if cookie else None) or self._read_stock(app, request)
        return held if held and self._is_current(held) else Held(int(self.live.now))

    def _read(self, app: Flask, cookie: str, box: Box) -> Held | None:
        opened = box.open(cookie)
        if opened is None:
            return None
        value, sealed = opened
        age = self.live.now - sealed
        lifetime = app.permanent_session_lifetime.total_seconds()
        # An instance whose clock is ahead seals in our future; the ring allows for up to its lead.
        if not -LEAD < age <= lifetime:
            return None
        held = self.store.fetch(value)
        if held is None or self.live.now - held.started > app.config["SESSION_ABSOLUTE_LIFETIME"]:
            return None
        held.stale = age > lifetime / _REFRESH_PART
        return held

    def _read_stock(self, app: Flask, request: Request) -> Held | None:
        """A session that stock Flask signed with SHA-1, where the app is told to take those over."""
        cookie = request.cookies.get(STOCK_COOKIE)
        serializer = self._stock.get_signing_serializer(app) if app.config["SESSION_READ_SHA1"] else None
        if serializer is None or not cookie:
            return None
        lifetime = int(app.permanent_session_lifetime.total_seconds())
        try:
            return Held(int(self.live.now), serializer.loads(cookie, lifetime), stale=True)
        except BadSignature:
            return None

    def _is_current(self, held: Held) -> bool:
        """Whether the user's session version is still the one of the sign-in."""
        user = held.content.get(USER)
        if user is None or self.version_of is None:
            return True
        version = self.version_of(user)
        return version is not None and version == held.content.get(VERSION)

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        """Keep, renew or drop the session, as its use and its age demand; once."""
        changed, session.modified = session.modified, False
        if not session.used or (session.saved and not changed):
            return
        session.saved = True
        response.vary.add("Cookie")
        response.headers["Cache-Control"] = "no-store"
        held: Held = session.held
        stale, held.stale = held.stale, False
        if changed and not held.content:
            self.store.forget(held)
            if not self._hides_stock(app):
                response.headers.add("Set-Cookie", self._cookie(app, "", max_age=0, expires=0))
                return
            held = Held(int(self.live.now))
        if changed or (stale and held.content):
            self._keep(app, session, held, changed, response)

    def _hides_stock(self, app: Flask) -> bool:
        """Whether the end of a session leaves an empty one, lest the next request read stock Flask's."""
        return bool(app.config["SESSION_READ_SHA1"]) and self.get_cookie_name(app) != STOCK_COOKIE

    def _keep(self, app: Flask, session: Session, held: Held, changed: bool, response: Response) -> None:
        value = self.store.keep(held, changed, self._seconds_left(app, held))
        if value is None:
            return
        cookie = self._cookie(app, session.box.seal(value), expires=self.get_expiration_time(app, session))
        if len(cookie) <= app.config["MAX_COOKIE_SIZE"]:
            response.headers.add("Set-Cookie", cookie)
        else:
            _refuse(app, held.content, len(cookie))

    def _seconds_left(self, app: Flask, held: Held) -> int:
        """How long a session lives if it is not used from now on."""
        absolute = held.started + app.config["SESSION_ABSOLUTE_LIFETIME"] - self.live.now
        return max(1, int(min(app.permanent_session_lifetime.total_seconds(), absolute)))

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


def _refuse(app: Flask, content: dict[str, Any], size: int) -> None:
    """Say that a session does not fit; the browser keeps the cookie that it has."""
    sizes = sorted(((len(dumps(value)), name) for name, value in content.items()), reverse=True)
    largest = ", ".join(f"{name} ({length})" for length, name in sizes[:3])
    problem = CookieTooLarge(
        f"The session needs a cookie of {size} bytes, and browsers keep {app.config['MAX_COOKIE_SIZE']}: "
        f"its changes are lost. Largest: {largest}. Keep less in it, or set SESSION_STORE to a Redis server"
    )
    if app.config["APP_ENV"] != PRODUCTION:
        raise problem
    app.logger.error("%s", problem)
