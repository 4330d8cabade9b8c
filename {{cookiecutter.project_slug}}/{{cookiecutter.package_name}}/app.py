"""The application factory."""

import json

from flask import Flask

from . import secure, views
from .config import Settings


def create_app(settings: Settings | None = None) -> Flask:
    """Create the app. Raises secure.SettingsError with every invalid setting."""
    app = Flask("{{cookiecutter.package_name}}")
    secure.init_app(app, settings or Settings.load())
    app.register_blueprint(views.bp)
    # JSON in a raw string: a name may contain any character.
    app.jinja_env.globals.update(json.loads(r'{"app_name": {{cookiecutter.project_name|tojson}}, "app_description": {{cookiecutter.description|tojson}}}'))  # fmt: skip
    return app
