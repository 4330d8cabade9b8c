"""The template's room: the secret key, sessions, and what protects every request.

    app.py       secure.init_app(app, settings)
    config.py    class Settings(secure.Settings), secure.setting
    views.py     from .secure import csrf, sessions, tokens

A team never edits this folder; an update of the template replaces it. Names are imported when they are used:
the hook that creates the first key imports `secure.keys` where Flask is not installed.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as typing has it, whose import would take a tenth of the hook's time
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from flask import Flask

    from . import sessions as sessions
    from . import tokens as tokens
    from .errors import json_errors as json_errors
    from .sessions import LoadSessionVersion
    from .settings import Settings as Settings
    from .settings import SettingsError as SettingsError
    from .settings import setting as setting
    from .web import csp_nonce as csp_nonce
    from .web import csrf as csrf

_HOME = dict.fromkeys(("Settings", "SettingsError", "setting"), "settings")
_HOME |= {"csp_nonce": "web", "csrf": "web", "json_errors": "errors"}
__all__ = ["Settings", "SettingsError", "csp_nonce", "csrf", "init_app", "json_errors", "sessions", "setting", "tokens"]


def init_app(
    app: Flask,
    settings: Settings,
    *,
    csp: Mapping[str, Iterable[str]] | None = None,
    headers: Mapping[str, str | None] | None = None,
    load_session_version: LoadSessionVersion | None = None,
) -> None:
    """Protect `app` as `settings` say.

    `csp` adds sources to directives of the Content-Security-Policy, `headers` changes or removes (None) other headers
    of all responses, and `load_session_version` returns a user's session version, None for no such user.
    """
    from . import errors, logging, sessions, web  # noqa: PLC0415 - they import Flask
    from .keys import watcher  # noqa: PLC0415

    app.config.from_mapping(settings.flask_config())
    app.extensions["secure"] = settings
    keyring = watcher.KeyringWatcher(
        settings.keyring_source, settings.keyring, settings.keyring_interval, seen=settings.keyring_identity
    )
    watcher.init_app(app, keyring)
    logging.init_app(app, keyring, settings)
    web.init_app(app, settings, csp, headers)
    sessions.init_app(app, keyring, settings.session_store, load_session_version)
    errors.init_app(app)
    if settings.environment == "development":
        from . import status  # noqa: PLC0415 - elsewhere, there is no such page

        app.register_blueprint(status.blueprint)


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    if name in ("sessions", "tokens"):
        return import_module(f".{name}", __name__)
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
