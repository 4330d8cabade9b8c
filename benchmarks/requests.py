"""What a request, a start and a worker cost: bare Flask doing the same work, against the baked app in production."""

import statistics
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import IO, cast

from .measure import Figure, compared, cpu_seconds
from .project import Project
from .serving import ACCESS_LOG, cpu_of_request, gunicorn, worker_memory

ROUNDS, STARTS = 7, 25
APPS = {"bare": "bare", "baked, no log line": "quiet", "baked": "baked"}

TURNS, TURN, PROCESSES = 100, 30, 3
"""Rounds in which each app answers in turn; the requests of a turn, so few that all apps share a slow moment; and the
processes of an app: where its memory lies makes one a few percent faster than another."""

LOOP = """
import io, logging, os, sys, time
from apps import {app}
from werkzeug.test import EnvironBuilder
logging.disable()  # what it says at the start
wsgi = {app}().wsgi_app
logging.disable(logging.NOTSET)
def call(path, cookie):
    environ = dict(base, **{{"wsgi.input": io.BytesIO(), "PATH_INFO": path}})
    if cookie: environ["HTTP_COOKIE"] = cookie
    caught = []
    def start(status, headers, exc_info=None):
        assert status.startswith("200"), status
        caught.extend(value.split(";")[0] for name, value in headers if name == "Set-Cookie")
    for _ in wsgi(environ, start): pass
    return caught[0] if caught else cookie
base = EnvironBuilder("/", base_url="https://127.0.0.1/").get_environ()
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the log: what a reader of it does is not measured
cookie = call("{first}", "")
for _ in range(200): cookie = call("{path}", cookie)
for line in sys.stdin:
    clock = getattr(time, line.strip())
    call("{path}", cookie)
    began = clock()
    for _ in range({turn}): call("{path}", cookie)
    print((clock() - began) / {turn} * 1e6, flush=True)
"""


def run(project: Project) -> list[Figure]:
    """Microseconds of CPU of a request, seconds of CPU of a start, mebibytes of a worker."""
    figures = []
    for path in ("/count", "/plain"):
        with ExitStack() as stack:
            apps = {name: stack.enter_context(in_process(project, app, path)) for name, app in APPS.items()}
            figures += compared(f"in process, {path}", "µs CPU", apps, TURNS)
    starts = {app: partial(_start, project, app) for app in ("bare", "baked")}
    figures += compared("start", "s CPU", starts, STARTS)
    with ExitStack() as stack:
        servers = {
            "bare, with an access log": stack.enter_context(gunicorn(project, "bare", *ACCESS_LOG)),
            "baked": stack.enter_context(gunicorn(project, "baked")),
        }
        cpu = {name: partial(cpu_of_request, *server) for name, server in servers.items()}
        figures += compared("gunicorn, /count", "µs CPU", cpu, ROUNDS)
        sizes = {name: partial(worker_memory, *server) for name, server in servers.items()}
        return figures + compared("worker memory", "MiB", sizes, 2)


@contextmanager
def in_process(
    project: Project, app: str, path: str, first: str = "/plain", **variables: str
) -> Iterator[Callable[..., float]]:
    """Start processes with one app, which are asked for `first` once, and give what measures a turn of them.

    That returns the microseconds of a request by a clock of the module `time`, the processor's by default.
    """
    code = LOOP.format(app=app, path=path, first=first, turn=TURN)
    command = [project.program("python"), "-c", code]
    started = partial(
        subprocess.Popen[str],
        command,
        cwd=project.path,
        env={**project.environment, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with ExitStack() as stack:
        processes = [stack.enter_context(started()) for _ in range(PROCESSES)]
        yield lambda clock="process_time": statistics.mean(_asked(process, clock) for process in processes)


def _asked(process: subprocess.Popen[str], clock: str) -> float:
    print(clock, file=process.stdin, flush=True)
    return float(cast("IO[str]", process.stdout).readline())


def _start(project: Project, app: str) -> float:
    """Seconds of CPU of a Python that makes the app and ends."""
    return cpu_seconds(partial(project.python, f"from apps import {app}; {app}()"))
