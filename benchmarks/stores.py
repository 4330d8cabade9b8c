"""What each session store costs, against each other and against Flask-Session, on a Redis server of its own."""

import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from .measure import PER_SECOND, Figure, compared
from .project import Project
from .requests import TURNS, in_process
from .serving import free_port


def run(project: Project) -> list[Figure]:
    """Requests per second and microseconds of CPU of a request that changes a user's session, in one process."""
    port = free_port()
    address = f"redis://127.0.0.1:{port}/0"
    with tempfile.TemporaryDirectory() as folder:
        command = ("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                project.python(
                    f"import redis; redis.Redis(port={port}, retry=redis.retry.Retry("
                    "redis.backoff.ConstantBackoff(0.1), 100)).ping()"
                )
                with ExitStack() as stack:
                    apps = {
                        "signed cookie": ("quiet", "/sign-in", {"SESSION_STORE": "signed"}),
                        "encrypted cookie": ("quiet", "/sign-in", {"SESSION_STORE": "encrypted"}),
                        "Redis": ("quiet", "/sign-in", {"SESSION_STORE": address}),
                        "Flask-Session on Redis": ("flask_session", "/plain", {"REDIS": address}),
                    }
                    turns = {
                        name: stack.enter_context(in_process(project, app, "/count", first, **variables))
                        for name, (app, first, variables) in apps.items()
                    }
                    cpu = compared("session store, CPU", "µs CPU", turns, TURNS)
                    rates = {name: partial(_rate, turn) for name, turn in turns.items()}
                    return cpu + compared("session store, rate", PER_SECOND, rates, TURNS)
            finally:
                server.terminate()


def _rate(turn: Callable[..., float]) -> float:
    return 1e6 / turn("perf_counter")
