"""What an instance of a fleet serves: /count and /slow, which count a client's requests in two cookies.

The session signs one; the other is signed with the keys of `app.config`, as stock Flask does. A refused cookie
shows as a counter that starts again.
"""

import hashlib
import os
import sys
import time
from dataclasses import replace
from importlib import import_module

from dotenv import dotenv_values
from flask import Flask, Response, current_app, request, session
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import BadSignature, URLSafeTimedSerializer

SLOW = 0.1
"""Seconds that a slow request takes."""
USES = 10
"""How many times a request of the restless app uses the keyring."""


def baked() -> Flask:
    """The app of a baked project in production, on a machine whose clock may be ahead.

    The mtime of the file FLEET_CLOCK puts the clocks of the whole fleet ahead, in one step.
    """
    right_time, ahead = time.time, float(os.environ["FLEET_CLOCK_AHEAD"])
    clock = os.environ["FLEET_CLOCK"]
    time.time = lambda: right_time() + ahead + os.stat(clock).st_mtime
    return _counting(import_module(f"{os.environ['FLEET_PACKAGE']}.app").create_app())


def restless() -> Flask:
    """The same app in a process that switches threads often; each request uses the keyring many times.

    It looks at its key file every time.
    """
    package = os.environ["FLEET_PACKAGE"]
    settings = replace(import_module(f"{package}.config").Settings.load(), keyring_interval=0)
    app: Flask = import_module(f"{package}.app").create_app(settings)
    app.before_request(_use_the_keyring)
    sys.setswitchinterval(1e-5)
    return _counting(app)


def stock() -> Flask:
    """An app as they are common today: it reads both variables when it starts. Its clock is right."""
    app = Flask(__name__)
    values = dotenv_values(os.environ["FLEET_KEYS"])
    app.config["SECRET_KEY"] = values["SECRET_KEY"]
    app.config["SECRET_KEY_FALLBACKS"] = (values.get("SECRET_KEY_FALLBACKS") or "").split()
    return _counting(app)


def _counting(app: Flask) -> Flask:
    app.add_url_rule("/count", view_func=_count)
    app.add_url_rule("/slow", view_func=_slow)
    return app


def _use_the_keyring() -> None:
    """Verify the cookies of this request, and sign and verify a text; a missing key is an error."""
    for _ in range(USES):
        opened = current_app.session_interface.open_session(current_app, request)
        assert opened == session
        _stock_serializer().loads(_stock_serializer().dumps(0))


def _slow() -> Response:
    return _count(SLOW)


def _count(seconds: float = 0) -> Response:
    token = _token() + 1
    session["count"] = session.get("count", 0) + 1
    time.sleep(seconds)
    response = Response(f"{session['count']} {token}")
    response.set_cookie("token", _stock_serializer().dumps(token))
    response.headers["Signer"] = hashlib.sha256(current_app.config["SECRET_KEY"].encode()).hexdigest()[:8]
    return response


def _token() -> int:
    try:
        return int(_stock_serializer().loads(request.cookies.get("token", "")))
    except BadSignature:
        return 0


def _stock_serializer() -> URLSafeTimedSerializer:
    serializer = SecureCookieSessionInterface().get_signing_serializer(current_app)
    assert serializer
    return serializer
