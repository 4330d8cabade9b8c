"""No log and no debugger's page shows a key: in its place stands the key's fingerprint.

The filter rewrites a record's message, the text of its traceback and its extra fields, for every logger
and handler that it is given to; in debug mode an exception is rewritten on its way to the debugger.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from traceback import format_exception, format_tb
from typing import TYPE_CHECKING
from urllib.parse import quote

from flask import Flask
from werkzeug.wsgi import ClosingIterator

from .secret_key.key import Key
from .secret_key.live import LiveRing
from .secret_key.minted import MINTED

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

LOGGERS = ("werkzeug", "gunicorn.error", "gunicorn.access")
"""Loggers of the servers; they may have handlers of their own."""

_OF_EVERY_RECORD = vars(logging.makeLogRecord({})).keys() - {"stack_info"}
_FORMATTER = logging.Formatter()


class Redaction(logging.Filter):
    """A filter that lets everything through, without the keys of `live` or anything shaped like one."""

    def __init__(self, live: LiveRing) -> None:
        super().__init__()
        self._live = live

    def filter(self, record: logging.LogRecord) -> bool:
        """Put fingerprints in the place of keys in `record`; one without a key stays as it is."""
        keys = self._live.ring.keys
        message = _message(record)
        clean_message = redacted(message, keys)
        if clean_message != message:
            record.msg, record.args = clean_message, ()
        if record.exc_info or record.exc_text:
            # A handler that ran before may have left the text of the traceback as it was.
            text = record.exc_text or _FORMATTER.formatException(record.exc_info or (None, None, None))
            clean = redacted(text, keys)
            if clean != text:
                record.exc_info, record.exc_text = None, clean
        for name in vars(record).keys() - _OF_EVERY_RECORD:
            text = _text(getattr(record, name))
            if text not in clean_message:  # which has no key
                clean = redacted(text, keys)
                if clean != text:
                    setattr(record, name, clean)
        return True


def redacted(text: str, keys: Iterable[Key]) -> str:
    """`text` with the fingerprint of each key of `keys`, and of all that looks like a minted key."""
    for key in keys:
        for form in _forms(key.text):
            if form in text:
                text = text.replace(form, _shown(key))
    return MINTED.sub(lambda match: _shown(Key(match[0])), text) if "fsk_" in text else text


@contextmanager
def errors_without_keys(live: LiveRing) -> Iterator[None]:
    """In the place of an exception whose traceback would show a key comes one like it that does not."""
    try:
        yield
    except Exception as error:
        keys = live.ring.keys
        if _is_clean(format_exception(error), keys):
            raise
        like_it: type[Exception] = type(type(error).__name__, (Exception,), {})
        trace = error.__traceback__ if _is_clean(format_tb(error.__traceback__), keys) else None
        raise like_it(redacted(_text(error), keys)).with_traceback(trace) from None


def init_app(app: Flask, live: LiveRing) -> None:
    """Keep the keys of `live` out of what `app`, the servers and the debugger log, and out of its page."""
    redaction = Redaction(live)
    for logger in (app.logger, logging.getLogger(), *map(logging.getLogger, LOGGERS)):
        for place in (logger, *logger.handlers):
            for old in [f for f in place.filters if isinstance(f, Redaction)]:
                place.removeFilter(old)
            place.addFilter(redaction)
    serve = app.wsgi_app

    def debugged(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterator[bytes]:
        with errors_without_keys(live), closing(ClosingIterator(serve(environ, start_response))) as parts:
            yield from parts

    def served(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        return (debugged if app.debug else serve)(environ, start_response)

    app.wsgi_app = served  # type: ignore[method-assign]


def _is_clean(lines: Iterable[str], keys: Iterable[Key]) -> bool:
    text = "".join(lines)
    return redacted(text, keys) == text


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # logging itself would go on, and so does this
        return f"(a text that cannot be made: {type(error).__name__})"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        # Logging itself would print such arguments, key and all, and go on; so does this, without them.
        record.msg, record.args = f"{_text(record.msg)} (its arguments do not fit)", ()
        return record.msg


@lru_cache(maxsize=64)
def _forms(text: str) -> frozenset[str]:
    """How a key can stand in a log: as it is, in a repr, in JSON, in an address; mostly that is one form."""
    written = repr(text)[1:-1], repr(text.encode())[2:-1], json.dumps(text)[1:-1], quote(text)
    return frozenset({text, *written})


def _shown(key: Key) -> str:
    return f"[key {key.fingerprint}]"
