"""What gunicorn.conf.py needs: a master that validates the settings, keeps the last valid ones, and forks.

The master validates before it forks, because gunicorn restarts a worker that refuses again and again. It refreshes
its settings at each HUP, before each fork, and when the key file has changed. While `.env` or the key file is
invalid, workers start with the last valid settings, so a bad file ends no server. A revoked key comes back in one
case: the file turns invalid within SECRET_KEY_INTERVAL of the revocation, before the master has seen it, and a
worker starts then. It signs until the file is valid again.
"""

import json
import logging
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from gunicorn.glogging import Logger
from gunicorn.util import set_owner_process

from . import inherited
from .keys.files import FileError, read_text
from .keys.sources import identity
from .keys.text import message
from .settings import Settings, SettingsError

_PROJECT = __name__.split(".")[0]


class Master:
    """The hooks of a gunicorn master, for the settings class `cls`. Refuses to start if they are invalid."""

    def __init__(self, cls: type[Settings]) -> None:
        self._class, self._problem = cls, ""
        self._seen: object = None
        try:
            self.settings = self._refreshed()
        except SettingsError as error:
            try:
                if not inherited.last_valid:
                    raise
                self._problem, self.settings = error.message, cls.load()
            except SettingsError:  # or the new code needs what the last valid settings lack
                sys.exit(error.message)
        self.logger_class = JsonLogger if self.settings.production else Logger
        for name in list(sys.modules):  # workers import the code that is there after a reload
            if name.split(".")[0] == _PROJECT and name != inherited.__name__:
                del sys.modules[name]

    def on_starting(self, server: Any) -> None:
        """Refuse to start if the workers' user cannot read the key file."""
        path = self.settings.keyring_source.path
        if path and (problem := _problem_for_workers(server.cfg, path)):
            if server.pidfile:
                server.pidfile.unlink()
            hint = "" if "\nhint: " in problem else f"give it read access, for example: chgrp GROUP {path} && chmod 640 {path}"
            sys.exit(message(f"user {server.cfg.uid} of the workers", problem, hint))

    def pre_fork(self, server: Any, worker: Any = None) -> None:
        """Refresh what the new worker inherits; keep the last valid settings if the new ones are invalid."""
        # The timer would do the same in the middle of it: then an older keyring could win, or a lock never be free.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        try:
            self._refresh(server)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _refresh(self, server: Any) -> None:
        before = inherited.last_valid
        try:
            settings = self._refreshed()
            self._problem = ""
            if before != inherited.last_valid:
                server.log.info("Workers start with the keyring: %s", settings.keyring.summary(time.time()))
        except SettingsError as error:
            if error.message != self._problem:
                self._problem = error.message
                server.log.error("Keeping the last valid settings: %s", error.message)
        preloaded = getattr(server.app, "callable", None)
        # Workers get it by fork, instead of creating an app of their own.
        if watcher := getattr(preloaded, "extensions", {}).get("secret_key"):
            watcher.refresh()

    def post_fork(self, server: Any, worker: Any) -> None:
        """Leave the timer to the master."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def on_ready(self, server: Any) -> None:
        """Follow the key file, and log once for the whole server what an app alone logs at its start."""
        signal.signal(signal.SIGALRM, lambda *_: self._follow(server))
        signal.setitimer(signal.ITIMER_REAL, *[self.settings.keyring_interval] * 2)
        for level, line in self.settings.notices(time.time()):
            server.log.log(level, "%s", line)
        if self._problem:
            server.log.error("Keeping the last valid settings: %s", self._problem)

    def _follow(self, server: Any) -> None:
        """Refresh what workers inherit if the key file has changed: one `stat` per interval."""
        before, self._seen = self._seen, identity(self.settings.keyring_source)
        if before != self._seen:
            self.pre_fork(server)

    def _refreshed(self) -> Settings:
        """Read the settings again, for the workers to inherit. Raises SettingsError."""
        settings = self._class.load(os.environ)
        if not settings.dotenv and inherited.last_valid and inherited.last_valid[0]:
            raise SettingsError([message(".env", "missing or empty", "restart the server if that is intended")])
        inherited.last_valid = (settings.dotenv, tuple(key.text for key in settings.keyring.keys))
        return settings


class JsonLogger(Logger):
    """gunicorn's logger; it writes a JSON object per line, as the app does."""

    def setup(self, cfg: Any) -> None:
        """Set the handlers up as gunicorn does, then their format."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(_JsonLines())


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": at, "level": record.levelname, "logger": record.name, "message": super().format(record)}
        return json.dumps(line)


def number(name: str, default: int) -> int:
    """Return a whole number above zero from the environment, or refuse to start."""
    text = os.environ.get(name) or str(default)
    reason = f"must be a whole number above zero, such as {default}"
    return int(text) if text.isdecimal() and int(text) else sys.exit(message(name, reason))


def bind() -> str:
    """Return where to listen: on PORT of every IPv4 and IPv6 address, or on 127.0.0.1:8000 if PORT is not set."""
    if port := os.environ.get("PORT"):
        return f"[::]:{port}" if socket.has_dualstack_ipv6() else f"0.0.0.0:{port}"
    return "127.0.0.1:8000"


def worker_tmp_dir() -> str | None:
    """Return a folder in memory for the workers' sign of life: a disk may be read-only or slow."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108


def _problem_for_workers(cfg: Any, path: str) -> str:
    """Return why a process with the user and group of a worker would refuse a key file; "" if it would not."""
    if (cfg.uid, cfg.gid) == (os.geteuid(), os.getegid()) or not os.path.isfile(path):  # a pipe can be read once
        return ""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        problem = "this process may not become that user\nhint: start gunicorn as root, or without --user and --group"
        try:
            with suppress(OSError):
                set_owner_process(cfg.uid, cfg.gid, initgroups=cfg.initgroups)
                problem = ""
                read_text(path)
        except FileError as error:
            problem = str(error)
        finally:
            with suppress(OSError):
                os.write(writer, os.fsencode(problem))
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8", errors="surrogateescape") as answer:
        problem = answer.read()
    os.waitpid(child, 0)
    return problem
