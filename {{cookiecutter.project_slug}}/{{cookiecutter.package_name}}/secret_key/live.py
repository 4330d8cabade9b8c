"""The ring of a running app: follows its file and the clock, and keeps Flask's settings right.

A key file (or `.env`) is looked at once in a few seconds, by one `stat`; a rotation is then seen with
no restart. A file that went bad is logged once, and the last good ring serves on.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from flask import Flask
from flask.signals import appcontext_pushed

from . import handover
from .key import Key
from .keyring import Keyring, RingRefused
from .source import Source, read_ring
from .store import is_absent

EXTENSION = "secret_key"
INTERVAL = 5.0
"""Seconds between two looks at the file, by default."""

_log = logging.getLogger(__name__)
_FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The keys of a moment. The same object until one of them changes its part."""

    signing: Key
    verifying: tuple[Key, ...]
    """All that verify, the signing key among them, newest first."""


class KeyText(str):
    """A key's text for Flask: `repr` shows the fingerprint, so no dump of `app.config` shows the key."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(Key(str(self)))


class LiveRing:
    """The ring of a running app; any thread may ask it. `interval` in seconds."""

    def __init__(
        self,
        source: Source,
        ring: Keyring,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self.ring = ring
        self._interval = interval
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._seen: object = None
        self._refusal = ""
        self._look_at = 0.0
        self._listeners: list[Callable[[Snapshot], None]] = []
        self._snapshot = self._at(clock())

    def __repr__(self) -> str:
        return f"<LiveRing from {self.source!r}>"

    @property
    def now(self) -> float:
        """The moment, in seconds since the epoch, by the clock that this ring goes by."""
        return self._clock()

    def on_change(self, listener: Callable[[Snapshot], None]) -> None:
        """Call `listener` with the keys now, and again at every change of them."""
        self._listeners.append(listener)
        listener(self._snapshot)

    def current(self) -> Snapshot:
        """The keys of this moment. Cheap: two readings of a clock, unless something is due."""
        due = self._clock() >= self._change_at or self._monotonic() >= self._look_at
        # One thread looks; the others serve with what they have, which is still right.
        if due and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._snapshot

    def _look(self) -> None:
        self._look_at = self._monotonic() + self._interval
        self._follow_file()
        snapshot = self._at(self._clock())
        if snapshot != self._snapshot:
            self._snapshot = snapshot
            for listener in self._listeners:
                listener(snapshot)

    def _follow_file(self) -> None:
        identity = _identity(self.source.path)
        if identity == self._seen:
            return
        try:
            ring = read_ring(self.source, self.ring.retention)
            handover.keep(ring)
            if self._refusal:
                _log.info("The secret key in %r is good again", self.source)
            self._seen, self._refusal = identity, ""
        except RingRefused as refusal:
            # The file is not seen: what kept it from being read may pass and leave it as it is.
            if str(refusal) != self._refusal:
                self._refusal = str(refusal)
                _log.error("The last good secret key serves on, for: %s", self._reason(refusal))
            ring = handover.last_good(self.ring.retention) or self.ring
        if ring != self.ring:
            self.ring = ring
            _log.info("The ring has changed: %s (from %r)", ring.described(self._clock()), self.source)

    def _reason(self, refusal: RingRefused) -> str:
        """What is wrong, and what mends it without a logout."""
        path = self.source.path
        gone = path is not None and is_absent(path)
        return f"{path} is gone; put it back, as a new key logs everybody out" if gone else str(refusal)

    def _at(self, now: float) -> Snapshot:
        self._change_at = self.ring.next_change(now) or _FOREVER
        return Snapshot(self.ring.signing(now), self.ring.verifying(now))


def init_app(app: Flask, live: LiveRing) -> None:
    """Keep `SECRET_KEY`, `SECRET_KEY_FALLBACKS` and Flask-WTF's key of `app` right at every request.

    Flask and its extensions read them at request time. The fallbacks hold every key that verifies,
    the signing one too, and come first: whichever of the two a thread reads before a change and
    after it, the ring it sees has all the keys it needs.
    """

    def publish(snapshot: Snapshot) -> None:
        oldest_first = [KeyText(key.text) for key in reversed(snapshot.verifying)]
        signing = KeyText(snapshot.signing.text)
        app.config["SECRET_KEY_FALLBACKS"] = oldest_first
        app.config["WTF_CSRF_SECRET_KEY"] = [*oldest_first, signing]
        app.config["SECRET_KEY"] = signing

    def follow(_: Flask) -> None:
        live.current()

    live.on_change(publish)
    appcontext_pushed.connect(follow, app, weak=False)
    app.extensions[EXTENSION] = live


def live_ring(app: Flask) -> LiveRing:
    """The ring that `init_app` gave to `app`."""
    live: LiveRing = app.extensions[EXTENSION]
    return live


def _identity(path: str | None) -> object:
    """What tells one state of a file from another: the file itself, and when it was last touched.

    Variables (`path` is None) never change.
    """
    if path is None:
        return ()
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
