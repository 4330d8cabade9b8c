"""The keyring of a running app: it follows its file and the clock, and keeps Flask's settings up to date.

The file is checked with one `stat` per interval, so an app sees a rotation without a restart. While the file is
unreadable or invalid, the app keeps the last valid keyring and logs this once.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, cast

from flask import Flask
from flask.signals import appcontext_pushed

from .files import is_absent
from .key import Key
from .keyring import InvalidKeyringError, Keyring
from .sources import Source, UnreadableKeyringError, identity, read_keyring
from .text import SecretStr, message

EXTENSION = "secret_key"
INTERVAL = 5.0
"""Seconds between two looks at the file, by default."""
SETTLED = 2.0
"""Seconds without a change after which a file counts as complete."""

_log = logging.getLogger(__name__)


class ActiveKeys(NamedTuple):
    """The keys of a moment. The same object until one of them changes its state."""

    signing: Key
    verifying: tuple[Key, ...]
    """All keys that verify, including the signing key, newest first."""


def _time() -> float:
    """Look the clock up at each call: a test may have frozen it."""
    return time.time()


class KeyringWatcher:
    """The keyring of a running app; any thread may ask it. `interval` in seconds; `seen` is the file's `identity`."""

    def __init__(
        self,
        source: Source,
        keyring: Keyring,
        interval: float = INTERVAL,
        clock: Callable[[], float] = _time,
        monotonic: Callable[[], float] = time.monotonic,
        seen: tuple[int, ...] = (),
    ) -> None:
        self.source, self.keyring = source, keyring
        self._interval, self._clock, self._monotonic = interval, clock, monotonic
        self._lock = threading.Lock()
        self._seen, self._inode, self._shrunk = seen, seen[:2], tuple[int, ...]()
        self._problem = ""
        self._look_at = 0.0
        self._listeners: list[Callable[[ActiveKeys], None]] = []
        self._active = self._at(clock())

    def __repr__(self) -> str:
        return f"<KeyringWatcher of {self.source!r}>"

    @property
    def now(self) -> float:
        """The time in seconds since the epoch, by the clock of this keyring."""
        return self._clock()

    def on_change(self, listener: Callable[[ActiveKeys], None]) -> None:
        """Call `listener` with the keys now, and again whenever they change."""
        self._listeners.append(listener)
        listener(self._active)

    def current(self) -> ActiveKeys:
        """Return the keys of this moment. Cheap: two clock readings, unless something is due."""
        due = self._clock() >= self._change_at or self._monotonic() >= self._look_at
        if due and self._lock.acquire(
            blocking=False
        ):  # the other threads use the keys they have, which are still right
            try:
                self._look()
            finally:
                self._lock.release()
        return self._active

    def refresh(self) -> ActiveKeys:
        """Read the file now if it has changed, whatever the interval; for a test or a job."""
        with self._lock:
            self._look()
        return self._active

    def _look(self) -> None:
        self._look_at = self._monotonic() + self._interval
        self._follow_file()
        active = self._at(self._clock())
        if active != self._active:
            self._active = active
            for listener in self._listeners:
                listener(active)

    def _follow_file(self) -> None:
        found = identity(self.source)
        if found == self._seen:
            return
        in_place, self._inode = found[:2] == self._inode, found[:2]
        try:
            keyring = read_keyring(self.source, self.keyring.retention)
            # Hexadecimal text has no checksum: refuse a key that is the beginning of one that was there.
            for new in set(keyring.keys) - set(self.keyring.keys):
                if any(old.text.startswith(new.text) for old in self.keyring.keys):
                    reason = f"key {new.fingerprint} is the beginning of a key that was there before"
                    raise InvalidKeyringError([message(repr(self.source), reason, "write the whole key")])
        except InvalidKeyringError as error:
            # The same invalid content is not validated again; what was unreadable may have become readable.
            self._seen = () if isinstance(error, UnreadableKeyringError) else found
            path = self.source.path
            gone = path is not None and is_absent(path)
            hint = "put the file back; a new key would log everyone out"
            self._keep(message(str(path), "no such file", hint) if gone else str(error))
            return
        if in_place and self._is_half_written(keyring, found):
            return
        self._seen = found
        if self._problem:
            self._problem = ""
            _log.info("The secret key in %r is valid again", self.source)
        if keyring != self.keyring:
            self.keyring = keyring
            _log.info("The keyring has changed: %s (from %r)", keyring.summary(self._clock()), self.source)

    def _keep(self, reason: str) -> None:
        if reason != self._problem:
            self._problem = reason
            _log.error("Keeping the last valid secret key: %s", reason)

    def _is_half_written(self, keyring: Keyring, found: tuple[int, ...]) -> bool:
        """Whether someone may still be writing the file: a key that verified is missing, in the same inode.

        The file is accepted when it is unchanged at the next look, or for SETTLED seconds.
        """
        lost = not set(self._active.verifying) <= set(keyring.keys)
        settled = found == self._shrunk or time.time() - max(found[2:4], default=0) / 1e9 > SETTLED
        if not lost or settled:
            return False
        self._shrunk = found
        self._keep(message(repr(self.source), "keys are missing, the file may not be complete yet"))
        return True

    def _at(self, now: float) -> ActiveKeys:
        self._change_at = self.keyring.next_change(now) or float("inf")
        return ActiveKeys(self.keyring.signing(now), self.keyring.verifying(now))


def init_app(app: Flask, watcher: KeyringWatcher) -> None:
    """Keep SECRET_KEY, SECRET_KEY_FALLBACKS and Flask-WTF's key of `app` up to date at every request.

    The fallbacks list every key that verifies, the signing key last: libraries that build [SECRET_KEY,
    *SECRET_KEY_FALLBACKS] sign with the last entry. They are set first: a thread between still sees every key it needs.
    """
    config = app.config  # not the app itself: it would keep itself alive

    def publish(active: ActiveKeys) -> None:
        signing = SecretStr(active.signing.text)
        keys = [SecretStr(key.text) for key in reversed(active.verifying) if key != active.signing] + [signing]
        config["SECRET_KEY_FALLBACKS"] = keys
        config["WTF_CSRF_SECRET_KEY"] = [*keys]
        config["SECRET_KEY"] = signing

    def follow(_: Flask) -> None:
        watcher.current()

    watcher.on_change(publish)
    appcontext_pushed.connect(follow, app)  # a weak reference: the app owns it
    app.extensions[EXTENSION] = watcher
    app.extensions[f"{EXTENSION}.follow"] = follow


def get_watcher(app: Flask) -> KeyringWatcher:
    """Return the watcher that `init_app` gave to `app`."""
    return cast("KeyringWatcher", app.extensions[EXTENSION])
