"""The pages."""

from datetime import UTC, datetime

from flask import Blueprint, Flask, current_app, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response

from . import about, security
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
    return render_template(
        "start.html",
        live=live_ring(current_app),
        headers=security.HEADERS,
        utc=_utc,
        duration=format_duration,
    )


@pages.get("/healthz")
def healthz() -> tuple[str, dict[str, str]]:
    """Whether the process is alive: a probe asks nothing else."""
    return "ok\n", {"Content-Type": "text/plain; charset=utf-8"}


def _utc(at: int) -> str:
    """A moment, in seconds since the epoch, as people read it."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def init_app(app: Flask) -> None:
    """Give `app` its pages, and their templates the project's name."""
    app.register_blueprint(pages)
    app.jinja_env.globals.update(name=about.NAME, description=about.DESCRIPTION)
