"""A server on a loopback port of its own, and one request to it."""

import http.client
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import NamedTuple

LIMIT = 60.0
"""Seconds after which a wait gives up: later than gunicorn on a worker that missed the signal to end."""


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    body: str
    cookies: dict[str, str]


class Server(NamedTuple):
    """A running server, and where its output goes."""

    port: int
    log: Path
    certificate: Path | None
    """What a TLS server is known by."""

    @property
    def url(self) -> str:
        """The address of its start page."""
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}/"

    def get(self, path: str = "/", **cookies: str) -> Answer:
        """One request, on its own connection. Raises OSError where nobody answers."""
        address = ("127.0.0.1", self.port)
        if self.certificate:
            trust = ssl.create_default_context(cafile=self.certificate)
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(*address, context=trust)
        else:
            connection = http.client.HTTPConnection(*address)
        connection.timeout = LIMIT
        cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
        try:
            connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
            response = connection.getresponse()
            body = response.read().decode()
        finally:
            connection.close()
        given = SimpleCookie("; ".join(response.headers.get_all("Set-Cookie", [])))
        return Answer(response.status, body, {name: morsel.value for name, morsel in given.items()})


@contextmanager
def serving(
    *command: str,
    folder: Path,
    log: Path,
    environment: Mapping[str, str],
    certificate: Path | None = None,
) -> Iterator[Server]:
    """Run `command`, in which PORT stands for a free port, until the block ends."""
    server = Server(free_port(), log, certificate)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [part.replace("PORT", str(server.port)) for part in command],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until(lambda: _answers(server, process), f"an answer to {command[0]}")
        yield server
    finally:
        end(process)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: "subprocess.Popen[bytes]") -> None:
    """End the leader of a process group; kill the whole group where it does not end."""
    process.terminate()
    try:
        process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Ask `condition` again and again; fail after LIMIT seconds.

    What takes long to ask gets as long a rest, so that the asking does not slow down what it waits for.
    """
    end = time.monotonic() + LIMIT
    asked = time.monotonic()
    while not condition():
        now = time.monotonic()
        assert now < end, f"{what}: not within {LIMIT:.0f} s"
        time.sleep(max(0.02, now - asked))
        asked = time.monotonic()


def _answers(server: Server, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, f"it ended with {process.returncode}\n{server.log.read_text('utf-8')}"
    try:
        server.get()
    except OSError:
        return False
    return True
