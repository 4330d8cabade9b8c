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
from package import LEAD, Key, KeyFile, Keyring, live, mint, sessions
from redis import Redis
from werkzeug.test import TestResponse

DAY = 86400
NOW = 1_800_000_000
LIFETIME, ABSOLUTE = 7 * DAY, 30 * DAY
FIRST, SECOND = mint(NOW - 1000), mint(NOW + LEAD)
PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")
SOON = 10.0
"""Seconds after which a wait gives up."""


class RedisServer:
    """A real server on a port of its own, which keeps nothing on a disk."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"redis://127.0.0.1:{self.port}/0"
        self.client = Redis(port=self.port)
        self._folder = folder
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert PROGRAM
        place = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder))
        command = (PROGRAM, *place, "--save", "", "--appendonly", "no")
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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

    def pause(self) -> None:
        """Have it accept connections and answer nothing."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)  # until it has stopped

    def pass_(self, seconds: float) -> None:
        """Let time go by for all that it holds."""
        for key in self.client.scan_iter():
            left = self.client.pttl(key)
            self.client.pexpire(key, int(left - seconds * 1000))


def wait_until(condition: Callable[[], object]) -> None:
    """Ask `condition` again and again; fail after some seconds."""
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.02)


class Site:
    """An app with one store, whose ring, clock and users are in the test's hand."""

    def __init__(
        self, store: str, folder: Path, redis: RedisServer | None = None, environment: str = "testing"
    ) -> None:
        self.store = store
        self.now = float(NOW)
        self.versions: dict[sessions.User, int] = {"ann": 1, "bob": 1}
        self._redis = redis
        self._folder = folder
        self._file = folder / "ring"
        self._absolute = ABSOLUTE
        self.has(FIRST)
        self.app = self._instance(environment)

    def lives(self, absolute: int) -> None:
        """Start the app anew, with another absolute lifetime."""
        self._absolute = absolute
        self.app = self._instance("testing")

    def _instance(self, environment: str, ahead: float = 0) -> Flask:
        app = Flask("site")
        app.config.update(
            APP_ENV=environment,
            PERMANENT_SESSION_LIFETIME=LIFETIME,
            SESSION_ABSOLUTE_LIFETIME=self._absolute,
            SESSION_READ_SHA1=False,
        )
        ring = live.LiveRing(KeyFile(str(self._file)), Keyring(self._keys), 0, clock=lambda: self.now + ahead)
        live.init_app(app, ring)
        place = self._redis.address if self._redis else self.store
        sessions.init_app(app, ring, place, self.versions.get)
        app.register_error_handler(503, lambda error: error)
        app.add_url_rule("/", view_func=_page)
        return app

    def instance_ahead(self, seconds: float) -> Flask:
        """Another instance of the app, whose clock is ahead."""
        return self._instance("testing", seconds)

    def has(self, *keys: Key) -> None:
        """Put `keys`, newest first, in the place of the ring."""
        self._keys = keys
        new = self._folder / "new-ring"
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

    def held(self) -> dict[str, Any]:
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
