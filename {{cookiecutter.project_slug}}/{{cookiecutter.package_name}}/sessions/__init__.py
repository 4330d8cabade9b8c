"""Sessions, the same for every store; SESSION_STORE says which one.

    from flask import session       a dict for each browser, as ever

    sessions.sign_in(user.id)       the session is this user's from now on
    sessions.user()                 whose it is; None for a visitor's
    session.clear()                 sign out
    sessions.renew()                before a session may do more than it could so far
    sessions.end_all(user.id)       end this user's sessions on every device; on a server only

A cookie cannot be called back. What ends a user's sessions in every store is a number that the app keeps
with the user: give `version_of` to `init_app`, and add one to the number. See docs/sessions.md.
"""

from collections.abc import Callable
from functools import partial
from typing import cast

from flask import Flask, Response, current_app, g, request, session
from werkzeug.exceptions import ServiceUnavailable

from .. import session_store
from ..secret_key.live import LiveRing, Snapshot
from .interface import OPENED, CannotEnd, CookieTooLarge, InCookie, Sessions, Store, VersionOf
from .lazy import USER, VERSION, Box, Session, User
from .signed import SignedBox

__all__ = ["CannotEnd", "CookieTooLarge", "User", "end_all", "init_app", "ready", "renew", "sign_in", "user"]


def init_app(
    app: Flask,
    live: LiveRing,
    store: str = session_store.SIGNED,
    version_of: VersionOf | None = None,
) -> None:
    """Give `app` the sessions that SESSION_STORE names.

    `version_of` tells a user's session version, None for no such user; it must not use the session.
    A session that began with another one counts as empty.
    """
    place: Store = InCookie()
    box_with: Callable[[Snapshot], Box]
    if store == session_store.SIGNED:
        box_with = partial(SignedBox, live, purpose="session")
    elif store == session_store.ENCRYPTED:
        from .encrypted import EncryptedBox  # noqa: PLC0415

        box_with = partial(EncryptedBox, live, purpose="encrypted session")
    else:
        from .redis_store import RedisStore  # noqa: PLC0415

        box_with = partial(SignedBox, live, purpose="session id")
        place = RedisStore(store, app.name, live, app.config["SESSION_ABSOLUTE_LIFETIME"])
    interface = app.session_interface = Sessions(live, box_with, place, version_of)

    @app.after_request
    def save(response: Response) -> Response:
        # Flask would do it last of all: an error is to have its page, its headers and its line in the log.
        opened = request.environ.get(OPENED)
        try:
            if opened is not None:
                interface.save_session(app, opened, response)
        except ServiceUnavailable as error:
            return app.make_response(app.handle_user_exception(error))
        return response


def sign_in(user: User) -> None:
    """Make the session this user's, with a new identity. What a visitor has put into it stays.

    Raises ValueError where `version_of` knows no such user.
    """
    version_of = _interface().version_of
    version = version_of(user) if version_of else None
    if version_of and version is None:
        raise ValueError("there is no such user")
    if session.get(USER, user) != user:
        session.clear()
    renew()
    _session().held.begins = True
    session[USER], session[VERSION] = user, version


def user() -> User | None:
    """Who is signed in; None where nobody is."""
    return cast(User | None, session.get(USER))


def renew() -> None:
    """Give the session a new identity: on a server, whoever has known the old one can do nothing with it.

    A new id, both limits from now on, a new CSRF token; the content stays.
    """
    held = _session().held
    held.id, held.replaces = "", held.id or held.replaces
    held.started = int(_interface().live.now)
    token = current_app.config.get("WTF_CSRF_FIELD_NAME", "csrf_token")
    session.pop(token, None)
    g.pop(token, None)
    session.modified = True


def end_all(user: User) -> int:
    """End every session of a user, this one too; how many there were.

    Raises CannotEnd where sessions are kept in cookies.
    """
    return _interface().store.end_all(user)


def ready() -> bool:
    """Whether sessions can be read and written now."""
    return _interface().store.ready()


def _interface() -> Sessions:
    return cast(Sessions, current_app.session_interface)


def _session() -> Session:
    return cast(Session, session)
