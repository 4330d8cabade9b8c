"""No log shows a key: in its place stands the key's fingerprint.

The filter rewrites the message, its arguments, and the text of a traceback, for every logger and
handler that it is given to.
"""

import logging
from collections.abc import Iterable

from .secret_key.key import MINTED, Key
from .secret_key.live import LiveRing

LOGGERS = ("werkzeug", "gunicorn.error", "gunicorn.access")
"""Loggers of the servers; they may have handlers of their own."""


class Redaction(logging.Filter):
    """A filter that lets everything through, without the keys of `live` or anything shaped like one."""

    def __init__(self, live: LiveRing) -> None:
        super().__init__()
        self._live = live

    def filter(self, record: logging.LogRecord) -> bool:
        """Put fingerprints in the place of keys in `record`."""
        keys = self._live.ring.keys
        message = record.getMessage()
        clean = redacted(message, keys)
        if clean != message:
            record.msg, record.args = clean, ()
        if record.exc_info and not record.exc_text:
            text = _FORMATTER.formatException(record.exc_info)
            clean = redacted(text, keys)
            if clean != text:
                record.exc_info, record.exc_text = None, clean
        if record.stack_info:
            record.stack_info = redacted(record.stack_info, keys)
        return True


def redacted(text: str, keys: Iterable[Key]) -> str:
    """`text` with the fingerprint of each key of `keys`, and of all that looks like a minted key."""
    for key in keys:
        for form in (key.text, repr(key.text)[1:-1]):
            text = text.replace(form, _shown(key))
    return MINTED.sub(lambda match: _shown(Key(match[0])), text) if "fsk_" in text else text


def init_app(live: LiveRing, loggers: Iterable[logging.Logger]) -> None:
    """Keep the keys of `live` out of what `loggers`, and the servers, log."""
    redaction = Redaction(live)
    for logger in (*loggers, *map(logging.getLogger, LOGGERS)):
        for place in (logger, *logger.handlers):
            for old in [f for f in place.filters if isinstance(f, Redaction)]:
                place.removeFilter(old)
            place.addFilter(redaction)


def _shown(key: Key) -> str:
    return f"[key {key.fingerprint}]"


_FORMATTER = logging.Formatter()
