"""What a request, a start and a worker cost: bare Flask doing the same work, against the baked app in production."""

from contextlib import ExitStack
from functools import partial

from .measure import Figure, compared, cpu_seconds
from .project import Project
from .serving import ACCESS_LOG, cpu_of_request, gunicorn, worker_memory

ROUNDS = 7
APPS = {"bare": "bare", "baked, no log line": "quiet", "baked": "baked"}

LOOP = """
import io, os, statistics, time
from apps import {app}
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the log: what a reader of it does is not measured
from werkzeug.test import EnvironBuilder
wsgi = {app}().wsgi_app
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
cookie, taken = call("{first}", ""), []
for _ in range(200): cookie = call("{path}", cookie)
for _ in range(20):
    began = time.{clock}()
    for _ in range(100): call("{path}", cookie)
    taken.append((time.{clock}() - began) / 100)
print(statistics.median(taken) * 1e6)
"""


def run(project: Project) -> list[Figure]:
    """Microseconds of CPU of a request, seconds of CPU of a start, mebibytes of a worker."""
    figures = []
    for path in ("/count", "/plain"):
        candidates = {name: partial(in_process, project, app, path) for name, app in APPS.items()}
        figures += compared(f"in process, {path}", "µs CPU", candidates, ROUNDS)
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


def in_process(
    project: Project, app: str, path: str, first: str = "/plain", clock: str = "process_time", **variables: str
) -> float:
    """Microseconds of a request by `clock`, in a process of its own that asks for `first` before."""
    code = LOOP.format(app=app, path=path, first=first, clock=clock)
    return float(project.python(code, **variables))


def _start(project: Project, app: str) -> float:
    """Seconds of CPU of a Python that makes the app and ends."""
    return cpu_seconds(partial(project.python, f"from apps import {app}; {app}()"))
