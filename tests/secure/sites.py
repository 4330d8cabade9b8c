"""An app with a session store, its visitors, and a real server for the store that needs one."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask, request, session
from redis import Redis
from secure import sessions
from secure.keys import watcher
from secure.keys.key import Key, generate_key
from secure.keys.keyring import ACTIVATION_DELAY, Keyring
from secure.keys.sources import FileSource
from werkzeug.test import TestResponse

DAY = 86400
NOW = 1_800_000_000
LIFETIME, ABSOLUTE = 7 * DAY, 30 * DAY
FIRST, SECOND = generate_key(NOW - 1000), generate_key(NOW + ACTIVATION_DELAY)
PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")
SOON = 10.0
"""Seconds after which a wait gives up."""


class RedisServer:
    """A real server on a port of its own, which keeps nothing on a disk."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.address = f"redis://127.0.0.1:{self.port}/0"
        self.client = Redis(port=self.port)
        self.apps: list[Any] = []
        self._folder = folder
        self._options = options
        self.start()

    def start(self, *more: str, wait: bool = True) -> None:
        """Start it with `more` options, and wait until it answers."""
        assert PROGRAM
        place = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder))
        kept = () if "--sentinel" in self._options else ("--save", "", "--appendonly", "no")
        command = (PROGRAM, *self._options, *place, *kept, *more)
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if wait:
            wait_until(self._answers)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0 and self.client.ping()

    def stop(self) -> None:
        """End it."""
        self.client.close()
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        self._process.wait(SOON)

    def leave(self) -> None:
        """Close the connections of all apps: one that the garbage collector closes may warn during another test."""
        while self.apps:
            self.apps.pop().session_interface.store._client.close()

    def pause(self) -> None:
        """Have it accept connections and answer nothing."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)  # until it has stopped

    def resume(self) -> None:
        """Let it answer again."""
        self._process.send_signal(signal.SIGCONT)

    def pass_(self, seconds: float) -> None:
        """Let time go by for all that it holds."""
        for key in self.client.scan_iter():
            left = self.client.pttl(key)
            self.client.pexpire(key, int(left - seconds * 1000))


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], object]) -> None:
    """Ask `condition` again and again; fail after some seconds."""
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.02)


class Site:
    """An app with one store, whose keyring, clock and users are in the test's hand."""

    def __init__(
        self,
        store: str,
        folder: Path,
        redis: RedisServer | None = None,
        environment: str = "testing",
        address: str = "",
    ) -> None:
        self.store = store
        self.now = float(NOW)
        self.versions: dict[sessions.User, int] = {"ann": 0, "bob": 0, "zoe": 0}
        self._redis = redis
        self._address = address or (redis.address if redis else store)
        self._folder = folder
        self._file = folder / "keyring"
        self._absolute = ABSOLUTE
        self.has(FIRST)
        self.app = self._instance(environment)

    def lives(self, absolute: int) -> None:
        """Start the app anew, with another absolute lifetime."""
        self._absolute = absolute
        self.app = self._instance("testing")

    def _instance(self, environment: str, ahead: float = 0) -> Flask:
        app = Flask("site", static_folder=None)
        app.config.update(
            APP_ENV=environment,
            PERMANENT_SESSION_LIFETIME=LIFETIME,
            SESSION_ABSOLUTE_TIMEOUT=self._absolute,
            SESSION_READ_SHA1=False,
        )
        keyring = watcher.KeyringWatcher(
            FileSource(str(self._file)), Keyring(self._keys), 0, clock=lambda: self.now + ahead
        )
        watcher.init_app(app, keyring)
        sessions.init_app(app, keyring, self._address, self.versions.get)
        if self._redis:
            self._redis.apps.append(app)
        app.register_error_handler(503, lambda error: error)
        app.add_url_rule("/", view_func=_page)
        return app

    def instance_ahead(self, seconds: float) -> Flask:
        """Another instance of the app, whose clock is ahead."""
        return self._instance("testing", seconds)

    def has(self, *keys: Key) -> None:
        """Replace the keyring by `keys`, newest first."""
        self._keys = keys
        new = self._folder / "new-keyring"
        new.write_text("".join(f"{key.text}\n" for key in keys))
        new.chmod(0o600)
        new.replace(self._file)

    def pass_(self, seconds: float) -> None:
        """Let time go by, for the app and for the server."""
        self.now += seconds
        if self._redis:
            self._redis.pass_(seconds)


def _page() -> str:
    for do in request.environ["do"]:
        do()
    return ""


class Browser:
    """A browser: it keeps the cookie that the last response has set."""

    def __init__(self, site: Site, cookie: str = "") -> None:
        self.site = site
        self.app = site.app
        self.cookie = cookie

    def ask(self, *do: Callable[[], object]) -> TestResponse:
        """One request, in which `do` is what the page does, one after the other."""
        client = self.app.test_client(use_cookies=False)
        headers = {"Cookie": f"session={self.cookie}"} if self.cookie else {}
        response = client.get("/", headers=headers, environ_overrides={"do": do})
        for line in response.headers.getlist("Set-Cookie"):
            self.cookie = line.partition(";")[0].partition("=")[2]
        return response

    def put(self, **values: Any) -> TestResponse:
        """Put `values` into the session."""
        return self.ask(lambda: session.update(values))

    def record(self) -> dict[str, Any]:
        """What the session holds, in a request that changes nothing."""
        found: dict[str, Any] = {}
        assert self.ask(lambda: found.update(session)).status_code == 200
        return {name: value for name, value in found.items() if not name.startswith("_")}

    def user(self) -> Any:
        """Who is signed in."""
        found: list[Any] = []
        self.ask(lambda: found.append(sessions.user()))
        return found[0]

    def sign_in(self, user: sessions.User) -> None:
        """Sign in, as an app would have it."""
        assert self.ask(lambda: sessions.sign_in(user)).status_code == 200

    def copy(self) -> "Browser":
        """What somebody has who copied the cookie, or another request of the same page."""
        return Browser(self.site, self.cookie)
