"""Your pages. This one shows a form and keeps a count in the session."""

from flask import Blueprint, redirect, render_template, session, url_for
from werkzeug.wrappers import Response

bp = Blueprint("pages", __name__)


@bp.get("/")
def home() -> str:
    """Show the home page."""
    return render_template("home.html", count=session.get("count", 0))


@bp.post("/")
def count() -> Response:
    """Count one more, then show the page again: a reload does not send the form twice."""
    session["count"] = session.get("count", 0) + 1
    return redirect(url_for(".home"), 303)
