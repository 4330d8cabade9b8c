"""An app to test, with a few views of its own: what it is tested for holds whatever pages it has."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from flask import Flask, abort, redirect, request, session
from flask.testing import FlaskClient
from flask_wtf.csrf import generate_csrf
from package import create_app, load, mint
from werkzeug.test import TestResponse
from werkzeug.wrappers import Response

KEY = mint(int(time.time()) - 1000).text
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")


def make_app(**variables: str) -> Flask:
    """An app in the environment that `variables` are, in production where they say nothing else.

    It looks at its key file before every request, not once in some seconds: a test does not wait.
    """
    key = {} if "SECRET_KEY_FILE" in variables else {"SECRET_KEY": KEY}
    settings = load({"APP_ENV": "production", **key, **variables}, Path.cwd())
    app = create_app(replace(settings, ring_interval=0))

    @app.get("/count")
    def counted() -> dict[str, Any]:
        return {"count": session.get("count", 0), "token": generate_csrf()}

    @app.route("/count", methods=UNSAFE)
    def count() -> dict[str, int]:
        session["count"] = session.get("count", 0) + 1
        return {"count": session["count"]}

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
        return redirect("/count")

    return app


def token(client: FlaskClient) -> str:
    """The CSRF token of a form that the client opens now."""
    return str(json.loads(client.get("/count").text)["token"])


def post(client: FlaskClient, token: str | None, method: str = "POST") -> TestResponse:
    """Post a form as a browser does: from a page of the same site."""
    form = {} if token is None else {"csrf_token": token}
    return client.open("/count", method=method, data=form, headers={"Referer": "https://localhost/count"})
