"""A baked project with one more page, which counts a visitor's requests in two cookies.

Two counters, since two things sign: the session, and whatever reads the keys from `app.config` as stock
Flask does. A refused cookie shows as a counter that starts again. The answer names the process that
gave it, the key that signs there, and what it takes the client for.
"""

import hashlib
import os
import time
from importlib import import_module

from flask import Flask, Response, request, session
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import BadSignature


def app() -> Flask:
    """The app, as it is in production."""
    made: Flask = import_module(f"{os.environ['PROJECT']}.app").create_app()

    @made.get("/count")
    def count() -> Response:
        signer = SecureCookieSessionInterface().get_signing_serializer(made)
        assert signer
        try:
            token = int(signer.loads(request.cookies.get("token", "")))
        except BadSignature:
            token = 0
        time.sleep(float(request.args.get("seconds", "0")))
        session["count"] = session.get("count", 0) + 1
        response = Response(f"{session['count']} {token + 1}")
        response.set_cookie("token", str(signer.dumps(token + 1)))
        response.headers["Worker"] = str(os.getpid())
        response.headers["Signer"] = hashlib.sha256(made.config["SECRET_KEY"].encode()).hexdigest()[:8]
        response.headers["Seen"] = f"{request.scheme} {request.remote_addr} {request.script_root}"
        return response

    return made
