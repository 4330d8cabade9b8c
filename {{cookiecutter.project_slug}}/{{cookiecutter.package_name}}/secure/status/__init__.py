"""What the app reports about itself: `/_secure` to a developer, `flask secure-audit` to a security team.

The page exists in development only: the keyring's timeline, the session's settings, the headers. The command works
everywhere: which versions run, whether this folder is as released, the age and state of each key, and what is looser
than the defaults. Its exit status is for a fleet's CI. Every `flask` command imports this module to list the commands,
so what is slow to import waits until it is used.
"""

import hashlib
import json
import os
import platform
import re
import shlex
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from operator import ne
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from flask import Blueprint, Flask, Response, current_app, render_template
from flask.cli import with_appcontext

from ..keys import report
from ..keys.commands import duration_option, output_errors
from ..keys.environment import APP_ENV
from ..keys.keyring import RETENTION
from ..keys.sources import RETENTION_SETTING
from ..keys.text import format_duration, message

if TYPE_CHECKING:
    from ..settings import Settings

blueprint = Blueprint("secure", __name__, url_prefix="/_secure", template_folder="templates")

FOLDER = Path(__file__).parents[1]
RELEASE = "release.sha256"
"""The SHA-256 of each file of a release, as `sha256sum` writes and checks them, after a line with the version."""

LIBRARIES = (
    *("flask", "werkzeug", "jinja2", "itsdangerous", "click", "flask-wtf", "wtforms", "python-dotenv", "gunicorn"),
    *("cryptography", "redis"),
)
Findings = dict[str, str]
"""What is found, by the name with which a team accepts it."""

_CSRF = ("WTF_CSRF_ENABLED", "WTF_CSRF_CHECK_DEFAULT", "WTF_CSRF_SSL_STRICT")
_LIMITS = f"{RETENTION_SETTING} SECRET_KEY_INTERVAL SESSION_IDLE_TIMEOUT SESSION_ABSOLUTE_TIMEOUT MAX_CONTENT_LENGTH"
_ON = "SESSION_COOKIE_SECURE SESSION_COOKIE_HTTPONLY REMEMBER_COOKIE_SECURE REMEMBER_COOKIE_HTTPONLY"
_OFF = "TESTING SESSION_READ_SHA1 FORM_ACTION SESSION_COOKIE_DOMAIN REMEMBER_COOKIE_DOMAIN"
_DERIVED = ("PERMANENT_SESSION_LIFETIME", "MAX_FORM_MEMORY_SIZE")
"""Flask's settings that count; `flask_config` takes them from a setting of this app."""


_LAST = 253_402_300_799  # the end of the year 9999 in epoch seconds
_ONLY_STRICTER = {"report-to", "report-uri", "require-trusted-types-for", "upgrade-insecure-requests"}
"""Directives of a Content-Security-Policy that allow nothing."""


def _max_age(hsts: object) -> int:
    found = re.search(r"(?:^|;)\s*max-age\s*=\s*\"?(\d+)", str(hsts), re.IGNORECASE)  # RFC 6797, section 6.1
    return int(found[1]) if found else 0


def _is_more(value: object, default: float) -> bool:
    """Whether a limit is higher, or none that can be compared."""
    number = value.total_seconds() if isinstance(value, timedelta) else value
    return not isinstance(number, int | float) or number > default


_LOOSER: Mapping[str, Callable[[Any, Any], bool]] = {
    **dict.fromkeys([*_LIMITS.split(), *_DERIVED, "MAX_FORM_PARTS"], _is_more),
    **dict.fromkeys([*_ON.split(), *_CSRF], lambda value, default: default and not value),
    **dict.fromkeys(_OFF.split(), lambda value, default: value and not default),
    **dict.fromkeys(
        ["SESSION_COOKIE_SAMESITE", "REMEMBER_COOKIE_SAMESITE"],
        lambda value, _: str(value).lower() not in ("lax", "strict"),
    ),
    "SESSION_COOKIE_NAME": lambda value, prefix: not str(value).startswith(prefix),
    "WTF_CSRF_METHODS": lambda value, default: not default <= {*(value or ())},
    "CROSS_ORIGIN_OPENER_POLICY": ne,
    "HSTS": lambda value, default: _max_age(value) < _max_age(default),
}
"""For each setting: whether a value is looser than the default in this environment."""


@blueprint.get("/")
def status() -> str:
    """Show each key's fingerprint and states, never a key."""
    from ..keys.watcher import get_watcher  # noqa: PLC0415
    from ..web import DefaultHeaders  # noqa: PLC0415

    return render_template(
        "secure/status.html",
        watcher=get_watcher(current_app),
        headers=dict(DefaultHeaders.of(current_app).by_name.values()),
        utc=lambda at: f"{_moment(at):%Y-%m-%d %H:%M} UTC",
        date=lambda at: f"{_moment(at):%B} {_moment(at).day}",
        duration=format_duration,
    )


def _moment(at: int) -> datetime:
    """Return a time, the last that has a date for one after the year 9999: a wrong clock may have made a key."""
    return datetime.fromtimestamp(max(0, min(at, _LAST)), UTC)


@blueprint.get("/icon.svg")
def icon() -> Response:
    """Return a green square, so that the browser asks for no other icon."""
    square = '<rect width="1" height="1" fill="#1f6b58"/>'
    image = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1">{square}</svg>'
    return Response(image, mimetype="image/svg+xml")


@click.command("secure-audit")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@duration_option("--max-age", default="400d", show_default=True, help="The signing key must not be older.")
@click.option("--accept", multiple=True, metavar="NAME", help="A finding that your team accepts. May be repeated.")
@with_appcontext
@output_errors()
def audit(as_json: bool, max_age: int, accept: tuple[str, ...]) -> None:
    """Show versions, changes in secure/, keys, and what is looser than the defaults.

    Exit status: 0 if all that is found is accepted, 1 otherwise.
    """
    from ..keys.watcher import get_watcher  # noqa: PLC0415

    app, now = current_app, int(time.time())
    if "secure" not in app.extensions:
        raise click.ClickException(message("audit", "this app does not call secure.init_app"))
    keyring, settings = get_watcher(app).keyring, app.extensions["secure"]
    release, found = released(FOLDER)
    if age := report.too_old(keyring, now, max_age):
        found["signing key"] = age
    found |= {f"key {key.fingerprint}": report.far_future(keyring, now)[0] for key in keyring.far_future(now)}
    found |= other_keys(app, {key.text for key in keyring.keys}) | looser(app, settings)
    if (path := settings.keyring_source.path) and is_public(path):
        found["key file"] = f"every user of this machine can read {path}"
    rest = {name: text for name, text in found.items() if name not in accept}
    if as_json:
        keys = json.loads(report.as_json(keyring, settings.keyring_source, now))
        facts = {"secure": release, "versions": versions(), "environment": settings.environment, "keyring": keys}
        click.echo(json.dumps({**facts, "accepted": sorted(found.keys() - rest.keys()), "found": rest}, indent=2))
    else:
        click.echo(f"secure {release['version']} (SHA-256 of {RELEASE}: {release['sha256']})")
        click.echo(", ".join(f"{name} {number}" for name, number in versions().items()))
        click.echo(f"{APP_ENV}={settings.environment}\n\n{report.table(keyring, settings.keyring_source, now)}\n")
        click.echo("\n".join(f"{name}: {text}" for name, text in rest.items()) or "Nothing found.")
    for name in sorted({*accept} - found.keys()):
        click.echo(f"warning: --accept {name}: not found", err=True)
    if rest:
        hint = f"correct it, or accept it by its name: --accept {shlex.quote(next(iter(rest)))}"
        raise click.ClickException(message("audit", f"{len(rest)} found", hint))


def released(folder: Path) -> tuple[dict[str, str], Findings]:
    """Return the version of `secure` in `folder` and the SHA-256 of its list of files, and which files differ from it.

    The list is part of the folder. Compare its SHA-256 with the one in the template's changelog: who changes a file can
    change the list.
    """
    path = folder / RELEASE
    text = path.read_bytes().replace(b"\r\n", b"\n") if path.is_file() else b"# secure unknown\n"
    first, *lines = text.decode(errors="replace").splitlines() or [""]
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    present = {each.relative_to(folder).as_posix(): each for each in code(folder)}
    changes = {
        **dict.fromkeys(listed.keys() - present.keys(), "missing"),
        **dict.fromkeys(present.keys() - listed.keys(), "not in the release"),
        **{name: "changed" for name in listed.keys() & present.keys() if listed[name] not in digests(present[name])},
    }
    found = {f"secure/{name}": changes[name] for name in sorted(changes)}
    return {"version": (first.split() or ["unknown"])[-1], "sha256": hashlib.sha256(text).hexdigest()}, found


def code(folder: Path) -> Iterator[Path]:
    """Return the files of `secure`: all but its list and what Python has compiled."""
    for path in sorted(folder.rglob("*")):
        compiled = path.parent.name == "__pycache__" and ".pyc" in path.suffixes
        # A link to a folder, which `rglob` does not enter, may be a package that Python prefers to a module.
        if (path.is_symlink() or not path.is_dir()) and path != folder / RELEASE and not compiled:
            yield path


def digests(path: Path) -> tuple[str, ...]:
    """Return the SHA-256 of a file as it is, and as git has it where git writes lines with CR LF; () for no file."""
    try:
        content = path.read_bytes()
    except OSError:
        return ()
    return hashlib.sha256(content).hexdigest(), hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that are installed."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    found = {"Python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def other_keys(app: Flask, keys: set[str]) -> Findings:
    """Return which setting has a key that is not in the keyring: code that ran after `init_app` has set it."""
    found = {}
    for name in ("SECRET_KEY", "SECRET_KEY_FALLBACKS", "WTF_CSRF_SECRET_KEY"):
        value = app.config.get(name) or ()
        if not value or not {*(value if isinstance(value, list | tuple) else [value])} <= keys:
            found[f"app.config {name}"] = "not from the keyring"
    return found


def is_public(path: str) -> bool:
    """Whether every user of this machine can read a file; not on a read-only mount (Secrets of Kubernetes)."""
    place = Path(path).resolve()
    if sys.platform == "win32" or not place.exists() or os.statvfs(place).f_flag & os.ST_RDONLY:
        return False
    entered = all(folder.stat().st_mode & stat.S_IXOTH for folder in place.parents)
    return entered and bool(place.stat().st_mode & stat.S_IROTH)


def looser(app: Flask, settings: "Settings") -> Findings:
    """Return what is looser than the defaults of this environment, and the warnings of the start."""
    from werkzeug.middleware.proxy_fix import ProxyFix  # noqa: PLC0415

    from ..sessions.interface import Sessions  # noqa: PLC0415
    from ..settings import Settings, declared_settings  # noqa: PLC0415
    from ..web import CSP, DefaultHeaders, csrf  # noqa: PLC0415

    defaults: dict[str, Any] = {
        each.name: each.default for each in declared_settings(Settings) if each.name != "environment"
    }
    expected = {**dict.fromkeys(_CSRF, True), **replace(settings, **defaults).flask_config()}
    expected |= {name: value for name, value in settings.flask_config().items() if name in _DERIVED}
    expected |= {
        "SESSION_COOKIE_DOMAIN": None,
        "SESSION_COOKIE_NAME": ("__Secure-" if settings.trusted_prefix else "__Host-") if settings.production else "",
        "REMEMBER_COOKIE_DOMAIN": None,
        "WTF_CSRF_METHODS": {"DELETE", "PATCH", "POST", "PUT"},
        RETENTION_SETTING: RETENTION,
    }
    actual = {**app.config, RETENTION_SETTING: settings.keyring.retention}
    found = {
        name: f"{actual.get(name)!r} (default {expected[name]!r})"
        for name, is_looser in _LOOSER.items()
        if is_looser(actual.get(name), expected[name])
    }
    layer: Any = app.wsgi_app
    proxies = host = 0
    while isinstance(layer, ProxyFix):
        layer, proxies, host = layer.app, proxies + layer.x_for, host + layer.x_host
    if proxies > settings.trusted_proxies or host:
        found["ProxyFix"] = f"x_for={proxies}, x_host={host} (TRUSTED_PROXIES={settings.trusted_proxies})"
    if not isinstance(app.session_interface, Sessions):
        found["session_interface"] = f"replaced by {type(app.session_interface).__qualname__}"
    headers = DefaultHeaders.of(app)
    for name, value in headers.chosen.items():
        actual_value = headers.by_name.get(name.lower(), (name, "removed"))[1]
        longer = name == "Strict-Transport-Security" and _max_age(actual_value) >= _max_age(value)
        if value and actual_value != value and not longer:
            found[name] = f"{actual_value!r} (default {value!r})"
    found |= {name: value for key, (name, value) in headers.by_name.items() if key.startswith("access-control-")}
    for name, sources in headers.directives.items():
        usual = {
            *CSP.get(name, CSP["default-src"]),
            *(app.config.get("FORM_ACTION") or () if name == "form-action" else ()),
        }
        more = [source for source in sources if source not in usual]
        if more and name not in _ONLY_STRICTER:
            found[f"CSP {name}"] = " ".join(more)
    names = ((view.__module__, getattr(view, "__name__", "")) for view in app.view_functions.values())
    views = {".".join(each) for each in names} & csrf._exempt_views
    exempt = [*sorted(views), *(name for name, each in app.blueprints.items() if each in csrf._exempt_blueprints)]
    found |= {f"csrf.exempt {name}": "no CSRF check" for name in exempt}
    return found | dict(warning.split(": ", 1) for warning in settings.warnings)
