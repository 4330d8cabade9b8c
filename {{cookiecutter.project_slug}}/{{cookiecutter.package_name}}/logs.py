"""Logs: one line a request, with its id; readable in development, JSON in production."""

import logging
import os
import re
import time
from urllib.parse import quote

from flask import Flask, Response, g, has_request_context, request
from pythonjsonlogger.json import JsonFormatter

from . import redaction
from .config import Settings
from .secret_key.live import LiveRing

REQUEST_ID = "X-Request-ID"
_READABLE = "%(asctime)s %(levelname)-7s %(message)s  [%(request_id)s]"
_log = logging.getLogger(__name__)


def init_app(app: Flask, live: LiveRing, settings: Settings) -> None:
    """Log each request of `app`, and at the start what its ring is.

    Behind a proxy the id that the proxy gives a request is taken over.
    """
    behind_proxy = settings.trusted_proxies > 0

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()
        g.request_id = _request_id(request.headers.get(REQUEST_ID, "") if behind_proxy else "")

    @app.after_request
    def end(response: Response) -> Response:
        response.headers[REQUEST_ID] = g.request_id
        # Quoted, for no line break; without the query, which may hold a token.
        method, path, code = request.method, quote(request.path), response.status_code
        milliseconds = round((time.perf_counter() - g.began) * 1000, 1)
        fields = {"method": method, "path": path, "status": code, "milliseconds": milliseconds}
        message = "%s %s %s in %s ms for %s"
        _log.info(message, method, path, code, milliseconds, request.remote_addr, extra=fields)
        return response

    if not app.testing:
        _configure(settings.production)
    redaction.init_app(live, [app.logger, logging.getLogger()])
    live.current()  # the file has gone bad already? Then the log says so from the first line on
    _log.info("Secret key: %s", live.described())


class RequestIds(logging.Filter):
    """Gives every record the id of the request it was logged in."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record through, with its id."""
        record.request_id = g.get("request_id", "-") if has_request_context() else "-"
        return True


def _configure(production: bool) -> None:
    """Log to standard error, where nobody else has configured the root logger."""
    handler = logging.StreamHandler()
    handler.addFilter(RequestIds())
    names = {"asctime": "time", "levelname": "level", "name": "logger"}
    fields = "%(asctime)s %(levelname)s %(name)s %(message)s %(request_id)s"
    handler.setFormatter(
        JsonFormatter(fields, rename_fields=names) if production else logging.Formatter(_READABLE, "%H:%M:%S")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("werkzeug").addFilter(_is_no_access_line)


def _is_no_access_line(record: logging.LogRecord) -> bool:
    """Flask's development server logs each request as well; ours is the one line."""
    return " - - [" not in str(record.msg)


def _request_id(given: str) -> str:
    return given if re.fullmatch(r"[\w.-]{8,64}", given, re.ASCII) else os.urandom(8).hex()
