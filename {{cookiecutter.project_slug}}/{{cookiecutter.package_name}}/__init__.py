"""The application."""

from flask import Flask

from . import config, errors, logs, security, sessions, views
from .secret_key import live


def create_app(settings: config.Settings | None = None) -> Flask:
    """The app, ready to serve. Raises ConfigError with all that is wrong with the environment."""
    settings = settings or config.load()
    app = Flask(__name__)
    app.config.from_mapping(settings.flask_config())

    ring = live.LiveRing(settings.ring_source, settings.ring, settings.ring_interval)
    live.init_app(app, ring)
    logs.init_app(app, ring, settings)
    security.init_app(app, settings)
    sessions.init_app(app, ring, settings.session_store)
    errors.init_app(app)
    views.init_app(app)
    return app
