"""What a request costs: bare Flask doing the same session work, against the baked app in production."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from .measure import Figure, compared
from .project import Project

ROUNDS = 9
REQUESTS = 3000
DEADLINE = 20.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

APPS = {"bare": "bare", "baked, not logging requests": "quiet", "baked": "baked"}

LOOP = """
import io, os, time
from apps import {app}
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the log: what a reader of it does is not measured
from werkzeug.test import EnvironBuilder
wsgi = {app}().wsgi_app
base = EnvironBuilder("{path}", base_url="https://127.0.0.1/").get_environ()
def call(cookie):
    environ = dict(base, **{{"wsgi.input": io.BytesIO()}})
    if cookie: environ["HTTP_COOKIE"] = cookie
    caught = []
    def start(status, headers, exc_info=None):
        assert status.startswith("200"), status
        caught.extend(value.split(";")[0] for name, value in headers if name == "Set-Cookie")
    for _ in wsgi(environ, start): pass
    return caught[0] if caught else cookie
cookie = {cookie!r}
for _ in range(200): cookie = call(cookie)
began = time.process_time()
for _ in range({count}): call(cookie)
print((time.process_time() - began) / {count} * 1e6)
"""


def run(project: Project) -> list[Figure]:
    """Microseconds of CPU a request: with no socket, and under gunicorn with two sync workers."""
    figures = []
    for path in ("/count", "/plain"):
        candidates = {name: partial(in_process, project, app, path) for name, app in APPS.items()}
        figures += compared(f"in-process {path}", "µs CPU", candidates, ROUNDS)
    with ExitStack() as stack:
        servers = {name: gunicorn(project, app) for name, app in APPS.items()}
        servers["bare, with an access log"] = gunicorn(project, "bare", "--access-logfile", "-")
        cpu = {name: partial(server_cpu, *stack.enter_context(servers[name])) for name in servers}
        figures += compared("gunicorn /count", "µs CPU", cpu, ROUNDS)
    return figures


def in_process(project: Project, app: str, path: str, cookie: str = "", **variables: str) -> float:
    """Microseconds of CPU a request, in a process of its own."""
    code = LOOP.format(app=app, path=path, cookie=cookie, count=REQUESTS)
    return float(project.python(code, **variables))


@contextmanager
def gunicorn(project: Project, app: str, *flags: str) -> Iterator[tuple[int, int]]:
    """A server with two sync workers on a free port of loopback: its process id and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [project.program("gunicorn"), "--no-control-socket"]
    command += ["--bind", f"127.0.0.1:{port}", "--workers", "2", *flags, f"apps:{app}()"]
    server = subprocess.Popen(
        command,
        cwd=project.path,
        env=dict(project.environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, server)
        yield server.pid, port
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(DEADLINE)


def server_cpu(pid: int, port: int) -> float:
    """Microseconds of CPU a request, of the server and its workers together."""
    before = _cpu_seconds(pid)
    cookie = ""
    for _ in range(REQUESTS):
        cookie = _get(port, "/count", cookie)
    return (_cpu_seconds(pid) - before) / REQUESTS * 1e6


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [pid, *map(int, children.split())]


def _cpu_seconds(pid: int) -> float:
    total = 0
    for member in family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / CLOCK_TICKS


def _get(port: int, path: str, cookie: str) -> str:
    """One request on a connection of its own, as a sync worker wants it; the cookie to send next."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nCookie: {cookie}\r\n\r\n"
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode("latin-1")
    if not answer.startswith("HTTP/1.1 200"):
        raise SystemExit(f"{path} answered {answer[:60]!r}")
    set_cookie = [line for line in answer.split("\r\n") if line.lower().startswith("set-cookie:")]
    return set_cookie[0].split(":", 1)[1].split(";")[0].strip() if set_cookie else cookie


def _wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("gunicorn did not start")
