"""A weak app, in which each program must find something: a public key, and other classic mistakes."""
# ruff: noqa: S602

import os
import subprocess

from flask import Flask, request, session

app = Flask(__name__)
app.secret_key = "changeme"
SPARE = os.environ.get("SECRET_KEY", app.config["SECRET_KEY"])


@app.route("/", methods=["GET", "POST"])
def start() -> str:
    session["count"] = session.get("count", 0) + 1
    return '<form method="post"><input name="name"></form><a href="/hello?name=you">hello</a>'


@app.get("/hello")
def hello() -> str:
    return f"<p>Hello {request.args.get('name', '')}</p>"


@app.get("/run")
def run() -> bytes:
    return subprocess.check_output(request.args["command"], shell=True)
