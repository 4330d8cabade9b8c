"""The migration from stock Flask's session cookie: read once, deleted with the first response, final."""

from pathlib import Path
from typing import Any

import flask_login
import pytest
from flask import Flask, session
from flask.testing import FlaskClient
from sites import FIRST, Site
from test_sign_ins import SECURE, LoginUser

STORES = ["signed", "encrypted", "redis"]
HTTPS = "https://www.example.org/"


def sign_out() -> str:
    session.clear()
    return ""


@pytest.fixture(params=STORES)
def app(tmp_path: Path, request: pytest.FixtureRequest) -> Flask:
    """An app with production settings that takes over stock Flask's sessions."""
    store = str(request.param)
    site = Site(store, tmp_path, request.getfixturevalue("redis") if store == "redis" else None)
    app = site.app
    app.config.update(SECURE, SESSION_READ_SHA1=True)
    flask_login.LoginManager(app).user_loader(LoginUser)
    app.add_url_rule("/whoami", "/whoami", view_func=lambda: str(session.get("_user_id")))
    app.add_url_rule("/shop/whoami", "/shop/whoami", view_func=lambda: str(session.get("_user_id")))
    app.add_url_rule("/static-page", "/static-page", view_func=lambda: "page")
    app.add_url_rule("/out", "/out", view_func=sign_out)
    app.add_url_rule("/logout", "/logout", view_func=lambda: str(flask_login.logout_user()))
    app.add_url_rule(
        "/sign-in/<user>", "/sign-in/<user>", view_func=lambda user: str(flask_login.login_user(LoginUser(user)))
    )
    return app


def stock_cookie(key: str = FIRST.text, **content: Any) -> str:
    """Return what stock Flask has set."""
    stock = Flask("site")
    stock.secret_key = key
    serializer = stock.session_interface.get_signing_serializer(stock)  # type: ignore[attr-defined]
    return str(serializer.dumps(content))


def browser(app: Flask, cookie: str | None = None, domain: str = "www.example.org", path: str = "/") -> FlaskClient:
    """Return a browser that has stock Flask's cookie."""
    client = app.test_client()
    value = cookie or stock_cookie(_user_id="ann", a=1)
    client.set_cookie("session", value, domain=domain, path=path, origin_only=domain == "www.example.org")
    return client


def names(client: FlaskClient) -> set[str]:
    """Return the names of the cookies that a browser has."""
    return {cookie.key for cookie in (client._cookies or {}).values()}


def get(client: FlaskClient, path: str) -> str:
    return client.get(path, base_url=HTTPS).text


@pytest.mark.parametrize(
    ("domain", "path", "page"),
    [
        ("www.example.org", "/", "/whoami"),
        ("example.org", "/", "/whoami"),
        ("www.example.org", "/shop", "/shop/whoami"),
    ],
)
def test_taken_over_and_deleted(app: Flask, domain: str, path: str, page: str) -> None:
    client = browser(app, domain=domain, path=path)
    assert names(client) == {"session"}
    assert get(client, page) == "ann"
    assert names(client) == {"__Host-session"}
    assert get(client, page) == "ann"


def test_unused(app: Flask) -> None:
    """A page that does not use the session leaves the cookie, and with it the session, in place."""
    app.before_request_funcs.clear()  # without Flask-Login, which uses the session on every page
    app.after_request_funcs.clear()
    client = browser(app)
    get(client, "/static-page")

    assert names(client) == {"session"}
    assert get(client, "/whoami") == "ann"


@pytest.mark.parametrize("out", ["/out", "/logout"])
@pytest.mark.parametrize("first", [True, False])
def test_sign_out_is_final(app: Flask, out: str, first: bool) -> None:
    """Also if it is the first page, and after the browser was closed."""
    client = browser(app)
    if not first:
        assert get(client, "/whoami") == "ann"
    get(client, out)
    client.delete_cookie("__Host-session", domain="www.example.org")  # the browser is closed

    assert names(client) == set()
    assert get(client, "/whoami") == "None"


def test_another_user(app: Flask) -> None:
    """User B signs in where user A has a stock cookie: B never becomes A."""
    client = app.test_client()
    get(client, "/sign-in/bob")
    client.set_cookie("session", stock_cookie(_user_id="ann"), domain="www.example.org")
    assert get(client, "/whoami") == "bob"
    client.delete_cookie("__Host-session", domain="www.example.org")

    assert get(client, "/whoami") == "None"


def test_another_user_whose_session_has_ended(app: Flask) -> None:
    """Bob's own cookie is not valid any more; ann's stock cookie is in the browser: nobody is signed in."""
    client = browser(app)
    client.set_cookie("__Host-session", "ended", domain="www.example.org", secure=True)

    assert get(client, "/whoami") == "None"
    assert "session" not in names(client)


@pytest.mark.parametrize("cookie", ["x", ".a.b", stock_cookie(key="k" * 40, _user_id="ann")])
def test_invalid(app: Flask, cookie: str) -> None:
    client = browser(app, cookie)

    assert get(client, "/whoami") == "None"
    assert names(client) == set()


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".org", "[::1]", "127.0.0.1", "xn--tda.org", "localhost"])
def test_any_host(app: Flask, host: str) -> None:
    """A client can send any Host: it gets its page, or Flask's refusal, and a bounded number of cookies."""
    client = app.test_client(use_cookies=False)
    response = client.get("/whoami", headers={"Host": host, "Cookie": f"session={stock_cookie(a=1)}"})

    assert response.status_code in (200, 400)
    assert (response.status_code == 400) == (".." in host or "x" * 70 in host)
    assert len(response.headers.getlist("Set-Cookie")) < 9


@pytest.mark.parametrize("host", ["a." * 2000 + "example.org", "a.b.c.d.e.f.g.h.i.j.example.org"])
def test_long_host(app: Flask, host: str) -> None:
    """A short request gets no long answer."""
    response = app.test_client(use_cookies=False).get("/whoami", headers={"Host": host, "Cookie": "session=x"})

    assert len(response.headers.getlist("Set-Cookie")) < 16


def test_long_path(app: Flask) -> None:
    """A short request gets no long answer."""
    app.add_url_rule("/<path:all>", "all", view_func=lambda all: str(session.get("a")))  # noqa: A006
    response = app.test_client(use_cookies=False).get("/" + "a/" * 1000, headers={"Cookie": "session=x"})

    assert 0 < len(response.headers.getlist("Set-Cookie")) < 6


def test_same_name(tmp_path: Path) -> None:
    """In development the cookie keeps its name: the new one replaces it."""
    site = Site("signed", tmp_path)
    site.app.config["SESSION_READ_SHA1"] = True
    site.app.add_url_rule("/a", "/a", view_func=lambda: str(session.get("a")))
    client = site.app.test_client()
    client.set_cookie("session", stock_cookie(a=1))
    assert client.get("/a").text == "1"
    site.app.config["SESSION_READ_SHA1"] = False

    assert client.get("/a").text == "1"


def test_off(app: Flask) -> None:
    app.config["SESSION_READ_SHA1"] = False
    client = browser(app)

    assert get(client, "/whoami") == "None"
    assert names(client) == {"session"}
