"""A baked project with users: each page counts, in the session, the requests of one of them.

/count              a visitor's count
/count/<user>       a user's count; a visitor is signed in first
/<way>/<user>       a sign-in by `sign_in`, `by_hand`, `flask_login` or `flask_security` (if those are installed)
/who                the signed-in user
/sign-out
"""

import hashlib
import os
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from flask import Flask, Response, current_app, session


def app() -> Flask:
    """The app, as it is in production."""
    package = os.environ["PROJECT"]
    made: Flask = import_module(f"{package}.app").create_app()
    sessions = import_module(f"{package}.secure.sessions")
    ways: dict[str, Callable[[str], object]] = {"sign_in": sessions.sign_in, "by_hand": _by_hand}
    if os.environ.get("WITH") == "flask_security":
        ways["flask_security"] = _flask_security(made)
    elif find_spec("flask_login"):
        ways["flask_login"] = _flask_login(made)
    for way, enter in ways.items():
        made.add_url_rule(f"/{way}/<user>", way, _said(enter))

    @made.get("/count")
    def count() -> Response:
        session["count"] = session.get("count", 0) + 1
        response = Response(str(session["count"]))
        response.headers["Signer"] = hashlib.sha256(current_app.config["SECRET_KEY"].encode()).hexdigest()[:8]
        return response

    @made.get("/count/<user>")
    def count_of(user: str) -> Response:
        if sessions.user() != user:
            sessions.sign_in(user)
        return count()

    @made.get("/who")
    def who() -> str:
        names = (session.get(name) for name in ("_user", "_user_id", "user_id"))
        return str(next(filter(None, names), "nobody")).removeprefix("unique ")

    @made.get("/sign-out")
    def sign_out() -> str:
        session.clear()
        return ""

    return made


def _by_hand(user: str) -> None:
    session.clear()
    session["user_id"] = user


def _flask_login(app: Flask) -> Callable[[str], object]:
    library = import_module("flask_login")
    user_class: type = type("User", (library.UserMixin,), {"__init__": lambda self, name: setattr(self, "id", name)})
    library.LoginManager(app).user_loader(user_class)
    return lambda user: library.login_user(user_class(user))


def _flask_security(app: Flask) -> Callable[[str], object]:
    """Flask-Security, with a datastore that knows everybody."""
    library, datastore = import_module("flask_security"), import_module("flask_security.datastore")

    def init(self: Any, name: str) -> None:
        vars(self).update(id=name, email=name, fs_uniquifier=f"unique {name}", active=True, password="", roles=[])

    user_class: type = type(
        "User", (library.UserMixin,), {"__init__": init, "fs_uniquifier": "", "tf_primary_method": None}
    )

    def find_user(self: Any, case_insensitive: bool = False, **query: str) -> Any:
        return user_class(next(iter(query.values())).removeprefix("unique "))

    methods = {"find_user": find_user, "commit": lambda self: None}
    users = type("Users", (datastore.UserDatastore,), methods)(user_class, library.RoleMixin)
    app.config.update(SECURITY_PASSWORD_SALT="x" * 32, SECURITY_PASSWORD_HASH="plaintext")
    library.Security(app, users, register_blueprint=False)
    return lambda user: library.login_user(user_class(user))


def _said(enter: Callable[[str], object]) -> Callable[[str], str]:
    return lambda user: str(enter(user))
