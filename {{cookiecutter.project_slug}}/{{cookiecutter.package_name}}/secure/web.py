"""What protects every request and response: CSRF tokens, host names, proxies, forms, headers (OWASP ASVS 5, chapter 3).

A response is created with the headers, so a view or an `after_request` function sets or removes them as any other:
`response.headers["X-Frame-Options"] = "SAMEORIGIN"`, `del response.headers["X-Frame-Options"]`.
"""

import re
import secrets
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Request, Response, abort, after_this_request, current_app, g, request, session
from flask_wtf.csrf import CSRFProtect
from werkzeug.datastructures import Headers
from werkzeug.exceptions import BadRequest
from werkzeug.formparser import FormDataParser
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.utils import host_is_trusted

from . import sessions
from .logging import add_layer, printable, warn_once_a_minute
from .settings import Settings

health = Blueprint("health", __name__)
_TEXT = {"Content-Type": "text/plain; charset=utf-8"}
PROBES = frozenset({"health.healthz", "health.readyz"})
"""Endpoints that answer under any host name: a probe asks by IP address."""
_FORWARDED = {"X-Forwarded-For": "HTTP_X_FORWARDED_FOR", "X-Forwarded-Proto": "HTTP_X_FORWARDED_PROTO"}
POLICY = "Content-Security-Policy"
CSP: Mapping[str, Iterable[str]] = {
    "default-src": ["'self'"],
    "object-src": ["'none'"],
    "base-uri": ["'none'"],
    "frame-ancestors": ["'none'"],
    "form-action": ["'self'"],
}
HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: on HTTPS, the CSRF check compares the referrer with the host.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_EXTENSION = "secure.headers"
_COMPLETE = "_has_default_headers"


@health.get("/healthz")
def healthz() -> tuple[str, dict[str, str]]:
    """Report that the process is alive."""
    return "ok\n", _TEXT


@health.get("/readyz")
def readyz() -> tuple[str, int, dict[str, str]]:
    """Report whether requests can be answered now: whether a session can be written."""
    if sessions.ready():
        return "ok\n", 200, _TEXT
    return "the session store cannot be written\n", 503, _TEXT


class MethodFirst(CSRFProtect):  # type: ignore[misc]
    """Flask-WTF's protection; it looks at the method first, as most requests change nothing."""

    def protect(self, apply_exemptions: bool = False) -> None:
        """Check the current request. Raises CSRFError."""
        if request.method in current_app.config["WTF_CSRF_METHODS"]:
            if not _is_url(request.environ.get("HTTP_REFERER", "")):
                abort(400)  # Flask-WTF would fail on it
            super().protect(apply_exemptions)


csrf = MethodFirst()
"""`@csrf.exempt` on a view, or `csrf.exempt(blueprint)`, turns the check off there."""


class FormParser(FormDataParser):
    """Refuses a form in which a part has no name (RFC 7578, section 4.2): code that reads forms fails on it."""

    def parse(self, *args: Any, **kwargs: Any) -> Any:
        """Return the stream, fields and files of a form. Raises BadRequest."""
        stream, fields, files = super().parse(*args, **kwargs)
        if None in fields or None in files:
            for _, file in files.items(multi=True):
                file.close()
            raise BadRequest
        return stream, fields, files


def init_app(
    app: Flask,
    settings: Settings,
    csp: Mapping[str, Iterable[str]] | None = None,
    headers: Mapping[str, str | None] | None = None,
) -> None:
    """Protect `app` as `settings` say.

    `csp` adds sources to directives of the Content-Security-Policy: `{"script-src": ["https://cdn.example"]}`.
    `headers` changes other headers of all responses, or removes them: `{"X-Frame-Options": None}`.
    """
    prefix: str = app.config.get("TRUSTED_PREFIX", "")
    _name_cookie(app, settings.production, prefix)
    _init_headers(app, settings.production, csp or {}, headers or {})
    app.request_class = type("Request", (app.request_class,), {"form_data_parser_class": FormParser})
    _check_requests(app, settings, prefix)
    csrf.init_app(app)
    app.register_blueprint(health)
    app.jinja_env.globals["csp_nonce"] = csp_nonce
    proxies = settings.trusted_proxies
    if proxies:
        # Not x_host: if the proxy does not set that header, the client can.
        x_prefix = proxies if prefix else 0
        add_layer(app, lambda wsgi: ProxyFix(wsgi, x_for=proxies, x_proto=proxies, x_prefix=x_prefix))


def _name_cookie(app: Flask, production: bool, prefix: str) -> None:
    """Name the session cookie after the app: a browser sends it to every app on the host, whatever the port.

    `__Host-` and `__Secure-` bind it to HTTPS, `__Host-` also to this host and the path "/" (RFC 6265bis, 4.1.3).
    """
    name = re.sub(r"[^\w-]", "_", f"{app.name}_session", flags=re.ASCII)
    kind = ("__Secure-" if prefix else "__Host-") if production else ""
    app.config.update(SESSION_COOKIE_NAME=kind + name, SESSION_COOKIE_PATH=prefix or "/")


def _check_requests(app: Flask, settings: Settings, prefix: str) -> None:
    """Refuse requests for other hosts, and warn of what the operator has to set."""
    hosts, proxies = settings.trusted_hosts, settings.trusted_proxies

    @lru_cache(maxsize=64)
    def is_served(host: str) -> bool:
        return host_is_trusted(host.lower(), hosts)

    @app.before_request
    def check() -> None:
        current: Request = request._get_current_object()  # type: ignore[attr-defined]
        if hosts and not is_served(current.host) and current.endpoint not in PROBES:
            hint = "if it is one of this app's names, add it to TRUSTED_HOSTS"
            warn_once_a_minute("request refused", f"host {_short(current.host)} is not in TRUSTED_HOSTS", hint)
            abort(400)
        if prefix and current.script_root not in ("", prefix):
            reason = f"X-Forwarded-Prefix {_short(current.script_root)} is not TRUSTED_PREFIX ({prefix})"
            warn_once_a_minute("wrong prefix", reason, "set TRUSTED_PREFIX to the path that the proxy sends")
            abort(400)
        sent = [name for name, variable in _FORWARDED.items() if variable in current.environ]
        if sent and not proxies:
            hint = "behind a proxy, set TRUSTED_PROXIES to the number of proxies"
            warn_once_a_minute(f"{sent[0]} ignored", "TRUSTED_PROXIES is 0", hint)
        elif proxies and len(sent) < len(_FORWARDED) and current.endpoint not in PROBES:
            missing = ", ".join(name for name in _FORWARDED if name not in sent)
            hint = "have the proxy send it; if there is no proxy, set TRUSTED_PROXIES=0"
            warn_once_a_minute(f"no {missing} in a request", f"TRUSTED_PROXIES is {proxies}", hint)

    if settings.production:
        app.after_request(_warn_of_http)


def _warn_of_http(response: Response) -> Response:
    if request.environ["wsgi.url_scheme"] == "http" and ("csrf_token" in g or session.modified):
        reason = "browsers do not return the session cookie, so every form and sign-in fails"
        hint = "serve the site over HTTPS; if a proxy does, set TRUSTED_PROXIES and have it send X-Forwarded-Proto"
        warn_once_a_minute("page with a form over plain HTTP", reason, hint)
    return response


def _short(text: str) -> str:
    return printable(text[:100])


def _is_url(text: str) -> bool:
    try:
        urlsplit(text).port  # noqa: B018
    except ValueError:
        return False
    return True


def _init_headers(
    app: Flask, production: bool, csp: Mapping[str, Iterable[str]], headers: Mapping[str, str | None]
) -> None:
    """Give every response of `app` the default headers, as changed by `csp` and `headers` (see `init_app`)."""
    directives = _extended(_extended(CSP, {"form-action": app.config.get("FORM_ACTION", ())}), csp)
    chosen = {
        POLICY: _policy(directives),
        **HEADERS,
        "Cross-Origin-Opener-Policy": app.config.get("CROSS_ORIGIN_OPENER_POLICY", "same-origin"),
        "Strict-Transport-Security": app.config.get("HSTS", "max-age=31536000") if production else "",
    }
    by_name = {name.lower(): (name, value) for name, value in (*chosen.items(), *headers.items())}
    app.extensions[_EXTENSION] = {key: item for key, item in by_name.items() if item[1]}, directives
    plain = app.response_class
    custom = type("Response", (SecureResponse, plain), {"plain": plain})
    app.response_class = SecureResponse if plain is Response else custom

    @app.after_request
    def complete(response: Response) -> Response:
        if not isinstance(response, SecureResponse):  # another function has replaced the view's
            _complete(response)
        return response


def default_headers() -> dict[str, tuple[str, str]]:
    """Return the default headers of the current app: name and value by the name in lower case."""
    try:
        defaults: dict[str, tuple[str, str]] = current_app.extensions[_EXTENSION][0]
    except RuntimeError:  # outside an app
        return {}
    return defaults


def csp_nonce() -> str:
    """Return the nonce of this request, with which the policy then allows `<script nonce="…">` and `<style nonce="…">`.

    For a streamed template, call it in the view: the headers are sent before the template runs.
    """
    if "csp_nonce" not in g:
        g.csp_nonce = secrets.token_urlsafe(16)
        after_this_request(_allow_nonce)
    nonce: str = g.csp_nonce
    return nonce


def _allow_nonce(response: Response) -> Response:
    directives = current_app.extensions[_EXTENSION][1]
    if response.headers.get(POLICY) == _policy(directives):  # else the view has its own
        allowed = [f"'nonce-{g.csp_nonce}'"]
        response.headers[POLICY] = _policy(_extended(directives, {"script-src": allowed, "style-src": allowed}))
    return response


class SecureResponse(Response):
    """Flask's response with the default headers.

    Whoever looks at `headers` sees them. If nobody did, they are added to the list that the server gets: werkzeug
    checks each header in `headers` twice, which takes a tenth of a short request's time.
    """

    plain: type[Response] = Response
    """The class of the app's responses without this one."""
    _pending = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pending = True

    @property
    def headers(self) -> Headers:
        """The headers, with the defaults."""
        headers: Headers = self.__dict__["headers"]
        if self._pending:
            self._pending = False
            headers.extend(_missing(headers))
        return headers

    @headers.setter
    def headers(self, headers: Headers) -> None:
        self.__dict__["headers"] = headers

    @classmethod
    def force_type(cls, response: Any, environ: Any = None) -> Any:
        """Add the headers to any other response; one of Flask's keeps its class, which may be an extension's."""
        if isinstance(response, cls.plain):
            _complete(response)
            return response
        forced = super().force_type(response, environ)
        forced.__dict__["_pending"] = True
        return forced

    def get_wsgi_response(self, environ: Any) -> Any:
        """Return what the server gets: body, status and headers."""
        pending, self._pending = self._pending, False
        body, status, headers = super().get_wsgi_response(environ)
        self._pending = pending  # a view may return it again
        return body, status, [*headers, *_missing(headers)] if pending else headers


def _complete(response: Response) -> None:
    """Add the headers to a response of another class, once: what is missing later was removed."""
    if _COMPLETE not in response.__dict__:
        setattr(response, _COMPLETE, True)
        response.headers.extend(_missing(response.headers))


def _missing(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    given = {name.lower() for name, _ in headers}
    return [item for key, item in default_headers().items() if key not in given]


def _extended(directives: Mapping[str, Iterable[str]], more: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Return `directives` with more sources; one that falls back to default-src starts with the sources of that."""
    result = {name: list(sources) for name, sources in directives.items()}
    for name in sorted(more, key="default-src".__ne__):
        fallback = result.get("default-src", []) if name.endswith("-src") else []
        given = more[name]
        sources = [*result.get(name, fallback), *(given.split() if isinstance(given, str) else given)]
        # 'none' counts only alone (CSP 3, section 2.3.1).
        result[name] = list(dict.fromkeys(s for s in sources if s != "'none'")) or sources[:1]
    return result


def _policy(directives: Mapping[str, Iterable[str]]) -> str:
    return "; ".join(" ".join((name, *sources)) for name, sources in directives.items())
