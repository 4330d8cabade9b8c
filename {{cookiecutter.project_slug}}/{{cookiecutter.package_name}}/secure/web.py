"""What protects every request and response: CSRF tokens, host names, proxies, forms, headers (OWASP ASVS 5, chapter 3).

A response is created with the headers, so a view or an `after_request` function sets or removes them as any other:
`response.headers["X-Frame-Options"] = "SAMEORIGIN"`, `del response.headers["X-Frame-Options"]`.
"""

import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from flask import (
    Blueprint,
    Flask,
    Request,
    Response,
    abort,
    after_this_request,
    current_app,
    g,
    has_app_context,
    request,
    session,
)
from flask_wtf.csrf import CSRFProtect
from werkzeug.datastructures import Headers
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.utils import host_is_trusted

from . import sessions
from .keys.text import message
from .logging import printable, warn_once_a_minute
from .settings import Settings, SettingsError

health = Blueprint("health", __name__)
_TEXT = {"Content-Type": "text/plain; charset=utf-8"}
PROBES = frozenset({"health.healthz", "health.readyz"})  # answer under any host name: a probe asks by IP address
_FORWARDED = {"HTTP_X_FORWARDED_FOR": "X-Forwarded-For", "HTTP_X_FORWARDED_PROTO": "X-Forwarded-Proto"}
POLICY = "Content-Security-Policy"
CSP: Mapping[str, Iterable[str]] = {
    "default-src": ["'self'"],
    "object-src": ["'none'"],
    "base-uri": ["'none'"],
    "frame-ancestors": ["'none'"],
    "form-action": ["'self'"],
}
_QUOTED = {"none", "self", "strict-dynamic", "unsafe-eval", "unsafe-hashes", "unsafe-inline", "wasm-unsafe-eval"}
HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: on HTTPS, the CSRF check compares the referrer with the host.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_DEBUG = 3  # the place of `debug` among the arguments of Flask.run
_EXTENSION = "secure.headers"
_COMPLETE = "_has_default_headers"


@health.get("/healthz")
def healthz() -> tuple[str, dict[str, str]]:
    """Report that the process is alive."""
    return "ok\n", _TEXT


@health.get("/readyz")
def readyz() -> tuple[str, int, dict[str, str]]:
    """Report whether requests can be answered now: whether a session can be written."""
    return ("ok\n", 200, _TEXT) if sessions.ready() else ("the session store cannot be written\n", 503, _TEXT)


class _CSRFProtect(CSRFProtect):  # type: ignore[misc]
    """Flask-WTF's protection; a form or a referrer on which it would fail is a bad request."""

    def protect(self, apply_exemptions: bool = False) -> None:
        if request.method in current_app.config["WTF_CSRF_METHODS"]:  # first, as most requests change nothing
            super().protect(apply_exemptions)

    def _get_csrf_token(self) -> Any:
        with suppress(ValueError):
            urlsplit(request.referrer or "").port  # noqa: B018 - Flask-WTF reads it
            if None not in request.form and None not in request.files:  # RFC 7578, section 4.2: each part has a name
                return super()._get_csrf_token()
        return abort(400)


csrf = _CSRFProtect()
"""`@csrf.exempt` on a view, or `csrf.exempt(blueprint)`, turns the check off there."""


def init_app(
    app: Flask,
    settings: Settings,
    csp: Mapping[str, Iterable[str]] | None = None,
    headers: Mapping[str, str | None] | None = None,
) -> None:
    """Protect `app` as `settings` say.

    `csp` adds sources to directives of the Content-Security-Policy: `{"script-src": ["https://cdn.example"]}`.
    `headers` changes other headers of all responses, or removes them: `{"X-Frame-Options": None}`.
    Raises SettingsError if the code has turned debug mode on in production: its error pages run code.
    """
    if settings.production:
        _refuse_debug(app)
    prefix: str = app.config.get("TRUSTED_PREFIX", "")
    # The app's name: a browser sends a cookie to every app on the host, whatever the port. `__Host-` and `__Secure-`
    # bind it to HTTPS, `__Host-` also to this host alone and the path "/" (RFC 6265bis, 4.1.3).
    name = re.sub(r"[^\w-]", "_", f"{app.name}_session", flags=re.ASCII)
    wide = prefix or app.config.get("SESSION_COOKIE_DOMAIN")
    kind = ("__Secure-" if wide else "__Host-") if settings.production else ""
    app.config.update(SESSION_COOKIE_NAME=kind + name, SESSION_COOKIE_PATH=prefix or "/")
    _init_headers(app, settings.production, csp or {}, headers or {})
    _check_requests(app, settings, prefix)
    csrf.init_app(app)
    app.register_blueprint(health)
    app.jinja_env.globals["csp_nonce"] = csp_nonce
    if proxies := settings.trusted_proxies:
        # Not x_host: if the proxy does not set that header, the client can.
        x_prefix = proxies if prefix else 0
        layer = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies, x_prefix=x_prefix)
        app.wsgi_app = layer  # type: ignore[method-assign]


def _refuse_debug(app: Flask) -> None:
    """Raise SettingsError if debug mode is on, now or when `app.run` is called."""
    run, hint = app.run, "remove what turns it on, or unset FLASK_DEBUG"
    refused = SettingsError([message("app.debug", "must be off in production", hint)])
    if app.debug:
        raise refused

    def run_without_debug(*arguments: Any, **options: Any) -> None:
        if app.debug or any((*arguments[2:3], options.get("debug"), options.get("use_debugger"))):
            raise refused
        if type(app).run is Flask.run and len(arguments) < _DEBUG:
            options["debug"] = False  # else it would read FLASK_DEBUG from `.env`
        run(*arguments, **options)

    app.run = run_without_debug  # type: ignore[method-assign]


def _check_requests(app: Flask, settings: Settings, prefix: str) -> None:
    """Refuse requests for other hosts, and warn of what the operator has to set."""
    hosts, proxies, production = settings.trusted_hosts, settings.trusted_proxies, settings.production

    @lru_cache(maxsize=64)
    def is_served(host: str) -> bool:
        with suppress(ValueError):  # Werkzeug before 3.1.7 gives what the client sent
            return host_is_trusted(host.lower(), hosts)
        return False

    @app.before_request
    def check() -> None:
        current: Request = request._get_current_object()  # type: ignore[attr-defined]
        if hosts and not is_served(current.host) and current.endpoint not in PROBES:
            reason = f"host {printable(current.host[:100])} is not in TRUSTED_HOSTS"
            refuse("request refused", reason, "if it is one of this app's names, add it to TRUSTED_HOSTS")
        if prefix and current.script_root not in ("", prefix):
            reason = f"X-Forwarded-Prefix {printable(current.script_root[:100])} is not TRUSTED_PREFIX ({prefix})"
            refuse("wrong prefix", reason, "set TRUSTED_PREFIX to the path that the proxy sends")
        sent = current.environ.keys() & _FORWARDED.keys()
        if sent and not proxies:
            hint = "behind a proxy, set TRUSTED_PROXIES to the number of proxies"
            warn_once_a_minute(f"{_FORWARDED[min(sent)]} ignored", "TRUSTED_PROXIES is 0", hint)
        elif len(sent) < len(_FORWARDED) and proxies and current.endpoint not in PROBES:
            missing = [name for variable, name in _FORWARDED.items() if variable not in sent]
            hint = "configure the proxy to send it; if there is no proxy, set TRUSTED_PROXIES=0"
            warn_once_a_minute(f"no {', '.join(missing)} in a request", f"TRUSTED_PROXIES is {proxies}", hint)

    def refuse(*why: str) -> None:
        warn_once_a_minute(*why)
        abort(400)

    def has_form() -> bool:
        return "csrf_token" in g or session.modified

    @app.after_request
    def finish(response: Response) -> Response:
        if prefix and not f"{request.script_root}{request.path}".startswith(f"{prefix}/") and has_form():
            reason = f"browsers return the session cookie below {prefix} only, so every form and sign-in fails"
            hint = "open the app through the proxy, and make it send X-Forwarded-Prefix; or unset TRUSTED_PREFIX"
            if not proxies:
                hint = "set TRUSTED_PROXIES to the number of proxies, or unset TRUSTED_PREFIX"
            warn_once_a_minute("page with a form without X-Forwarded-Prefix", reason, hint)
        if production and request.environ["wsgi.url_scheme"] == "http" and has_form():
            reason = "browsers do not return the session cookie, so every form and sign-in fails"
            hint = "serve the site over HTTPS; if a proxy does, set TRUSTED_PROXIES and make it send X-Forwarded-Proto"
            warn_once_a_minute("page with a form over plain HTTP", reason, hint)
        return _complete(response)  # another function may have replaced the view's


def _init_headers(
    app: Flask, production: bool, csp: Mapping[str, Iterable[str]], headers: Mapping[str, str | None]
) -> None:
    """Give every response of `app` the default headers, as changed by `csp` and `headers` (see `init_app`)."""
    _check_policy(csp)
    directives = _extended(_extended(CSP, {"form-action": app.config.get("FORM_ACTION", ())}), csp)
    chosen = {
        POLICY: _policy(directives),
        **HEADERS,
        "Cross-Origin-Opener-Policy": app.config.get("CROSS_ORIGIN_OPENER_POLICY", "same-origin"),
        "Strict-Transport-Security": app.config.get("HSTS", "max-age=31536000") if production else "",
    }
    by_name = {name.lower(): (name, value) for name, value in (*chosen.items(), *headers.items())}
    given = {key: (name, value) for key, (name, value) in by_name.items() if value}
    app.extensions[_EXTENSION] = DefaultHeaders(given, chosen, directives)
    plain = app.response_class
    custom = type("Response", (SecureResponse, plain), {"plain": plain})
    app.response_class = SecureResponse if plain is Response else custom


@dataclass(eq=False, repr=False)
class DefaultHeaders:
    """The headers of all responses of an app."""

    by_name: Mapping[str, tuple[str, str]]
    """Name and value, by the name in lower case."""
    chosen: Mapping[str, str]
    """What the settings and the policy give, before `headers` of `init_app` changes it."""
    directives: Mapping[str, list[str]]
    """Of the Content-Security-Policy."""

    @classmethod
    def of(cls, app: Flask) -> "DefaultHeaders":
        """Return those that `init_app` gave to `app`."""
        found: DefaultHeaders = app.extensions[_EXTENSION]
        return found

    @lru_cache(maxsize=256)  # noqa: B019 - an app has one, and most of its responses have the same names
    def missing(self, names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """Return what a response with these headers lacks; what a response varies on adds up."""
        given = {*map(str.lower, names)}
        return tuple([item for key, item in self.by_name.items() if key not in given or key == "vary"])


def csp_nonce() -> str:
    """Return the nonce of this request, with which the policy then allows `<script nonce="…">` and `<style nonce="…">`.

    For a streamed template, call it in the view: the headers are sent before the template runs.
    """

    def allow_nonce(response: Response) -> Response:
        directives = DefaultHeaders.of(current_app).directives
        if response.headers.get(POLICY) == _policy(directives):  # else the view has its own
            allowed = [f"'nonce-{g.csp_nonce}'"]
            response.headers[POLICY] = _policy(_extended(directives, {"script-src": allowed, "style-src": allowed}))
        return response

    if "csp_nonce" not in g:
        g.csp_nonce = secrets.token_urlsafe(16)
        after_this_request(allow_nonce)
    return str(g.csp_nonce)


class SecureResponse(Response):
    """Flask's response with the default headers.

    Code that reads `headers` finds them there. If none did, they are added to the list that the server gets: werkzeug
    checks each header in `headers` twice, which takes a tenth of a short request's time.
    """

    plain: type[Response] = Response  # the class of the app's responses without this one
    _pending = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pending = True

    @property
    def headers(self) -> Headers:
        """The headers, with the defaults."""
        headers: Headers = vars(self)["headers"]
        if self._pending:
            self._pending = False
            headers.extend(_missing(headers))
        return headers

    @headers.setter
    def headers(self, headers: Headers) -> None:
        vars(self)["headers"] = headers

    @classmethod
    def force_type(cls, response: Any, environ: Any = None) -> Any:
        """Add the headers to any other response; one of Flask's keeps its class, which may be an extension's."""
        if isinstance(response, cls.plain):
            return _complete(response)
        forced = super().force_type(response, environ)
        vars(forced)["_pending"] = True
        return forced

    def get_wsgi_response(self, environ: Any) -> Any:
        """Return what the server gets: body, status and headers."""
        pending, self._pending = self._pending, False
        body, status, headers = super().get_wsgi_response(environ)
        self._pending = pending  # a view may return it again
        return body, status, [*headers, *_missing(headers)] if pending else headers


def _complete(response: Response) -> Response:
    """Add the headers to a response of another class, once: what is missing later was removed."""
    if not isinstance(response, SecureResponse) and _COMPLETE not in vars(response):
        vars(response)[_COMPLETE] = True
        response.headers.extend(_missing(response.headers))
    return response


def _missing(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return DefaultHeaders.of(current_app).missing(tuple([name for name, _ in headers])) if has_app_context() else ()


def _check_policy(csp: Mapping[str, Iterable[str]]) -> None:
    """Raise ValueError for what a browser ignores without a word, or takes for more than one directive."""
    for name, given in csp.items():
        if not re.fullmatch("[a-z]+(-[a-z]+)*", name):
            raise ValueError(f"csp: {name!r} is not a directive, such as script-src")
        for source in given.split() if isinstance(given, str) else given:
            if source in _QUOTED:
                raise ValueError(f'csp: {source} in {name} needs quotes of its own: "\'{source}\'"')
            if not re.fullmatch(r"[ -+\--:<-~]+", source):
                raise ValueError(f"csp: {source!r} is not a source for {name}")


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
