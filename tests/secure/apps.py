"""An app to test, with a few views of its own: what it is tested for holds for any app."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import secure
from flask import Flask, abort, redirect, request, session
from flask.testing import FlaskClient
from flask_wtf.csrf import generate_csrf
from secure import logging as secure_logging
from secure.keys.key import generate_key
from secure.settings import Settings
from werkzeug.test import TestResponse
from werkzeug.wrappers import Response

KEY = generate_key(int(time.time()) - 1000).text
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")


def load(**variables: str) -> Settings:
    """Return the settings of an environment of `variables`, in production unless they say otherwise.

    The key file is read before every request, not every few seconds: a test does not wait.
    """
    key = {} if "SECRET_KEY_FILE" in variables else {"SECRET_KEY": KEY}
    settings = Settings.load({"APP_ENV": "production", **key, **variables}, root=Path.cwd())
    return replace(settings, keyring_interval=0)


def make_app(**variables: str) -> Flask:
    """Return an app with every protection, with the settings of `load`; its files are in the working directory."""
    app = Flask("site", root_path=str(Path.cwd()))
    secure_logging._warned.clear()
    secure.init_app(app, load(**variables))
    return with_views(app)


def with_views(app: Flask) -> Flask:
    """Give `app` the views of the tests."""

    @app.get("/count")
    def counted() -> dict[str, Any]:
        return {"count": session.get("count", 0), "token": generate_csrf()}

    @app.route("/count", methods=UNSAFE)
    def count() -> dict[str, int]:
        session["count"] = session.get("count", 0) + 1
        return {"count": session["count"]}

    @app.get("/plain")
    def plain() -> str:
        return "plain"

    @app.get("/folder/")
    def folder() -> str:
        return "folder"

    @app.get("/seen")
    def seen() -> dict[str, str | None]:
        return {"address": request.remote_addr, "scheme": request.scheme, "host": request.host}

    @app.get("/fail/<int:code>")
    def fail(code: int) -> NoReturn:
        abort(code)

    @app.get("/crash")
    def crash() -> NoReturn:
        raise RuntimeError(f"the cause, with {app.config['SECRET_KEY']}")

    @app.get("/moved")
    def moved() -> Response:
        return redirect("/count", code=302)

    return app


def token(client: FlaskClient) -> str:
    """Return the CSRF token of a form that the client opens now."""
    return str(json.loads(client.get("/count").text)["token"])


def post(client: FlaskClient, token: str | None, method: str = "POST") -> TestResponse:
    """Post a form as a browser does: from a page of the same site."""
    form = {} if token is None else {"csrf_token": token}
    return client.open("/count", method=method, data=form, headers={"Referer": "https://localhost/count"})
