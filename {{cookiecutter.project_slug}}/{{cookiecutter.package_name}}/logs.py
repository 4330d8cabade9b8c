"""Logs: one line a request, with its id; readable in development, JSON in production."""

import logging
import os
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote

from flask import Flask, Response, has_request_context, request
from pythonjsonlogger.json import JsonFormatter
from werkzeug.serving import is_running_from_reloader

from . import redaction
from .config import Settings
from .secret_key.live import LiveRing

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

REQUEST_ID = "X-Request-ID"
_ID, _BEGAN = "app.request_id", "app.began"
"""Where the WSGI environment of a request keeps its id, and the start of it in seconds."""
_READABLE = "%(asctime)s %(levelname)-7s %(message)s  [%(request_id)s]"
_log = logging.getLogger(__name__)


def init_app(app: Flask, live: LiveRing, settings: Settings) -> None:
    """Log each request of `app`, and at the start what its ring is.

    Behind a proxy the id that the proxy gives a request is taken over.
    """
    behind_proxy = settings.trusted_proxies > 0
    serve = app.wsgi_app

    def begin(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        # Before Flask does anything, so that whatever fails has an id.
        given = environ.get("HTTP_X_REQUEST_ID", "") if behind_proxy else ""
        environ[_ID] = given if re.fullmatch(r"[\w.-]{8,64}", given, re.ASCII) else os.urandom(8).hex()
        environ[_BEGAN] = time.perf_counter()
        return serve(environ, start_response)

    @app.after_request
    def end(response: Response) -> Response:
        response.headers[REQUEST_ID] = request_id()
        # Quoted, for no line break; without the query, which may hold a token.
        fields = {
            "method": quote(request.method),
            "path": quote(request.path),
            "status": response.status_code,
            "milliseconds": round((time.perf_counter() - request.environ.get(_BEGAN, 0.0)) * 1000, 1),
            "client": quote(request.remote_addr or "-", safe=":"),
        }
        message = "%(method)s %(path)s %(status)s in %(milliseconds)s ms for %(client)s"
        _log.info(message, fields, extra=fields)
        return response

    app.wsgi_app = begin  # type: ignore[method-assign]
    if not app.testing:
        _configure(settings.production)
    redaction.init_app(live, [app.logger, logging.getLogger()])
    live.current()  # the file has gone bad already? Then the log says so from the first line on
    if not is_running_from_reloader():  # its parent has said it
        _log.info("Secret key: %s", live.described())


def request_id() -> str:
    """The id of the request that is being answered."""
    given: str = request.environ.get(_ID, "-")
    return given


class RequestIds(logging.Filter):
    """Gives every record the id of the request it was logged in."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record through, with its id."""
        record.request_id = request_id() if has_request_context() else "-"
        return True


def _configure(production: bool) -> None:
    """Log to standard error, where nobody else has configured the root logger."""
    handler = logging.StreamHandler()
    handler.addFilter(RequestIds())
    handler.setFormatter(_json() if production else logging.Formatter(_READABLE, "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("werkzeug").addFilter(_is_no_access_line)


def _json() -> logging.Formatter:
    names = {"levelname": "level", "name": "logger"}
    fields = "%(levelname)s %(name)s %(message)s %(request_id)s"
    return JsonFormatter(fields, rename_fields=names, timestamp="time")


def _is_no_access_line(record: logging.LogRecord) -> bool:
    """Flask's development server logs each request as well; ours is the one line."""
    return record.levelno > logging.INFO or " - - [" not in str(record.msg)
