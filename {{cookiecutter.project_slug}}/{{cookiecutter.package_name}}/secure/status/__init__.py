"""`/_secure`, in development only: the keyring's timeline, the session's settings, the headers."""

from datetime import UTC, datetime

from flask import Blueprint, Flask, Response, current_app, render_template

from ..keys.text import format_duration
from ..keys.watcher import KeyringWatcher, get_watcher
from ..settings import DEVELOPMENT, Settings
from ..web import default_headers

blueprint = Blueprint("secure", __name__, url_prefix="/_secure", template_folder="templates")


def init_app(app: Flask, watcher: KeyringWatcher, settings: Settings) -> None:
    """Add the page to `app` in development; elsewhere its address does not exist."""
    if settings.environment == DEVELOPMENT:
        app.register_blueprint(blueprint)


@blueprint.get("/")
def status() -> str:
    """Show each key's fingerprint and states, never a key."""
    return render_template(
        "secure/status.html",
        watcher=get_watcher(current_app),
        headers=dict(default_headers().values()),
        utc=lambda at: f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC",
        date=lambda at: f"{datetime.fromtimestamp(at, UTC):%B} {datetime.fromtimestamp(at, UTC).day}",
        duration=format_duration,
    )


@blueprint.get("/icon.svg")
def icon() -> Response:
    """Return a green square, so that the browser asks for no other icon."""
    square = '<rect width="1" height="1" fill="#1f6b58"/>'
    image = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1">{square}</svg>'
    return Response(image, mimetype="image/svg+xml")
