"""No log shows a key: in its place stands the key's fingerprint.

The filter rewrites a record's message, the text of its traceback and its extra fields, for every logger
and handler that it is given to.
"""

import json
import logging
from collections.abc import Iterable
from functools import lru_cache
from traceback import format_exception
from urllib.parse import quote

from .secret_key.key import MINTED, Key
from .secret_key.live import LiveRing

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
            text = str(getattr(record, name))
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


def without_keys(error: Exception, keys: Iterable[Key]) -> Exception:
    """`error` itself; where its traceback would show a key, one like it that does not."""
    shown = "".join(format_exception(error))
    if redacted(shown, keys) == shown:
        return error
    like_it: type[Exception] = type(type(error).__name__, (Exception,), {})
    return like_it(redacted(str(error), keys)).with_traceback(error.__traceback__)


def init_app(live: LiveRing, loggers: Iterable[logging.Logger]) -> None:
    """Keep the keys of `live` out of what `loggers`, and the servers, log."""
    redaction = Redaction(live)
    for logger in (*loggers, *map(logging.getLogger, LOGGERS)):
        for place in (logger, *logger.handlers):
            for old in [f for f in place.filters if isinstance(f, Redaction)]:
                place.removeFilter(old)
            place.addFilter(redaction)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        # Logging itself would print such arguments, key and all, and go on; so does this, without them.
        record.msg, record.args = f"{record.msg} (its arguments do not fit)", ()
        return record.msg


@lru_cache(maxsize=64)
def _forms(text: str) -> frozenset[str]:
    """How a key can stand in a log: as it is, in a repr, in JSON, in an address; mostly that is one form."""
    written = repr(text)[1:-1], repr(text.encode())[2:-1], json.dumps(text)[1:-1], quote(text)
    return frozenset({text, *written})


def _shown(key: Key) -> str:
    return f"[key {key.fingerprint}]"
