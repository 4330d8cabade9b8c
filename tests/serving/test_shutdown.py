"""No request is lost when workers are replaced, an instance stops, or another one replaces it.

`pytest -rP` shows how many requests each test has sent.
"""

import http.client
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from baking import Bake
from running import APPS, Server
from serving import LIMIT, wait_until

CLIENTS = 8
PAUSE = 0.03
"""Seconds that a client waits between two requests."""
SECONDS = 0.1
"""What one request of ten takes."""
BALANCER_DELAY = 0.5
"""Seconds from taking an instance out of the balancer to its stop: preStop, deregistration delay."""

ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
"""How systemd starts a service with a socket (sd_listen_fds): as descriptor 3."""

workers = pytest.mark.parametrize("worker", ["sync", "gthread"])


class Load:
    """Clients that send requests to the ports of a balancer as long as the block runs."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self.sent = 0
        self.failures: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(n,), daemon=True) for n in range(CLIENTS)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        self.more(CLIENTS)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(LIMIT)
        print(f"{self.sent} requests, {len(self.failures)} failed")

    def more(self, requests: int) -> None:
        """Wait until so many more requests are answered."""
        goal = self.sent + requests
        wait_until(lambda: self.sent >= goal or self.failures, f"{requests} more answers")

    def _send(self, number: int) -> None:
        turn = number
        while not self._over.wait(PAUSE):
            ports = self.ports
            turn += 1
            path = f"/count?seconds={SECONDS}" if turn % 10 == 0 else "/count"
            try:
                status = ask(ports[turn % len(ports)], path)
            except (OSError, http.client.HTTPException) as error:
                status = repr(error)
            self.sent += 1
            if status != "200":
                self.failures.append(status)


def ask(port: int, path: str) -> str:
    """The status of one request, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return str(response.status)
    finally:
        connection.close()


@contextmanager
def instances(bake: Bake, folder: Path, worker: str, count: int) -> Iterator[list[Server]]:
    """Run instances until the block ends."""
    flags = ("--workers", "2", "--worker-class", worker)
    servers: list[Server] = []
    variables = {"SECRET_KEY": secrets.token_hex(32)}
    try:
        for number in range(count):
            log = folder / f"log-{number}"
            servers.append(Server(bake, log, variables, *flags, app="visited:app()"))
        yield servers
    finally:
        for server in servers:
            server.stop()


@workers
def test_reload(shared: Bake, tmp_path: Path, worker: str) -> None:
    """A reload under load loses no request."""
    with instances(shared, tmp_path, worker, 1) as (server,), Load([server.port]) as load:
        for _ in range(2):
            server.reload()
            load.more(150)
    assert load.failures == []


@workers
def test_stop(shared: Bake, tmp_path: Path, worker: str) -> None:
    """An instance that is told to stop answers the requests that it has taken."""
    with instances(shared, tmp_path, worker, 1) as (server,):
        answers: list[str] = []
        threads = [
            threading.Thread(target=lambda: answers.append(ask(server.port, "/count?seconds=1"))) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        time.sleep(SECONDS)
        server.stop()
        for thread in threads:
            thread.join(LIMIT)
    assert answers == ["200", "200"]


@workers
def test_rolling_replacement(shared: Bake, tmp_path: Path, worker: str) -> None:
    """Two instances are replaced, one after the other; no request is lost."""
    with instances(shared, tmp_path, worker, 4) as servers, Load([s.port for s in servers[:2]]) as load:
        for old, new in zip(servers[:2], servers[2:], strict=True):
            load.more(100)
            load.ports = [port for port in (*load.ports, new.port) if port != old.port]
            time.sleep(BALANCER_DELAY)
            old.stop()
        load.more(100)
    assert load.failures == []


class Unit:
    """What systemd does: it holds the socket, starts the service with it, and waits for READY=1."""

    def __init__(self, bake: Bake, folder: Path) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.settimeout(LIMIT)
        self._notify.bind(str(folder / "notify"))
        self._bake = bake
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = {
            **bake.environment,
            "APP_ENV": "production",
            "SECRET_KEY": secrets.token_hex(32),
            "NOTIFY_SOCKET": str(folder / "notify"),
            "LISTEN_FDS": "1",
            "PROJECT": bake.package.name,
            "PYTHONPATH": str(APPS),
        }

    def start(self) -> None:
        """Start the service, and wait until it is ready."""
        descriptor = self._listener.fileno()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    ACTIVATE,
                    str(descriptor),
                    self._bake.program("gunicorn"),
                    "visited:app()",
                ],
                cwd=self._bake.path,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[descriptor],
                start_new_session=True,
            )
        while b"READY=1" not in self._notify.recv(4096):
            pass

    def stop(self) -> None:
        """Stop the service; the socket stays open."""
        if self._process:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(LIMIT)

    def close(self) -> None:
        """Stop the service and close the socket."""
        self.stop()
        self._listener.close()
        self._notify.close()


def test_systemd_socket(shared: Bake, tmp_path: Path) -> None:
    """A restart behind a socket that systemd holds loses no request."""
    unit = Unit(shared, tmp_path)
    try:
        unit.start()
        with Load([unit.port]) as load:
            for _ in range(2):
                unit.stop()
                unit.start()
                load.more(CLIENTS)
        assert load.failures == []
    finally:
        unit.close()
