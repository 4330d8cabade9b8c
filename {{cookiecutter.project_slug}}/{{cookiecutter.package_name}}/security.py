"""What protects every response and every request: headers, CSRF tokens, hosts, proxies.

Header by header the rules are those of OWASP ASVS 5, chapter 3. They are written here rather than taken
from a library, since they never vary: one tuple, made once.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import Flask, Request, abort, request
from flask_wtf.csrf import CSRFProtect
from werkzeug.exceptions import BadRequest
from werkzeug.formparser import FormDataParser
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.utils import host_is_trusted

from .config import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PROBES = frozenset({"pages.healthz", "pages.readyz"})
"""Endpoints that answer under any host name: a probe asks by address."""

HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    # Not no-referrer: on https a form's CSRF check looks at the referrer of the same origin.
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)
HSTS = ("Strict-Transport-Security", "max-age=31536000; includeSubDomains")


class FormParser(FormDataParser):
    """Refuses a form in which a part has no name (RFC 7578, section 4.2): what reads forms fails on it."""

    def parse(self, *args: Any, **kwargs: Any) -> Any:
        """The stream, fields and files of a form. Raises BadRequest."""
        stream, fields, files = super().parse(*args, **kwargs)
        if None in fields or None in files:
            for _, file in files.items(multi=True):
                file.close()
            raise BadRequest
        return stream, fields, files


class FormRequest(Request):
    """Flask's request, with that parser."""

    form_data_parser_class = FormParser


def init_app(app: Flask, settings: Settings) -> None:
    """Protect `app` as its settings say."""
    app.request_class = FormRequest
    _add_headers(app, (*HEADERS, HSTS) if settings.production else HEADERS)

    @lru_cache(maxsize=64)
    def is_served(host: str) -> bool:
        return not settings.trusted_hosts or host_is_trusted(host.lower(), settings.trusted_hosts)

    @app.before_request
    def refuse_bad_addresses() -> None:
        if not is_served(request.host) and request.endpoint not in PROBES:
            abort(400)
        referrer = request.environ.get("HTTP_REFERER")
        if referrer and not _is_address(referrer):  # Flask-WTF would fail on it, and the answer be a 500
            abort(400)

    CSRFProtect(app)
    proxies = settings.trusted_proxies
    if proxies:
        # Not x_host: a proxy that does not set that header lets a client set it.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies)  # type: ignore[method-assign]


def _is_address(text: str) -> bool:
    try:
        urlsplit(text).port  # noqa: B018
    except ValueError:
        return False
    return True


def _add_headers(app: Flask, headers: Iterable[tuple[str, str]]) -> None:
    """Add `headers` to every response that does not set them itself.

    As a layer around the app: a function that fails after a request would take an `after_request` with it.
    """
    serve = app.wsgi_app

    def with_headers(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        def start(status: str, given: list[tuple[str, str]], exc_info: Any = None) -> Any:
            names = {name.lower() for name, _ in given}
            added = [(name, value) for name, value in headers if name.lower() not in names]
            return start_response(status, given + added, exc_info)

        return serve(environ, start)

    app.wsgi_app = with_headers  # type: ignore[method-assign]
