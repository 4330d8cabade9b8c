"""Sessions, the same for every store; SESSION_STORE selects it.

    from flask import session       a dict for each browser, as in stock Flask

    sessions.sign_in(user.id)       the session belongs to this user from now on
    sessions.user()                 the signed-in user; None for a visitor
    session.clear()                 sign out
    sessions.rotate_id()            a new ID before a session gets more rights
    sessions.revoke_all(user.id)    end this user's sessions on every device; on a server only

Sessions in cookies cannot be revoked. To end a user's sessions in every store, keep a number with the user, pass
`load_session_version` to `init_app`, and add one to the number. See docs/building.md.
"""

from functools import partial
from typing import cast

import flask
from flask import Flask, current_app, g, request
from flask.json.tag import TaggedJSONSerializer
from werkzeug.datastructures import ImmutableMultiDict

from .. import store_address
from ..keys.watcher import KeyringWatcher
from ..tokens import EncryptedSerializer, signing_serializer
from .interface import USER, VERSION, CookieStore, Session, Sessions
from .interface import CookieTooLargeError as CookieTooLargeError
from .interface import LoadSessionVersion as LoadSessionVersion
from .interface import RevocationUnsupportedError as RevocationUnsupportedError
from .interface import SessionStoreUnavailableError as SessionStoreUnavailableError
from .interface import User as User


def init_app(
    app: Flask,
    watcher: KeyringWatcher,
    store: str = store_address.SIGNED,
    load_session_version: LoadSessionVersion | None = None,
) -> None:
    """Give `app` the sessions that SESSION_STORE selects.

    `load_session_version` returns a user's session version, None for no such user; it must not use the session.
    A session that began with another version is empty.
    """
    absolute = app.config.setdefault("SESSION_ABSOLUTE_TIMEOUT", 30 * 86400)
    app.config.setdefault("SESSION_READ_SHA1", False)
    serializer, place, purpose = TaggedJSONSerializer(), CookieStore(), "session"
    if "://" in store:
        from .redis_store import RedisStore  # noqa: PLC0415

        # A cookie of one store must not be valid in another one.
        place, purpose = RedisStore(store, app.name, serializer, absolute), "session on a server"
    codec = EncryptedSerializer if store == store_address.ENCRYPTED else signing_serializer
    make_codec = partial(codec, watcher, purpose=purpose, serializer=serializer)
    app.session_interface = Sessions(watcher, serializer, make_codec, place, load_session_version)
    app.before_request(_prepare_flask_login)


def sign_in(user: User) -> None:
    """Make this user the session's owner, with a new ID. A visitor's content stays; another user's content is removed.

    Raises ValueError if `load_session_version` knows no such user.
    """
    if (version := _interface().version_of((USER, user))) is None:
        raise ValueError("there is no such user")
    if flask.session.get(USER, user) != user:
        flask.session.clear()
    rotate_id()
    record = cast(Session, flask.session).record
    record.begins, record.user = True, (USER, user)
    flask.session[USER], flask.session[VERSION] = user, version


def user() -> User | None:
    """Return who signed in with `sign_in`; None if nobody did."""
    return cast(User | None, flask.session.get(USER))


def rotate_id() -> None:
    """Give the session a new ID, new limits and a new CSRF token; the content stays.

    On a server, the old ID ends: someone who knows it can do nothing with it.
    """
    _interface()
    cast(Session, flask.session).record.rotates = True
    token = current_app.config.get("WTF_CSRF_FIELD_NAME", "csrf_token")
    flask.session.pop(token, None)
    g.pop(token, None)
    flask.session.modified = True


def revoke_all(user: User) -> None:
    """End every session of a user, this one too, however the user signed in.

    `user` is what identifies the user in the session; with Flask-Login, the result of `get_id()`. A request in
    flight does not bring a session back. Raises RevocationUnsupportedError if sessions are kept in cookies.
    """
    _interface().store.revoke_all(user)


def ready() -> bool:
    """Return whether a session can be written now."""
    interface = current_app.session_interface
    return not isinstance(interface, Sessions) or interface.store.ready()


def _interface() -> Sessions:
    interface = current_app.session_interface
    if not isinstance(interface, Sessions):
        raise RuntimeError("app.session_interface was replaced: use the functions of its library")
    return interface


def _prepare_flask_login() -> None:
    """Before a request: load the session, and sign the remember-me cookie again if an older key signed it."""
    if "login_manager" not in vars(current_app._get_current_object()):  # type: ignore[attr-defined]
        return
    # Flask-Login uses the session after every request: there, an unavailable store would be a 500.
    user = flask.session.get("_user_id")
    name = current_app.config.get("REMEMBER_COOKIE_NAME", "remember_token")
    cookie = request.cookies.get(name, "")
    if not cookie or not cookie.isascii():
        return
    from flask_login.utils import decode_cookie, encode_cookie  # noqa: PLC0415

    # Flask-Login verifies the cookie with SECRET_KEY alone.
    keys = current_app.config["SECRET_KEY_FALLBACKS"] if decode_cookie(cookie) is None else ()
    remembered = next((found for key in keys if (found := decode_cookie(cookie, key)) is not None), None)
    if remembered is not None:
        request.cookies = ImmutableMultiDict({**request.cookies, name: encode_cookie(remembered)})
        if user in (None, remembered):
            flask.session["_remember"] = "set"  # Flask-Login then sends the cookie again
