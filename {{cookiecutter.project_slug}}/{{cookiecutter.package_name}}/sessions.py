"""Sessions in a signed cookie: HMAC-SHA256, every key of the ring, an idle and an absolute limit.

The content can be read by whoever has the cookie; it cannot be changed. Stock Flask signs with SHA-1,
which OWASP ASVS 5 (11.4.1) no longer lists as suitable.
"""

import hashlib
from typing import Any

from flask import Flask, Request, Response
from flask.json.tag import TaggedJSONSerializer
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionInterface
from itsdangerous import BadSignature, URLSafeTimedSerializer

from .secret_key.keyring import LEAD
from .secret_key.live import LiveRing, Snapshot

SALT = "session"
_REFRESH_PART = 20
"""An unchanged session is signed anew after this part of its lifetime, so that use keeps it alive."""


class Session(SecureCookieSession):
    """Flask's session, and when it began (seconds since the epoch)."""

    started: int = 0
    stale = False
    """Whether the cookie is old enough to be signed anew."""


class SignedSessions(SessionInterface):
    """Reads a session from its cookie and writes it there."""

    session_class = Session

    def __init__(self, live: LiveRing, read_sha1: bool) -> None:
        self._live = live
        self._read_sha1 = read_sha1
        self._stock = SecureCookieSessionInterface()
        live.on_change(self._rebuild)

    def _rebuild(self, snapshot: Snapshot) -> None:
        oldest_first = [key.text for key in reversed(snapshot.verifying)]
        self._signer = URLSafeTimedSerializer(
            [*oldest_first, snapshot.signing.text],
            salt=SALT,
            serializer=TaggedJSONSerializer(),
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )

    def open_session(self, app: Flask, request: Request) -> Session:
        """The session that the request's cookie holds; an empty one where it holds none that counts."""
        self._live.current()
        cookie = request.cookies.get(self.get_cookie_name(app))
        now = int(self._live.now)
        session = (cookie and (self._read(app, cookie, now) or self._read_stock(app, cookie))) or Session()
        session.started = session.started or now
        return session

    def _read(self, app: Flask, cookie: str, now: int) -> Session | None:
        try:
            (started, content), signed = self._signer.loads(cookie, return_timestamp=True)
        except BadSignature:
            return None
        lifetime = app.permanent_session_lifetime.total_seconds()
        age = now - signed.timestamp()
        # An instance whose clock is ahead signs in our future; the ring allows for up to its lead.
        if not -LEAD < age <= lifetime or now - started > app.config["SESSION_ABSOLUTE_LIFETIME"]:
            return None
        session = Session(content)
        session.started = started
        session.stale = age > lifetime / _REFRESH_PART
        return session

    def _read_stock(self, app: Flask, cookie: str) -> Session | None:
        """A session that stock Flask signed with SHA-1, where the app is told to take those over."""
        serializer = self._stock.get_signing_serializer(app) if self._read_sha1 else None
        if serializer is None:
            return None
        try:
            session = Session(serializer.loads(cookie, int(app.permanent_session_lifetime.total_seconds())))
        except BadSignature:
            return None
        session.modified = True
        return session

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        """Set, renew or delete the cookie, as the session and its age demand."""
        if not (session.accessed or session.modified):
            return
        response.vary.add("Cookie")
        response.cache_control.no_store = True
        place: dict[str, Any] = {
            "domain": self.get_cookie_domain(app),
            "path": self.get_cookie_path(app),
            "secure": self.get_cookie_secure(app),
            "partitioned": self.get_cookie_partitioned(app),
            "samesite": self.get_cookie_samesite(app),
            "httponly": self.get_cookie_httponly(app),
        }
        name = self.get_cookie_name(app)
        if not session:
            if session.modified:
                response.delete_cookie(name, **place)
        elif session.modified or session.stale:
            value = self._signer.dumps([session.started, dict(session)])
            response.set_cookie(name, value, expires=self.get_expiration_time(app, session), **place)


def init_app(app: Flask, live: LiveRing) -> None:
    """Give `app` its sessions."""
    app.session_interface = SignedSessions(live, app.config["SESSION_READ_SHA1"])
