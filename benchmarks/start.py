"""How long `create_app()` takes and how much memory a worker holds, against a bare Flask app."""

import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from .measure import Figure, compared
from .project import Project
from .request_cost import family, gunicorn, server_cpu

ROUNDS = 15


def run(project: Project) -> list[Figure]:
    """Wall seconds of a process that makes the app, and mebibytes of a worker that has served."""
    candidates = {app: partial(start, project, app) for app in ("bare", "baked")}
    figures = compared("start", "s", candidates, ROUNDS)
    with ExitStack() as stack:
        servers = {app: stack.enter_context(gunicorn(project, app)) for app in ("bare", "baked")}
        for pid, port in servers.values():
            server_cpu(pid, port)
        sizes = {app: partial(worker_memory, servers[app][0]) for app in servers}
        return figures + compared("worker memory", "MiB", sizes, 1)


def start(project: Project, app: str) -> float:
    """Wall seconds of a Python that makes the app and ends."""
    began = time.perf_counter()
    project.python(f"from apps import {app}; {app}()")
    return time.perf_counter() - began


def worker_memory(pid: int) -> float:
    """Mebibytes of the largest worker: its share of what it shares, and all of its own (PSS)."""
    sizes = []
    for worker in family(pid)[1:]:
        lines = Path(f"/proc/{worker}/smaps_rollup").read_text().splitlines()
        sizes += [int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")]
    return max(sizes)
