"""The log: one line for each request, with its ID; readable in development, JSON in production. It shows no key.

Every handler's formatter is wrapped in one that shows a key's fingerprint instead of the key, and a record that cannot
be written is not printed. A handler that is added after `init_app` stays as it is: configure logging first.
"""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus
from weakref import ref

from flask import Flask, has_request_context, request
from werkzeug.serving import is_running_from_reloader

from . import inherited
from .keys.key import Key
from .keys.key_format import KEY_PATTERN
from .keys.text import message
from .keys.watcher import KeyringWatcher
from .settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

REQUEST_ID = "X-Request-ID"
_ID = "secure.request_id"  # the ID of a request, in its WSGI environment
_VALID_ID = re.compile(r"[\w.-]{8,64}", re.ASCII)
_PRINTABLE = re.compile("[!-~]*")
_UNESCAPED = re.compile(r"[!#-[\]-~]*")  # the same without " and \, which JSON escapes
_READABLE = "%(asctime)s %(levelname)-7s %(message)s  [%(request_id)s]"
_MINUTE = 60.0
_SWITCHED = 101
_log = logging.getLogger(__name__)
_encode = json.JSONEncoder(default=str).encode
_STANDARD = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}
_warned: dict[str, float] = {}  # when this process last warned of each cause, by the monotonic clock
_watchers: list[ref[KeyringWatcher]] = []  # of every app in this process: they share the handlers


def init_app(app: Flask, watcher: KeyringWatcher, settings: Settings) -> None:
    """Log each request of `app`, and, at once, the notices of its settings.

    Behind a trusted proxy, the proxy's X-Request-ID is the request's ID.
    """
    behind_proxy, inner = settings.trusted_proxies > 0, app.wsgi_app

    def logged(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        given = environ.get("HTTP_X_REQUEST_ID", "") if behind_proxy else ""
        environ[_ID] = given if given and _VALID_ID.fullmatch(given) else os.urandom(8).hex()
        # A socket for IPv4 and IPv6 shows an IPv4 client as ::ffff:192.0.2.1 (RFC 4291, section 2.5.5.2).
        environ["REMOTE_ADDR"] = environ.get("REMOTE_ADDR", "").removeprefix("::ffff:")
        began = time.perf_counter()

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            _log_request(environ, int(status[:3]), began)
            return start_response(status, [*headers, (REQUEST_ID, environ[_ID])], exc_info)

        try:
            return inner(environ, start)
        except Exception as error:  # on its way to the debugger, or a websocket took over gunicorn's connection
            _log_request(environ, _SWITCHED if isinstance(error, StopIteration) else 500, began)
            raise

    # Around all of Flask, so that every failure has an ID and a line.
    app.wsgi_app = logged  # type: ignore[method-assign]
    if not app.testing:
        _configure(settings.production)
    for name in list(logging.Logger.manager.loggerDict):  # dictConfig and fileConfig disable every logger that exists
        if name.startswith(f"{__package__}."):
            logging.getLogger(name).disabled = False
    redact(app, watcher)
    watcher.current()  # if the key file is invalid by now, the log says so first
    if not (is_running_from_reloader() or inherited.last_valid):  # the parent process has logged them
        for level, line in settings.notices(watcher.now):
            _log.log(level, line)


def request_id() -> str:
    """Return the ID of the current request."""
    return str(request.environ.get(_ID, "-"))


def warn_once_a_minute(cause: str, reason: str, hint: str) -> None:
    """Log a warning about `cause`, unless this process did in the last minute: clients can trigger it at will."""
    now = time.monotonic()
    if now - _warned.get(cause, -_MINUTE) >= _MINUTE:
        _warned[cause] = now
        _log.warning("%s", message(cause, reason, hint))


def printable(text: str) -> str:
    """Return `text`, sent by a client, without spaces and line breaks."""
    return text if _PRINTABLE.fullmatch(text) else quote(text.encode("latin-1", "replace"))


def _log_request(environ: "WSGIEnvironment", status: int, began: float) -> None:
    if not _log.isEnabledFor(logging.INFO):  # a team may turn these lines off
        return
    tenths = int((time.perf_counter() - began) * 10_000 + 0.5)
    milliseconds = f"{tenths // 10}.{tenths % 10}"  # whole numbers, as a float takes longer to format
    number, method, client = environ[_ID], environ["REQUEST_METHOD"], environ["REMOTE_ADDR"] or "-"
    # Without the query string, which may contain a token.
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    handler = _json_handler()
    if not _UNESCAPED.fullmatch(f"{method}{path}{client}"):
        method, path, client = map(_escaped if handler else printable, (method, path, client))
    text = f"{method} {path} {status} in {milliseconds} ms for {client}"
    if handler:  # a record and its way through `logging` cost twice as much as the line
        _write(
            handler,
            f'{{"time": "{_moment(time.time())}", "level": "INFO", "logger": "{__name__}", "message": "{text}", '
            f'"request_id": "{number}", "method": "{method}", "path": "{path}", "status": {status}, '
            f'"milliseconds": {milliseconds}, "client": "{client}"}}\n',
        )
        return
    record = _log.makeRecord(__name__, logging.INFO, "", 0, text, (), None)
    fields = {"request_id": number, "method": method, "path": path, "status": status}
    vars(record).update(fields, milliseconds=float(milliseconds), client=client)
    _log.handle(record)


def _escaped(text: str) -> str:
    return _encode(printable(text))[1:-1]


def _json_handler() -> Any:
    """Return the handler of `_configure` for production, if nothing else sees the line of a request."""
    logger, handlers = _log, [*_log.handlers]
    while logger.propagate and logger.parent:
        logger = logger.parent
        handlers += logger.handlers
    if len(handlers) != 1 or _log.filters or logging.getLogRecordFactory() is not logging.LogRecord:
        return None
    handler: Any = handlers[0]
    alone = type(handler) is logging.StreamHandler and not handler.level and handler.filters == [_add_request_id]
    return handler if alone and type(getattr(handler.formatter, "inner", None)) is JsonFormatter else None


def _write(handler: Any, line: str) -> None:
    try:
        with handler.lock:
            handler.stream.write(without_keys(line))
            handler.stream.flush()
    except (AttributeError, OSError, ValueError):  # a missing or closed standard error fails no request
        pass


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object, with its extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            fields["exc_info"] = record.exc_text or self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack_info"] = record.stack_info
        line = {"time": _moment(record.created), "level": record.levelname, "logger": record.name}
        line["message"] = record.getMessage()
        # A monitor relies on the level: `extra={"level": ...}` does not replace it.
        return _encode(line | {f"extra_{name}" if name in line else name: fields[name] for name in fields})


def _moment(at: float) -> str:
    return f"{_second(int(at))}.{int(at % 1 * 1000):03}+00:00"


@lru_cache(maxsize=1)
def _second(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


def _configure(production: bool) -> None:
    """Log to standard error, unless the root logger is configured already."""
    handler = logging.StreamHandler()
    handler.addFilter(_add_request_id)
    handler.setFormatter(JsonFormatter() if production else logging.Formatter(_READABLE, "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("werkzeug").addFilter(_is_no_access_line)
    logging.getLogger("flask_wtf.csrf").setLevel(logging.WARNING)  # errors.py logs each refusal


def _add_request_id(record: logging.LogRecord) -> bool:
    if not hasattr(record, "request_id"):
        record.request_id = request_id() if has_request_context() else "-"
    return True


def _is_no_access_line(record: logging.LogRecord) -> bool:
    """Drop the development server's line for a request: the app logs its own."""
    return record.levelno > logging.INFO or " - - [" not in str(record.msg)


class RedactingFormatter(logging.Formatter):
    """Formats with `inner`, which finds the ID of the request in the record, then replaces the keys in the text.

    A formatter for a binary protocol may return bytes. What is neither stays as it is.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self.inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of `record` without keys.

        An error of `inner` is part of the text: `logging` would print the record's arguments, keys included.
        """
        _add_request_id(record)
        try:
            text: Any = self.inner.format(record)
        except Exception as error:
            fields = {name: getattr(record, name, "-") for name in ("name", "levelno", "levelname", "request_id")}
            fields["msg"] = f"cannot format a log record ({_place(record)}): {type(error).__name__}"
            text = self.inner.format(logging.makeLogRecord(fields))
        if isinstance(text, bytes):
            return without_keys(text.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")  # type: ignore[return-value]
        return without_keys(text) if isinstance(text, str) else text


def redact(app: Flask, watcher: KeyringWatcher) -> None:
    """Keep the keys of `watcher` out of what the handlers of all loggers write."""
    _watchers[:] = [other for other in _watchers if other() is not None] + [ref(watcher)]
    for logger in (logging.getLogger(), app.logger, *list(logging.Logger.manager.loggerDict.values())):
        handlers = [*getattr(logger, "handlers", ())]  # a placeholder for the parent of a logger has none
        for handler in handlers:
            target = getattr(handler, "target", None)  # of a MemoryHandler
            if isinstance(target, logging.Handler) and target not in handlers:
                handlers.append(target)
            if not isinstance(handler.formatter, RedactingFormatter):
                handler.setFormatter(RedactingFormatter(handler.formatter or logging.Formatter()))
            if type(handler).handleError is logging.Handler.handleError:
                handler.handleError = _report_failure


def _report_failure(record: logging.LogRecord) -> None:
    """Say that a record could not be written: `logging` would print it and its arguments, keys included."""
    if logging.raiseExceptions and sys.stderr:
        reason = type(sys.exc_info()[1]).__name__
        with suppress(OSError, ValueError):
            print(f"cannot write a log record ({_place(record)}): {reason}", file=sys.stderr)


def _place(record: logging.LogRecord) -> str:
    return f"{record.name}, {record.filename}:{record.lineno}"


def without_keys(text: str) -> str:
    """Return `text` without the keys of any app in this process."""
    for reference in _watchers:
        if watcher := reference():
            text = redacted(text, watcher.keyring.keys)
    return text


def redacted(text: str, keys: Iterable[Key]) -> str:
    """Return `text` with the fingerprint of each key of `keys`, and of anything that looks like a generated key."""
    for key in keys:
        for form in _forms(key.text):
            if form in text:
                text = text.replace(form, f"[key {key.fingerprint}]")
    return KEY_PATTERN.sub(lambda match: f"[key {Key(match[0]).fingerprint}]", text) if "fsk_" in text else text


@lru_cache(maxsize=64)
def _forms(text: str) -> tuple[str, ...]:
    """Return how a key may be written in a log: as it is, in a repr, in JSON, in a URL; for most keys, all are one."""
    forms = {text, repr(text)[1:-1], repr(text.encode())[2:-1], json.dumps(text)[1:-1]}
    forms |= {quote(text), quote(text, safe=""), quote_plus(text)}
    forms |= {json.dumps(form)[1:-1] for form in forms}  # the log in production is JSON
    return tuple(sorted(forms, key=len, reverse=True))
