"""Flask-Login's remember-me cookie survives a rotation."""

from pathlib import Path

import flask_login
import pytest
from flask import Flask
from flask.testing import FlaskClient
from secure.keys.keyring import ACTIVATION_DELAY, RETENTION
from sites import FIRST, SECOND, Site
from test_sign_ins import LoginUser

# Flask-Login 0.6.3 calls utcnow, and Python 3.12 and later warn of it
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An app with Flask-Login."""
    site = Site("signed", tmp_path)
    flask_login.LoginManager(site.app).user_loader(LoginUser)
    view = lambda user: str(flask_login.login_user(LoginUser(user), remember=True))  # noqa: E731
    site.app.add_url_rule("/sign-in/<user>", view_func=view, endpoint="sign-in")
    who = lambda: str(getattr(flask_login.current_user, "id", None))  # noqa: E731
    site.app.add_url_rule("/whoami", view_func=who, endpoint="whoami")
    site.app.add_url_rule("/out", view_func=lambda: str(flask_login.logout_user()), endpoint="out")
    return site


def remembered(app: Flask, user: str = "ann") -> FlaskClient:
    """Return a browser that was closed after a sign-in: it has the remember-me cookie alone."""
    client = app.test_client()
    client.get(f"/sign-in/{user}")
    client.delete_cookie("session")
    assert client.get_cookie("remember_token")
    return client


def rotate(site: Site) -> None:
    site.has(SECOND, FIRST)
    site.pass_(ACTIVATION_DELAY + 1)


def test_rotation(site: Site) -> None:
    client = remembered(site.app)
    before = client.get_cookie("remember_token")
    rotate(site)
    assert client.get("/whoami").text == "ann"
    after = client.get_cookie("remember_token")
    assert before
    assert after
    assert before.value != after.value

    site.has(SECOND)  # the old key is gone
    client.delete_cookie("session")
    assert client.get("/whoami").text == "ann"


def test_signed_in_meanwhile(site: Site) -> None:
    """The cookie is signed again also while the session is still valid."""
    client = site.app.test_client()
    client.get("/sign-in/ann")
    rotate(site)
    assert client.get("/whoami").text == "ann"
    site.has(SECOND)
    client.delete_cookie("session")

    assert client.get("/whoami").text == "ann"


def test_without_rotation(site: Site) -> None:
    """The cookie is not sent again: that would prolong it with each page."""
    client = remembered(site.app)
    for _ in range(2):
        response = client.get("/whoami")
        assert response.text == "ann"
        assert not [line for line in response.headers.getlist("Set-Cookie") if line.startswith("remember_token=")]


def test_sign_out(site: Site) -> None:
    client = remembered(site.app)
    rotate(site)
    client.get("/out")

    assert client.get_cookie("remember_token") is None
    assert client.get("/whoami").text == "None"


def test_cookie_of_another_user(site: Site) -> None:
    """Bob is signed in where ann was remembered: he is not remembered in her place."""
    client = remembered(site.app)
    cookie = client.get_cookie("remember_token")
    assert cookie
    with client.session_transaction() as session:
        session["_user_id"] = "bob"
    rotate(site)
    assert client.get("/whoami").text == "bob"
    left = client.get_cookie("remember_token")

    assert left
    assert left.value == cookie.value


@pytest.mark.parametrize("keys", [(SECOND,), (SECOND, FIRST)])
def test_revoked_or_expired_key(site: Site, keys: tuple[object, ...]) -> None:
    client = remembered(site.app)
    site.has(*keys)  # type: ignore[arg-type]
    site.pass_(ACTIVATION_DELAY + RETENTION + 1)

    assert client.get("/whoami").text == "None"


@pytest.mark.parametrize("cookie", ["ann", "ann|x", "ann|" + "0" * 128, "|"])
def test_forged(site: Site, cookie: str) -> None:
    client = site.app.test_client()
    client.set_cookie("remember_token", cookie)

    assert client.get("/whoami").text == "None"


def test_not_ascii(site: Site) -> None:
    """Flask-Login fails on it where it is used; elsewhere the page is served."""
    client = site.app.test_client()
    client.set_cookie("remember_token", "\u00fc|\u00fc")

    assert client.get("/", environ_overrides={"do": []}).status_code == 200


def test_without_flask_login(tmp_path: Path) -> None:
    app = Site("signed", tmp_path).app
    app.add_url_rule("/page", view_func=lambda: "page", endpoint="page")
    client = app.test_client()
    client.set_cookie("remember_token", "ann|x")

    assert client.get("/page").text == "page"
