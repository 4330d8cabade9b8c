"""What protects every response and every request: headers, CSRF tokens, hosts, proxies.

Header by header the rules are those of OWASP ASVS 5, chapter 3. They are written here rather than taken
from a library, since they never vary: one tuple, made once.
"""

from flask import Flask, Response, abort, request
from flask_wtf.csrf import CSRFProtect
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.utils import host_is_trusted

from .config import Settings

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


def init_app(app: Flask, settings: Settings) -> None:
    """Protect `app` as its settings say."""
    headers = (*HEADERS, HSTS) if settings.production else HEADERS
    hosts, proxies = settings.trusted_hosts, settings.trusted_proxies

    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in headers:
            response.headers.setdefault(name, value)
        return response

    if hosts:

        @app.before_request
        def refuse_other_hosts() -> None:
            if request.endpoint not in PROBES and not host_is_trusted(request.host.lower(), hosts):
                abort(400)

    elif settings.production:
        app.logger.warning("TRUSTED_HOSTS is not set: every host name is served")

    CSRFProtect(app)
    if proxies:
        # Not x_host: a proxy that does not set that header lets a client set it.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies)  # type: ignore[method-assign]
