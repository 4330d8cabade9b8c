"""A server on a free port of loopback, what it costs, and how much memory it holds."""

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .project import Project

REQUESTS = 2000
DEADLINE = 60.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
AS_SHIPPED = ("--workers", "2", "--threads", "4", "--keep-alive", "75")
"""The settings of the project's gunicorn.conf.py, for an app that is not the project's."""
ACCESS_LOG = ("--access-logfile", "-")


def free_port() -> int:
    """Return a port of loopback that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(command: list[str], port: int, folder: Path, environment: Mapping[str, str]) -> Iterator[int]:
    """Start a server, wait for its first page, and end it and its children: the server's process ID."""
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(
        command, cwd=folder, env=dict(environment), stdout=quiet, stderr=quiet, start_new_session=True
    )
    try:
        _wait_for_page(port, server)
        yield server.pid
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(DEADLINE)


@contextmanager
def gunicorn(project: Project, app: str, *flags: str) -> Iterator[tuple[int, int]]:
    """Start gunicorn as shipped, with an app of apps.py: its process ID and its port."""
    port = free_port()
    config = () if app == "baked" else ("--config", "/dev/null", "--no-control-socket", *AS_SHIPPED)
    command = [project.program("gunicorn"), *config, "--bind", f"127.0.0.1:{port}", *flags, f"apps:{app}()"]
    with served(command, port, project.path, project.environment) as pid:
        yield pid, port


def cpu_of_request(pid: int, port: int) -> float:
    """Return the microseconds of CPU of a request, of the server and its workers; one connection is kept open."""
    before, cookie = _cpu_seconds(pid), ""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    for _ in range(REQUESTS):
        connection.request("GET", "/count", headers={"Cookie": cookie})
        answer = connection.getresponse()
        answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise SystemExit(f"/count: status {answer.status}")
        cookie = answer.headers.get("Set-Cookie", cookie).split(";")[0]
    connection.close()
    return (_cpu_seconds(pid) - before) / REQUESTS * 1e6


def worker_memory(pid: int, port: int) -> float:
    """Return the mebibytes of the largest worker: its part of what it shares, and all of its own (PSS)."""
    cpu_of_request(pid, port)
    sizes = []
    for worker in _family(pid)[1:]:
        lines = Path(f"/proc/{worker}/smaps_rollup").read_text().splitlines()
        sizes += [int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")]
    return max(sizes)


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [pid, *map(int, children.split())]


def _cpu_seconds(pid: int) -> float:
    total = 0
    for member in _family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / CLOCK_TICKS


def _wait_for_page(port: int, server: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end and server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(0.01)
        finally:
            connection.close()
    raise SystemExit(f"{server.args!r}: no page within {DEADLINE:.0f} seconds")
