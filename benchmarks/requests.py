"""What a request, a start and a worker cost: bare Flask doing the same work, against the baked app in production."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import IO, cast

from .measure import Figure, compared, cpu_seconds
from .project import Project
from .serving import ACCESS_LOG, cpu_of_request, gunicorn, worker_memory

ROUNDS = 7
APPS = {"bare": "bare", "baked, no log line": "quiet", "baked": "baked"}

TURNS, TURN = 100, 30
"""Rounds in which each app answers in turn, and the requests of a turn: short, so that all share a slow moment."""

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
    figures += compared("start", "s CPU", starts, ROUNDS)
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
    """Start a process with one app, which is asked for `first` once, and give what measures a turn of it.

    That returns the microseconds of a request by a clock of the module `time`, the processor's by default.
    """
    code = LOOP.format(app=app, path=path, first=first, turn=TURN)
    command = [project.program("python"), "-c", code]
    environment = {**project.environment, **variables}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=project.path, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        asks, answers = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)

        def turn(clock: str = "process_time") -> float:
            print(clock, file=asks, flush=True)
            return float(answers.readline())

        yield turn
        asks.close()


def _start(project: Project, app: str) -> float:
    """Seconds of CPU of a Python that makes the app and ends."""
    return cpu_seconds(partial(project.python, f"from apps import {app}; {app}()"))
