"""Logs: one line a request, with its id; readable in development, JSON in production."""

import logging
import os
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flask import Flask, has_request_context, request
from pythonjsonlogger.json import JsonEncoder, JsonFormatter
from werkzeug.serving import is_running_from_reloader

from . import redaction
from .config import Settings
from .secret_key import handover
from .secret_key.live import LiveRing

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

REQUEST_ID = "X-Request-ID"
_ID = "app.request_id"
"""Where the WSGI environment of a request keeps its id."""
_GOOD_ID = re.compile(r"[\w.-]{8,64}", re.ASCII)
_READABLE = "%(asctime)s %(levelname)-7s %(message)s  [%(request_id)s]"
_log = logging.getLogger(__name__)
_write = JsonEncoder().encode


def init_app(app: Flask, live: LiveRing, settings: Settings) -> None:
    """Log each request of `app`, and at the start what its settings have to say.

    Behind a proxy the id that the proxy gives a request is taken over.
    """
    behind_proxy = settings.trusted_proxies > 0
    serve = app.wsgi_app

    def logged(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        # Around all that Flask does, so that whatever fails has an id and a line.
        given = environ.get("HTTP_X_REQUEST_ID", "") if behind_proxy else ""
        environ[_ID] = given if _GOOD_ID.fullmatch(given) else os.urandom(8).hex()
        began = time.perf_counter()

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            _log_request(environ, int(status[:3]), time.perf_counter() - began)
            return start_response(status, [*headers, (REQUEST_ID, environ[_ID])], exc_info)

        try:
            return serve(environ, start)
        except Exception:  # on its way to the debugger
            _log_request(environ, 500, time.perf_counter() - began)
            raise

    app.wsgi_app = logged  # type: ignore[method-assign]
    if not app.testing:
        _configure(settings.production, live)
    redaction.init_app(app, live)
    live.current()  # the file has gone bad already? Then the log says so from the first line on
    if not (is_running_from_reloader() or handover.is_shared()):  # else the parent process has said it
        for level, line in settings.notices(live.now):
            _log.log(level, line)


def request_id() -> str:
    """The id of the request that is being answered."""
    given: str = request.environ.get(_ID, "-")
    return given


class RequestLine(dict[str, object]):
    """What a request was: fields for who writes JSON, and a line to read for all others."""

    def __str__(self) -> str:
        return str(self["message"])


def _log_request(environ: "WSGIEnvironment", status: int, seconds: float) -> None:
    if not _log.isEnabledFor(logging.INFO):  # by a team whose proxy writes such lines already
        return
    # Quoted, for no line break; without the query, which may hold a token.
    method, path = quote(environ["REQUEST_METHOD"]), quote(_path(environ).encode("latin-1"))
    client = quote(environ.get("REMOTE_ADDR") or "-", safe=":")
    milliseconds = round(seconds * 1000, 1)
    line = RequestLine(
        message=f"{method} {path} {status} in {milliseconds} ms for {client}",
        method=method,
        path=path,
        status=status,
        milliseconds=milliseconds,
        client=client,
    )
    _log.info(line, extra={"request_id": environ[_ID]})


def _path(environ: "WSGIEnvironment") -> str:
    return str(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))


class RequestIds(logging.Filter):
    """Gives every record the id of the request it was logged in."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record through, with its id."""
        if not hasattr(record, "request_id"):
            record.request_id = request_id() if has_request_context() else "-"
        return True


def _configure(production: bool, live: LiveRing) -> None:
    """Log to standard error, where nobody else has configured the root logger."""
    handler = logging.StreamHandler()
    handler.addFilter(RequestIds())
    handler.setFormatter(_Json(live) if production else logging.Formatter(_READABLE, "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("werkzeug").addFilter(_is_no_access_line)


class _Json(JsonFormatter):
    """Writes with one encoder, where the library makes one for every line.

    What it writes is looked through: JSON shows a key inside a field whose `repr`, seen before, hides it.
    """

    def __init__(self, live: LiveRing) -> None:
        names = {"levelname": "level", "name": "logger"}
        fields = "%(levelname)s %(name)s %(message)s %(request_id)s"
        super().__init__(fields, rename_fields=names, timestamp="time")
        self._live = live

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        return redaction.redacted(_write(log_data), self._live.ring.keys)


def _is_no_access_line(record: logging.LogRecord) -> bool:
    """Flask's development server logs each request as well; ours is the one line."""
    return record.levelno > logging.INFO or " - - [" not in str(record.msg)
