"""The security policy of this app, as tests that do not depend on its pages.

Each test adds the page that it needs. What protects the app is in the package's `secure` folder.
"""

import io
import logging
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ENVIRON
from flask import Flask, session
from flask.testing import FlaskClient
from flask_wtf.csrf import generate_csrf

from {{cookiecutter.package_name}}.config import Settings
from {{cookiecutter.package_name}}.secure import SettingsError
from {{cookiecutter.package_name}}.secure.keys.key import generate_key

MakeApp = Callable[..., Flask]
OLD, NEW = generate_key(0).text, generate_key(int(time.time())).text
HTTPS = "https://localhost"


def with_pages(app: Flask) -> FlaskClient:
    """A visitor of an app with a page that counts visits, and one that fails."""

    def count() -> str:
        session["visits"] = session.get("visits", 0) + 1
        return str(session["visits"])

    def fail() -> str:
        return str(1 // 0)

    app.add_url_rule("/policy/count", view_func=count, methods=["GET", "POST"])
    app.add_url_rule("/policy/token", view_func=generate_csrf)
    app.add_url_rule("/policy/fail", view_func=fail)
    return app.test_client()


def visits(client: FlaskClient) -> str:
    return client.get("/policy/count", base_url=HTTPS).text


BAD_KEYS = {"missing": "", "short": "dev", "words": "changeme" * 5, "repeated": "a" * 64, "damaged": NEW[:-1]}


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS)
def test_no_start_without_a_good_key(key: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refusal:
        Settings.load({**ENVIRON, "APP_ENV": "production", "SECRET_KEY": key}, root=tmp_path)
    assert "SECRET_KEY" in refusal.value.message
    assert not key or key not in refusal.value.message


def test_no_debugger_in_production(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="FLASK_DEBUG"):
        Settings.load({**ENVIRON, "APP_ENV": "production", "FLASK_DEBUG": "1"}, root=tmp_path)


def follow(make_app: MakeApp, path: Path) -> FlaskClient:
    """A visitor of an app that reads its keyring from a file."""
    path.write_text(f"{OLD}\n")
    path.chmod(0o600)
    return with_pages(make_app(SECRET_KEY="", SECRET_KEY_FILE=str(path), SECRET_KEY_INTERVAL="1s"))


def change(client: FlaskClient, path: Path, keyring: str) -> None:
    """Replace the file, as a rotation does, and let the app read it."""
    new = path.with_name("new")
    new.write_text(keyring)
    new.chmod(0o600)
    new.replace(path)
    client.application.extensions["secret_key"].refresh()


def test_rotation_logs_nobody_out(make_app: MakeApp, tmp_path: Path) -> None:
    client = follow(make_app, tmp_path / "keys")
    assert visits(client) == "1"
    change(client, tmp_path / "keys", f"{NEW}\n{OLD}\n")
    assert visits(client) == "2"


def test_revocation_logs_everyone_out(make_app: MakeApp, tmp_path: Path) -> None:
    client = follow(make_app, tmp_path / "keys")
    assert visits(client) == "1"
    change(client, tmp_path / "keys", f"{NEW}\n")
    assert visits(client) == "1"


def test_cookie_flags(make_app: MakeApp) -> None:
    client = with_pages(make_app(APP_ENV="production"))
    cookie = client.get("/policy/count", base_url=HTTPS).headers["Set-Cookie"]
    assert cookie.startswith(("__Host-", "__Secure-"))
    assert {"Secure", "HttpOnly", "SameSite=Lax"} <= {part.strip() for part in cookie.split(";")}


def test_headers(make_app: MakeApp) -> None:
    client = with_pages(make_app(APP_ENV="production"))
    headers = client.get("/policy/count", base_url=HTTPS).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "max-age=" in headers["Strict-Transport-Security"]
    assert "Content-Security-Policy" in headers


def test_form_without_token(make_app: MakeApp) -> None:
    client = with_pages(make_app())
    assert client.post("/policy/count").status_code == 400
    token = client.get("/policy/token").text
    assert client.post("/policy/count", data={"csrf_token": token}).status_code == 200


def test_unknown_host(make_app: MakeApp) -> None:
    client = with_pages(make_app(TRUSTED_HOSTS="localhost"))
    assert client.get("/policy/count").status_code == 200
    assert client.get("/policy/count", base_url="http://evil.example").status_code == 400


def test_error_page_shows_no_details(make_app: MakeApp) -> None:
    app = make_app(APP_ENV="production")
    page = with_pages(app).get("/policy/fail", base_url=HTTPS)
    assert page.status_code == 500
    assert "ZeroDivisionError" not in page.text


def test_no_key_in_logs(make_app: MakeApp, request: pytest.FixtureRequest) -> None:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    request.addfinalizer(lambda: logging.getLogger().removeHandler(handler))
    app = make_app(SECRET_KEY=OLD)
    app.logger.error("a line with %s", OLD)
    assert "a line with" in log.getvalue()
    assert OLD not in log.getvalue()
    assert OLD not in repr(app.config)


def test_status_page_in_development_only(make_app: MakeApp) -> None:
    assert make_app(APP_ENV="production").test_client().get("/_secure", base_url=HTTPS).status_code == 404


def test_git_ignores_keys() -> None:
    project = Path(__file__).parent.parent
    command = ["git", "check-ignore", ".env", "keys.fsk-tmp"]
    ignored = subprocess.run(command, cwd=project, capture_output=True)
    if ignored.returncode == 128:
        pytest.skip("not a git repository")
    assert ignored.stdout.split() == [b".env", b"keys.fsk-tmp"]
