"""The pages."""

from flask import Blueprint, Flask, render_template

from . import about

pages = Blueprint("pages", __name__)


@pages.get("/")
def start() -> str:
    """The start page."""
    return render_template("start.html")


@pages.get("/healthz")
def healthz() -> tuple[str, dict[str, str]]:
    """Whether the process is alive: a probe asks nothing else."""
    return "ok\n", {"Content-Type": "text/plain; charset=utf-8"}


def init_app(app: Flask) -> None:
    """Give `app` its pages, and their templates the project's name."""
    app.register_blueprint(pages)
    app.jinja_env.globals.update(name=about.NAME, description=about.DESCRIPTION)
