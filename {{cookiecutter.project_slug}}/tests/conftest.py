"""Fixtures: an app whose settings are here, so that no test reads this machine's `.env` or environment."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from {{cookiecutter.package_name}}.app import create_app
from {{cookiecutter.package_name}}.config import Settings
from {{cookiecutter.package_name}}.secure import sessions
from {{cookiecutter.package_name}}.secure.keys.key import generate_key

# Every setting that the app needs to start; add yours here.
ENVIRON = {
    "APP_ENV": "testing",
    "SECRET_KEY": generate_key(0).text,
}


@pytest.fixture
def make_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Flask]:
    """A function that creates an app with other settings: `make_app(APP_ENV="production")`."""
    monkeypatch.delenv("FLASK_DEBUG", raising=False)  # yours, which production refuses
    # No test writes where the app keeps its files.
    monkeypatch.setattr(Flask, "auto_find_instance_path", lambda _: str(tmp_path / "instance"))

    def make(**environ: str) -> Flask:
        return create_app(Settings.load({**ENVIRON, **environ}, root=tmp_path))

    return make


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """The app; its forms need no CSRF token."""
    app = make_app()
    app.config["WTF_CSRF_ENABLED"] = False
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A visitor of the app."""
    return app.test_client()


@pytest.fixture
def signed_in(app: Flask) -> FlaskClient:
    """A visitor who is signed in, as user 1."""
    with app.test_request_context():
        sessions.sign_in(1)
        response = app.process_response(app.response_class())
    name, _, value = response.headers["Set-Cookie"].partition(";")[0].partition("=")
    client = app.test_client()
    client.set_cookie(name, value)
    return client
