"""Error pages for people, problem details (RFC 9457) for programs; both say what to do and hide the cause."""

import logging
import re
from http import HTTPStatus

from flask import Blueprint, Flask, current_app, json, render_template, request
from flask_wtf.csrf import CSRFError
from jinja2 import TemplateNotFound
from markupsafe import Markup
from werkzeug.exceptions import BadHost, HTTPException, ServiceUnavailable, default_exceptions
from werkzeug.wrappers import Response

from .logging import printable, request_id, warn_once_a_minute

ADVICE = {
    400: "The server did not understand the request. Go back, reload the page and try again.",
    401: "Sign in to see this page.",
    403: "You do not have access to this page.",
    404: "There is no page at this address. Check the spelling, or start from the home page.",
    405: "This page does not accept this kind of request.",
    413: "The file or form is too large.",
    429: "You sent too many requests. Wait a moment and try again.",
    500: "Something went wrong on the server. Try again in a moment.",
    503: "The site cannot answer right now. Try again in a moment.",
}
FOR_PROGRAMS = ADVICE | {
    400: "The server did not understand the request: its body or a parameter is malformed.",
    401: "This address needs credentials.",
    403: "These credentials do not allow this request.",
    404: "There is nothing at this address.",
    405: "This address does not accept this method.",
}
FORM_EXPIRED = (
    "The security token (CSRF) of this form is missing or has expired. Go back, reload the page and try again."
)
FORM_ELSEWHERE = "This form was not sent from a page of this site (CSRF protection). Open the form here and try again."
NEEDS_HTTPS = "Forms on this site work over HTTPS only. Open the site with https:// in its address."
TOKEN_NEEDED = "Send the CSRF token in the form field csrf_token or in the header X-CSRFToken."  # noqa: S105
PROBLEM = "application/problem+json"
_PROGRAM = ("application/json", PROBLEM)
_BUILT_IN = Markup(
    '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{name}</title>\n'
    "<h1>{name}</h1>\n<p>{advice}</p>\n<p>Request ID: <code>{request_id}</code></p>\n</html>\n"
)
_LIMIT = re.compile(r"\d+ per [\w ]+")  # the description by Flask-Limiter: "5 per 1 minute"
_log = logging.getLogger(__name__)


def init_app(app: Flask) -> None:
    """Answer every HTTP error of `app` with a page, or with JSON if the client prefers it."""
    app.register_error_handler(HTTPException, _negotiated)


def json_errors(blueprint: Blueprint) -> None:
    """Answer every HTTP error in a view of `blueprint` with JSON; call it before the blueprint is registered.

    A handler of the blueprint's own for one code stays.
    """
    own = blueprint.error_handler_spec[None]
    # Each by itself, too: Flask asks the app's own handler of a code before the blueprint's for all codes.
    kinds: list[type[HTTPException]] = [HTTPException, *default_exceptions.values()]
    for kind in kinds:
        if kind.code not in own:
            blueprint.register_error_handler(kind, lambda error: _answer(error, as_json=True))


def _negotiated(error: HTTPException) -> Response:
    response = _answer(error, request.accept_mimetypes.best_match(("text/html", *_PROGRAM)) in _PROGRAM)
    if error.response is None:
        response.vary.add("Accept")
    return response


def _answer(error: HTTPException, as_json: bool) -> Response:
    response = error.get_response()
    # A redirect, or an exception that carries its own response, is an answer already.
    if error.response is not None or response.status_code < HTTPStatus.BAD_REQUEST:
        return response
    if isinstance(error, CSRFError):
        advice = _csrf_advice(str(error.description), as_json)
    else:  # abort(404, "…") sets a description; else it is the class's
        usual = (FOR_PROGRAMS if as_json else ADVICE).get(error.code or 0, "Go back and try again.")
        given = str(vars(error).get("description") or "")
        advice = usual if error.code == HTTPStatus.TOO_MANY_REQUESTS and _LIMIT.fullmatch(given) else given or usual
    if as_json:
        details = {"type": "about:blank", "title": error.name, "status": error.code, "detail": advice}
        response.data, response.content_type = json.dumps({**details, "request_id": request_id()}), PROBLEM
    else:
        response.data, response.content_type = _page(error, advice), "text/html; charset=utf-8"
    return response


def _page(error: HTTPException, advice: str) -> str:
    """Return the team's page; a plain one if the team has none, or if it fails, as the app may just have done."""
    if isinstance(request.routing_exception, BadHost):  # then a template cannot have a link
        return _BUILT_IN.format(name=error.name, advice=advice, request_id=request_id())
    try:
        return render_template("error.html", error=error, advice=advice, request_id=request_id())
    except Exception as failure:
        is_missing = isinstance(failure, TemplateNotFound) and failure.name == "error.html"
        if not is_missing and not isinstance(failure, ServiceUnavailable):  # the session store has logged that
            _log.exception("cannot render error.html")
        return _BUILT_IN.format(name=error.name, advice=advice, request_id=request_id())


def _csrf_advice(reason: str, as_json: bool) -> str:
    elsewhere = "referrer" in reason
    if elsewhere:
        referrer = str(request.referrer).partition("?")[0][:100]  # the query string may contain a token
        seen = f"host {printable(request.host)}, referrer {printable(referrer)}"
        hint = "if the form is yours, configure the proxy to send the browser's Host header"
        if not request.referrer:
            hint = f"a program or a test must send a Referer; {hint} and Referer"
        warn_once_a_minute("form refused", f"{reason} ({seen})", hint)
    else:
        _log.warning("form refused: %s", reason)
    if current_app.config["SESSION_COOKIE_SECURE"] and not request.is_secure:
        return NEEDS_HTTPS
    if as_json:
        return f"CSRF check failed. {reason} {'' if elsewhere else TOKEN_NEEDED}".rstrip()
    return FORM_ELSEWHERE if elsewhere else FORM_EXPIRED
