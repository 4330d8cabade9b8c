"""Every sign-in changes the session ID, with whatever code; what has ended does not come back."""

import gzip
import threading
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import flask_login
import pytest
from flask import Flask, Response, flash, request, session
from flask.testing import FlaskClient
from flask_security import RoleMixin, Security, UserMixin
from flask_security.datastore import UserDatastore
from flask_security.utils import login_user as security_login
from flask_wtf.csrf import generate_csrf, validate_csrf
from secure import sessions
from sites import DAY, Browser, RedisServer, Site
from werkzeug.test import TestResponse
from wtforms import ValidationError

SECURE = {
    "APP_ENV": "production",
    "SESSION_COOKIE_NAME": "__Host-session",
    "SESSION_COOKIE_SECURE": True,
    "SESSION_COOKIE_HTTPONLY": True,
    "SESSION_COOKIE_SAMESITE": "Lax",
    "SESSION_COOKIE_PATH": "/",
}
HTTPS = "https://example.org/"


class LoginUser(flask_login.UserMixin):  # type: ignore[misc,unused-ignore]
    """A user of Flask-Login."""

    def __init__(self, name: str) -> None:
        self.id = name


class SecurityUser(UserMixin):
    """A user of Flask-Security."""

    fs_uniquifier = ""

    def __init__(self, name: str) -> None:
        self.id: Any = name
        self.email = name
        self.fs_uniquifier = f"unique {name}"
        self.active, self.password, self.roles = True, "", []
        self.tf_primary_method = None


class Users(UserDatastore):
    """A datastore of Flask-Security that knows everybody."""

    def __init__(self) -> None:
        super().__init__(SecurityUser, RoleMixin)

    def find_user(self, case_insensitive: bool = False, **query: Any) -> SecurityUser:
        """Return the user of any name."""
        return SecurityUser(str(next(iter(query.values()))).removeprefix("unique "))

    def commit(self) -> None:
        """Keep nothing."""


def with_flask_login(app: Flask) -> None:
    manager = flask_login.LoginManager(app)
    manager.user_loader(LoginUser)


def with_flask_security(app: Flask) -> None:
    app.config.update(SECURITY_PASSWORD_SALT="x" * 32, SECURITY_PASSWORD_HASH="plaintext", WTF_CSRF_ENABLED=False)
    Security(app, Users(), register_blueprint=False)


def by_hand(name: str, clear: bool = False) -> Callable[[str], None]:
    def sign_in(user: str) -> None:
        if clear:
            session.clear()
        session[name] = user

    return sign_in


def nothing(app: Flask) -> None:
    """Install no library."""


WAYS: dict[str, tuple[Callable[[Flask], None], Callable[[str], object], str]] = {
    "sessions.sign_in": (nothing, sessions.sign_in, "_user"),
    "flask_login.login_user": (with_flask_login, lambda user: flask_login.login_user(LoginUser(user)), "_user_id"),
    "Flask-Security": (with_flask_security, lambda user: security_login(SecurityUser(user)), "_user_id"),
    "session.clear, session[user_id]": (nothing, by_hand("user_id", clear=True), "user_id"),
    "session[user_id]": (nothing, by_hand("user_id"), "user_id"),
    "session[username]": (nothing, by_hand("username"), "username"),
    "session[identity.id]": (nothing, by_hand("identity.id"), "identity.id"),
    "a name of the app's own": (nothing, by_hand("member"), "member"),
}


@pytest.fixture(params=WAYS, ids=list(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    """The name of a way to sign in."""
    return str(request.param)


@pytest.fixture
def app(way: str, tmp_path: Path, redis: RedisServer) -> Flask:
    """An app with production settings whose sessions are on a server, and which signs in that way."""
    install, sign_in, name = WAYS[way]
    app = Site("redis", tmp_path, redis).app
    app.config.update(SECURE, SESSION_USER_KEYS=("member",))
    app.session_interface.load_session_version = None  # type: ignore[attr-defined]
    install(app)

    @app.route("/sign-in")
    def enter() -> str:
        sign_in(request.args["user"])
        return ""

    @app.route("/whoami")
    def whoami() -> str:
        return str(session.get(name)).removeprefix("unique ")

    @app.route("/out")
    def leave() -> str:
        session.clear()
        flash("bye")
        return ""

    @app.route("/put")
    def put() -> str:
        session["n"] = 1
        return ""

    @app.route("/form")
    def form() -> str:
        if "user" in request.args:
            sign_in(request.args["user"])
        return str(generate_csrf())

    @app.route("/sign-in-with-a-form-object")
    def enter_with_a_form_object() -> str:
        generate_csrf()  # as the constructor of a FlaskForm does
        sign_in(request.args["user"])
        return "welcome"

    @app.route("/token-in-a-header")
    def token_in_a_header() -> Response:
        sign_in(request.args["user"])
        return Response(headers={"X-CSRFToken": generate_csrf()})

    @app.route("/token-in-a-packed-body")
    def token_in_a_packed_body() -> Response:
        sign_in(request.args["user"])
        return Response(gzip.compress(generate_csrf().encode()), headers={"Content-Encoding": "gzip"})

    @app.route("/token-in-parts")
    def token_in_parts() -> Response:
        sign_in(request.args["user"])
        return Response(deque([generate_csrf().encode()]), direct_passthrough=True)

    @app.route("/is-valid")
    def is_valid() -> str:
        with suppress(ValidationError):
            validate_csrf(request.args["token"])
            return "yes"
        return "no"

    return app


def cookie_of(client: FlaskClient) -> str:
    """Return the session cookie of a browser."""
    cookie = client.get_cookie("__Host-session", "example.org")
    assert cookie
    assert (cookie.secure, cookie.http_only, cookie.same_site, cookie.path) == (True, True, "Lax", "/")
    return cookie.value


def with_cookie(app: Flask, value: str) -> FlaskClient:
    """Return a browser that has a cookie somebody else knows."""
    client = app.test_client()
    client.set_cookie("__Host-session", value, domain="example.org", secure=True)
    return client


def get(client: FlaskClient, path: str) -> str:
    response = client.get(path, base_url=HTTPS)
    assert response.status_code == 200
    return response.text


def test_planted_visitor_session(app: Flask) -> None:
    """Somebody plants a visitor's session; the victim signs in; the planted cookie is nobody's."""
    attacker = app.test_client()
    get(attacker, "/put")
    planted = cookie_of(attacker)
    victim = with_cookie(app, planted)
    get(victim, f"/sign-in?user={uuid.uuid4()}")

    assert get(victim, "/whoami") != "None"
    assert get(with_cookie(app, planted), "/whoami") == "None"
    assert cookie_of(victim) != planted


def test_planted_user_session(app: Flask) -> None:
    """The planted session belongs to the attacker's own account: its ID is dead after the victim's sign-in."""
    attacker = app.test_client()
    get(attacker, "/sign-in?user=mallory")
    planted = cookie_of(attacker)
    victim = with_cookie(app, planted)
    get(victim, "/sign-in?user=ann")

    assert get(victim, "/whoami") == "ann"
    assert get(with_cookie(app, planted), "/whoami") == "None"
    assert get(attacker, "/whoami") == "None"


@pytest.mark.parametrize("page", ["sign-in", "sign-in-with-a-form-object"])
def test_planted_csrf_token(app: Flask, page: str) -> None:
    """Who planted a visitor's session knows its CSRF token: it ends at the sign-in."""
    attacker = app.test_client()
    known = get(attacker, "/form")
    victim = with_cookie(app, cookie_of(attacker))
    assert get(victim, f"/is-valid?token={known}") == "yes"
    get(victim, f"/{page}?user=ann")

    assert get(victim, f"/is-valid?token={known}") == "no"
    shown = get(victim, "/form")
    get(victim, "/put")
    assert get(victim, f"/is-valid?token={shown}") == "yes"


def test_script_that_signs_in(app: Flask, way: str) -> None:
    """Its page stays open, with the token that is there; `sessions.sign_in` ends that one, too."""

    @app.route("/sign-in-as-json")
    def enter_as_json() -> dict[str, str]:
        WAYS[way][1]("ann")
        return {}

    browser = app.test_client()
    shown = get(browser, "/form")
    get(browser, "/sign-in-as-json")
    ends = way in ("sessions.sign_in", "session.clear, session[user_id]")
    assert get(browser, f"/is-valid?token={shown}") == ("no" if ends else "yes")


FORMS: dict[str, Callable[[TestResponse], str]] = {
    "form": lambda answer: answer.text,
    "token-in-a-header": lambda answer: answer.headers["X-CSRFToken"],
    "token-in-a-packed-body": lambda answer: gzip.decompress(answer.data).decode(),
    "token-in-parts": lambda answer: answer.text,
}


@pytest.mark.parametrize("page", FORMS)
def test_form_in_the_answer_to_a_sign_in(app: Flask, page: str) -> None:
    """The token in the answer is valid, wherever it is."""
    browser = app.test_client()
    get(browser, "/form")
    shown = FORMS[page](browser.get(f"/{page}?user=ann", base_url=HTTPS))

    assert get(browser, "/whoami") == "ann"
    assert get(browser, f"/is-valid?token={shown}") == "yes"


def test_sign_out_with_flash(app: Flask) -> None:
    """The old ID is dead, and a request in flight that still has it brings nothing back."""
    browser = app.test_client()
    get(browser, "/sign-in?user=ann")
    stolen = cookie_of(browser)
    get(browser, "/out")

    assert get(browser, "/whoami") == "None"
    for _ in range(2):
        assert get(with_cookie(app, stolen), "/whoami") == "None"
        get(with_cookie(app, stolen), "/put")


def test_revoke_all_knows_the_user(app: Flask, way: str) -> None:
    browser, other = app.test_client(), app.test_client()
    get(browser, "/sign-in?user=ann")
    get(other, "/sign-in?user=bob")
    with app.app_context():
        sessions.revoke_all("unique ann" if way == "Flask-Security" else "ann")

    assert get(browser, "/whoami") == "None"
    assert get(other, "/whoami") == "bob"
    get(browser, "/sign-in?user=ann")
    assert get(browser, "/whoami") == "ann"


# With the stores' suite


def test_login_again(tmp_path: Path, redis: RedisServer) -> None:
    """A user who was remembered proves who they are: the ID from before is dead."""
    site = Site("redis", tmp_path, redis)
    site.app.session_interface.load_session_version = None  # type: ignore[attr-defined]
    with_flask_login(site.app)
    browser = Browser(site)
    browser.ask(lambda: session.update(_user_id="ann", _fresh=False))
    stolen = browser.copy()
    browser.ask(lambda: flask_login.login_user(LoginUser("ann")))

    names: list[Any] = []
    browser.ask(lambda: names.append(session.get("_user_id")))
    stolen.ask(lambda: names.append(session.get("_user_id")))
    assert names == ["ann", None]


@pytest.mark.parametrize("store", ["signed", "encrypted", "redis"])
def test_version_of_flask_login_users(store: str, tmp_path: Path, redis: RedisServer) -> None:
    """A moved session version ends the sessions of users who signed in with Flask-Login or by hand."""
    site = Site(store, tmp_path, redis if store == "redis" else None)
    with_flask_login(site.app)
    for sign_in in (lambda: flask_login.login_user(LoginUser("ann")), lambda: session.update(user_id="ann")):
        browser = Browser(site)
        browser.ask(sign_in)
        stolen = browser.copy()
        assert browser.ask(lambda: session["_version"]).status_code == 200
        found: list[dict[str, Any]] = []
        site.versions["ann"] += 1
        stolen.ask(lambda found=found: found.append(dict(session)))  # type: ignore[misc]
        assert not {"_user_id", "user_id"} & {*found[0]}


@pytest.mark.parametrize("name", ["user_id", "_user_id", "_user"])
def test_unknown_user(name: str, tmp_path: Path) -> None:
    """A sign-in by hand of a user whom `load_session_version` does not know is no session."""
    browser = Browser(Site("signed", tmp_path))
    browser.put(**{name: "ghost", "a": 1})

    assert browser.record() == {}


def test_version_of_other_names(tmp_path: Path) -> None:
    """`load_session_version` gets the ID of a user, not what else says that somebody is signed in."""
    browser = Browser(Site("signed", tmp_path))
    browser.put(logged_in=True)

    assert browser.record() == {"logged_in": True}


def test_absolute_timeout_with_flask_login(tmp_path: Path) -> None:
    """A new sign-in restarts the limit; a change of a session that is still fresh does not."""
    site = Site("signed", tmp_path)
    with_flask_login(site.app)
    browser = Browser(site)
    browser.ask(lambda: flask_login.login_user(LoginUser("ann")))
    for day in range(30):
        site.pass_(DAY - 1)
        browser.put(a=day)
    assert browser.record() == {"a": 29}
    site.pass_(31)

    assert browser.record() == {}


@pytest.mark.parametrize("store", ["signed", "encrypted", "redis"])
@pytest.mark.parametrize(
    "write", [lambda: session.update(n=1), sessions.rotate_id, lambda: session.update(username="x")]
)
def test_moved_version_in_flight(store: str, write: Callable[[], None], tmp_path: Path, redis: RedisServer) -> None:
    """What a request in flight writes keeps the old version: it is not valid."""
    site = Site(store, tmp_path, redis if store == "redis" else None)
    browser = Browser(site)
    browser.sign_in("ann")
    browser.ask(lambda: session.get("n"), lambda: site.versions.update(ann=2), write)

    assert browser.user() is None


@pytest.mark.parametrize(
    "write", [lambda: session.update(n=1), sessions.rotate_id, lambda: session.update(username="x")]
)
def test_revoked_in_flight(write: Callable[[], None], tmp_path: Path, redis: RedisServer) -> None:
    browser = Browser(Site("redis", tmp_path, redis))
    browser.sign_in("ann")
    thief = browser.copy()
    thief.ask(lambda: session.get("n"), lambda: sessions.revoke_all("ann"), write)
    browser.sign_in("ann")

    assert (browser.user(), thief.user()) == ("ann", None)


@pytest.mark.slow
def test_revoke_all_against_rotate_id(tmp_path: Path, redis: RedisServer) -> None:
    """50 threads rotate one user's sessions, 500 rounds in all, while they are revoked: none survives."""
    threads, rounds = 50, 10
    site = Site("redis", tmp_path, redis)
    site.app.session_interface.load_session_version = None  # type: ignore[attr-defined]
    rotated, survivors = 0, 0

    def rotate(browser: Browser, start: threading.Barrier) -> bool:
        start.wait()
        before = browser.cookie
        browser.ask(sessions.rotate_id)
        return browser.cookie != before

    with ThreadPoolExecutor(threads + 1) as pool:
        for _ in range(rounds):
            first = Browser(site)
            first.sign_in("ann")
            browsers = [first]
            for _ in range(threads - 1):
                browsers.append(Browser(site))
                browsers[-1].sign_in("ann")
            start = threading.Barrier(threads + 1)
            jobs = [pool.submit(rotate, browser, start) for browser in browsers]
            start.wait()
            with site.app.app_context():
                sessions.revoke_all("ann")
            rotated += sum(job.result() for job in jobs)
            survivors += sum(browser.user() is not None for browser in browsers)

    kept = Browser(site)  # the control: nothing but the revocation ends a session that rotates
    kept.sign_in("ann")
    kept.ask(sessions.rotate_id)
    assert kept.user() == "ann"
    print(f"{threads * rounds} rotations, {rotated} finished, {survivors} survivors")
    assert rotated > 0
    assert survivors == 0


def test_foreign_interface(tmp_path: Path) -> None:
    """A team's own session interface works; our functions say that it is not theirs."""
    from flask.sessions import SecureCookieSessionInterface  # noqa: PLC0415

    site = Site("signed", tmp_path)
    site.app.session_interface = SecureCookieSessionInterface()
    browser = Browser(site)
    errors: list[RuntimeError] = []

    def try_it() -> None:
        session["a"] = 1
        assert sessions.ready()
        with suppress(AssertionError):
            calls: list[Callable[[], None]] = [
                lambda: sessions.sign_in("ann"),
                sessions.rotate_id,
                lambda: sessions.revoke_all("ann"),
            ]
            for call in calls:
                try:
                    call()
                except RuntimeError as error:
                    errors.append(error)

    assert browser.ask(try_it).status_code == 200
    assert len(errors) == 3
    assert browser.record() == {"a": 1}
