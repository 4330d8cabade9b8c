"""`session` behaves as Flask documents, over every store: most tests compare with stock Flask."""

import copy
import gc
import json
import warnings
import weakref
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, jsonify, request
from flask import session as flask_session
from flask.json.provider import DefaultJSONProvider
from flask.json.tag import JSONTag
from flask.sessions import SecureCookieSession
from secure import sessions, web
from secure.keys import watcher
from secure.keys.keyring import Keyring
from secure.keys.sources import EnvironSource, as_variables
from sites import FIRST, LIFETIME, Browser, Site
from werkzeug.test import TestResponse

session: Any = flask_session  # it has the methods of a dict, which its type does not show
STORES = ["signed", "encrypted", "redis"]


@pytest.fixture(params=STORES)
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    """An app with each store."""
    store = str(request.param)
    return Site(store, tmp_path, request.getfixturevalue("redis") if store == "redis" else None)


@pytest.fixture
def app(site: Site) -> Flask:
    """Its app, with a session whose user is ann."""
    site.versions["ann"] = 1
    return site.app


def stock_app() -> Flask:
    """Return an app with Flask's own sessions."""
    app = Flask("stock")
    app.secret_key = "stock" * 8
    return app


def merge() -> Any:
    session["a"] = 0
    target: Any = session._get_current_object()
    target |= {"b": 2}
    return dict(target)


def without_items() -> Any:
    session.pop("a")
    session.setdefault("c", 3)
    del session["c"]
    return session.pop("missing", None), session.get("a"), len(session), "b" in session


def make_permanent() -> Any:
    before = session.permanent
    session.permanent = True
    return before, session.permanent, dict(session)


USES: dict[str, Callable[[], Any]] = {
    "isinstance dict": lambda: (isinstance(session, dict), isinstance(session, SecureCookieSession)),
    "copy": lambda: (session.copy(), type(session.copy())),
    "or": lambda: (session | {"b": 1}, {"b": 1} | session, type(session | {})),
    "ior": merge,
    "reversed": lambda: list(reversed(session)),
    "fromkeys": lambda: dict(session.fromkeys("xy", 1)),
    "json.dumps": lambda: json.dumps(session._get_current_object()),
    # the session itself: since Python 3.15 no way of json.dumps takes a proxy
    "json.dumps with indent": lambda: json.dumps(session._get_current_object(), indent=1),
    "jsonify": lambda: jsonify(dict(session)).json,
    "deepcopy": lambda: (copy.deepcopy(session) == session, copy.deepcopy(session)["list"] is session["list"]),
    "copy.copy": lambda: dict(copy.copy(session)),
    "unpacked": lambda: {**session},
    "dict": lambda: dict(session),
    "equal": lambda: session == dict(session),
    "repr": lambda: repr(session).partition("{")[2],
    "items": lambda: (list(session.items()), list(session.keys()), list(session.values()), list(session)),
    "change": without_items,
    "popitem": lambda: tuple(session.popitem()),
    "clear": lambda: (session.clear(), dict(session)),
    "update": lambda: (session.update({"x": 1}, y=2), dict(session)),
    "or empty": lambda: bool(session),
    "permanent": make_permanent,
    "new": lambda: session.new,
    "match": lambda: [name for name in session if name > "a"],
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_like_stock(app: Flask, use: Callable[[], Any]) -> None:
    """Each use gives what it gives with stock Flask, and so do the flags afterwards and the next request."""

    def results(app: Flask) -> list[Any]:
        found: list[Any] = []
        views: list[Callable[[], Any]] = [lambda: session.update(a=1, list=[1]), use, lambda: dict(session)]

        def view(number: int) -> str:
            found.append(views[number]())
            held.append(session._get_current_object())
            return ""

        held: list[Any] = []
        app.add_url_rule("/<int:number>", "view", view)
        client = app.test_client()
        for number in range(3):
            assert client.get(f"/{number}").status_code == 200
            found.append((held[-1].modified, held[-1].accessed, held[-1].new))
        return found

    assert results(app) == results(stock_app())


def cookies(response: TestResponse) -> int:
    return len(response.headers.getlist("Set-Cookie"))


@pytest.mark.parametrize("refresh", [True, False])
@pytest.mark.parametrize("permanent", [True, False])
@pytest.mark.parametrize("user", [None, "ann"])
def test_refresh_each_request(site: Site, refresh: bool, permanent: bool, user: str | None) -> None:
    """A permanent session is sent again with each page that uses it; turned off, only with a change."""
    site.app.config["SESSION_REFRESH_EACH_REQUEST"] = refresh
    browser = Browser(site)
    if user:
        browser.sign_in(user)
    browser.ask(lambda: setattr(session, "permanent", permanent), lambda: session.update(a=1))
    response = browser.ask(lambda: session.get("a"))
    assert cookies(response) == (refresh and permanent)
    assert ("Expires=" in response.headers.get("Set-Cookie", "")) == (refresh and permanent)
    assert cookies(browser.ask(lambda: None)) == 0

    site.pass_(LIFETIME / 2)
    assert cookies(browser.ask(lambda: session.get("a"))) == refresh
    site.pass_(LIFETIME / 2 + 1)
    assert browser.record() == ({"a": 1} if refresh else {})


def test_session_transaction(app: Flask) -> None:
    """It reads and writes outside an app context, with session versions; a user signed in that way is signed in."""
    with app.test_client() as client:
        with client.session_transaction() as changed:
            changed["basket"] = ["tea"]
            changed["_user"], changed["_version"] = "ann", 1
        seen: list[Any] = []
        client.get("/", environ_overrides={"do": [lambda: seen.append((sessions.user(), session["basket"]))]})
        assert seen == [("ann", ["tea"])]
        with client.session_transaction() as changed:
            assert changed["_user"] == "ann"
            changed.pop("_user")
        with client.session_transaction() as changed:
            assert dict(changed) == {"basket": ["tea"]}


def test_session_transaction_of_flask_login(app: Flask) -> None:
    """A test that sets Flask-Login's name is signed in, with the current session version."""
    client = app.test_client()
    with client.session_transaction() as changed:
        changed["_user_id"] = "ann"
    seen: list[Any] = []
    client.get("/", environ_overrides={"do": [lambda: seen.append(session.get("_user_id"))]})
    assert seen == ["ann"]


def test_replaced_response(site: Site) -> None:
    site.app.after_request(lambda response: Response("another"))
    browser = Browser(site)
    assert browser.put(a=1).text == "another"

    assert browser.record() == {"a": 1}


def test_change_in_after_request(site: Site) -> None:
    def change(response: Response) -> Response:
        session["late"] = 1
        return response

    site.app.after_request(change)
    browser = Browser(site)
    browser.put(a=1)

    assert browser.record() == {"a": 1, "late": 1}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (None, "no-store"),
        ("no-store", "no-store"),
        ("private, max-age=60", "private, max-age=60"),
        ("private", "private"),
        ("public, max-age=60", "max-age=60, private"),
        ("max-age=60", "max-age=60, private"),
        ("public, s-maxage=60", "private"),
        ("no-cache", "no-cache, private"),
    ],
)
def test_cache_control(tmp_path: Path, given: str | None, sent: str) -> None:
    """A view's own rule is kept unless shared caches may keep the page."""
    site = Site("signed", tmp_path)

    @site.app.route("/page")
    def page() -> Response:
        response = Response("page")
        if given:
            response.headers["Cache-Control"] = given
        if "use" in request.args:
            session.get("a")
        return response

    client = site.app.test_client()
    assert client.get("/page").headers.get("Cache-Control") == given
    assert client.get("/page?use=1").headers["Cache-Control"] == sent


class TagDecimal(JSONTag):
    """A type of the team's own."""

    key = " money"

    def check(self, value: Any) -> bool:
        """Whether this tag is for a value."""
        return isinstance(value, Decimal)

    def to_json(self, value: Any) -> Any:
        """Return what JSON can hold."""
        return str(value)

    def to_python(self, value: Any) -> Any:
        """Return the value."""
        return Decimal(value)


@pytest.mark.parametrize("user", [None, "ann"])
def test_registered_tag(site: Site, user: str | None) -> None:
    browser = Browser(site)
    if user:
        browser.sign_in(user)
    site.app.session_interface.serializer.register(TagDecimal, index=0)  # type: ignore[attr-defined]
    browser.put(price=Decimal("1.50"))

    assert browser.record() == {"price": Decimal("1.50")}


@pytest.mark.parametrize("user", [None, "ann"])
def test_json_provider(site: Site, user: str | None) -> None:
    class Provider(DefaultJSONProvider):
        @staticmethod
        def default(value: Any) -> Any:
            return f"own {value}"

    site.app.json = Provider(site.app)
    browser = Browser(site)
    if user:
        browser.sign_in(user)
    browser.put(price=Decimal("1.50"))

    assert browser.record() == {"price": "own 1.50"}


def test_dropped_app_is_freed(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """An app is freed when its last reference goes, without the garbage collector, before and after a request."""
    redis = request.getfixturevalue("redis")

    def run(store: str, serve: bool) -> "weakref.ref[Flask]":
        app = Flask("site")
        keyring = watcher.KeyringWatcher(EnvironSource(as_variables((FIRST,))), Keyring((FIRST,)))
        sessions.init_app(app, keyring, redis.address if store == "redis" else store, {"ann": 1}.get)
        app.extensions["secret_key"] = keyring
        app.register_blueprint(web.health)

        def sign_in() -> str:
            sessions.sign_in("ann")
            return str(sessions.user())

        if serve:
            app.add_url_rule("/", view_func=sign_in)
            with app.test_client() as client:
                assert client.get("/").text == client.get("/").text == "ann"
        return weakref.ref(app)

    with warnings.catch_warnings(action="ignore"):  # what other tests have left, such as connections to Redis
        gc.collect()
    gc.disable()
    try:
        alive = [(store, serve) for store in STORES for serve in (False, True) if run(store, serve)() is not None]
    finally:
        gc.enable()
    assert alive == []
