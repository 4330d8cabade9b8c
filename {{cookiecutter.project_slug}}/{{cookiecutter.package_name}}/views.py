"""The pages."""

from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Flask, current_app, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response

from . import about, security, sessions
from .config import DEVELOPMENT
from .secret_key.duration import format_duration
from .secret_key.live import live_ring

pages = Blueprint("pages", __name__)


@pages.route("/", methods=["GET", "POST"])
def start() -> str | Response:
    """The start page: a form that counts in the session; in development, how things stand as well.

    To remove it, delete this function and `templates/start.html`.
    """
    if request.method == "POST":
        session["count"] = 0 if "reset" in request.form else session.get("count", 0) + 1
        return redirect(url_for("pages.start"), 303)
    status: dict[str, Any] = {}
    if current_app.config["APP_ENV"] == DEVELOPMENT:
        status = {"live": live_ring(current_app), "headers": security.HEADERS, "hsts": security.HSTS}
    return render_template("start.html", **status, utc=_utc, date=_date, duration=format_duration)


@pages.get("/healthz")
def healthz() -> tuple[str, dict[str, str]]:
    """Whether the process is alive: a probe asks nothing else."""
    return "ok\n", {"Content-Type": "text/plain; charset=utf-8"}


@pages.get("/readyz")
def readyz() -> tuple[str, int, dict[str, str]]:
    """Whether requests can be served now: a load balancer asks it."""
    ready = sessions.ready()
    text = "ok\n" if ready else "the session store does not answer\n"
    return text, 200 if ready else 503, {"Content-Type": "text/plain; charset=utf-8"}


def _utc(at: int) -> str:
    """A moment, in seconds since the epoch, as people read it."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def _date(at: int) -> str:
    """The day of a moment, in seconds since the epoch."""
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment.day} {moment:%B}"


def init_app(app: Flask) -> None:
    """Give `app` its pages, and their templates the project's name."""
    app.register_blueprint(pages)
    app.jinja_env.globals.update(name=about.NAME, description=about.DESCRIPTION)
