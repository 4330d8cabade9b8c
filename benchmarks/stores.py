"""What each session store costs, against each other and against Flask-Session, on a Redis server of its own."""

import subprocess
import tempfile
from functools import partial

from .measure import PER_SECOND, Figure, compared
from .project import Project
from .requests import in_process
from .serving import free_port

ROUNDS = 4


def run(project: Project) -> list[Figure]:
    """Requests per second and microseconds of CPU of a request that changes a user's session, in one process."""
    port = free_port()
    address = f"redis://127.0.0.1:{port}/0"
    apps = {
        "signed cookie": partial(in_process, project, "quiet", "/count", "/sign-in", SESSION_STORE="signed"),
        "encrypted cookie": partial(in_process, project, "quiet", "/count", "/sign-in", SESSION_STORE="encrypted"),
        "Redis": partial(in_process, project, "quiet", "/count", "/sign-in", SESSION_STORE=address),
        "Flask-Session on Redis": partial(in_process, project, "flask_session", "/count", REDIS=address),
    }
    with tempfile.TemporaryDirectory() as folder:
        command = ("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                project.python(
                    f"import redis; redis.Redis(port={port}, retry=redis.retry.Retry("
                    "redis.backoff.ConstantBackoff(0.1), 100)).ping()"
                )
                cpu = compared("session store, CPU", "µs CPU", apps, ROUNDS)
                rates = {name: partial(_rate, app) for name, app in apps.items()}
                return cpu + compared("session store, rate", PER_SECOND, rates, ROUNDS)
            finally:
                server.terminate()


def _rate(app: "partial[float]") -> float:
    return 1e6 / app(clock="perf_counter")
