"""How long `rotate` takes, and what a request sees while the keyring changes."""

import time
from collections.abc import Callable
from functools import partial

from .measure import Figure, compared
from .project import Project

ROUNDS = 7
LATENCIES = """
import io, os, statistics, time
from apps import baked
from werkzeug.test import EnvironBuilder
from my_flask_app.secure.keys.key import generate_key
app = baked()
path = os.environ["SECRET_KEY_FILE"]
base = EnvironBuilder("/count", base_url="https://127.0.0.1/").get_environ()
def call():
    environ = dict(base, **{{"wsgi.input": io.BytesIO()}})
    for _ in app.wsgi_app(environ, lambda *a: None): pass
for _ in range(300): call()
taken, end, change = [], time.perf_counter() + 4, {change}
changed = time.perf_counter()
while time.perf_counter() < end:
    if change and time.perf_counter() - changed > .2:
        changed = time.perf_counter()
        with open(path + ".new", "w") as file:
            os.chmod(path + ".new", 0o600)
            file.write("".join(generate_key(int(time.time()) - n).text + "\\n" for n in range(3)))
        os.replace(path + ".new", path)
    began = time.perf_counter(); call(); taken.append(time.perf_counter() - began)
print(statistics.quantiles(taken, n=100)[98] * 1e6)
"""


def run(project: Project) -> list[Figure]:
    """Wall seconds of the command against a bare import of Flask; p99 microseconds of a request."""
    keyring = project.path / "keyring"
    keyring.touch(0o600)

    def first_ring() -> None:
        keyring.write_text(project.run(project.program("flask"), "secret-key", "generate"))

    variables = {"SECRET_KEY_FILE": str(keyring)}
    file_only = Project(project.path, {k: v for k, v in project.environment.items() if k != "SECRET_KEY"} | variables)

    def timed(*command: str) -> float:
        began = time.perf_counter()
        file_only.run(*command)
        return time.perf_counter() - began

    def rotate() -> float:
        first_ring()
        return timed(project.program("flask"), "secret-key", "rotate")

    commands: dict[str, Callable[[], float]] = {
        "import flask": partial(timed, project.program("python"), "-c", "import flask"),
        "rotate": rotate,
    }
    figures = compared("rotate", "s", commands, ROUNDS)
    first_ring()

    def p99(change: bool) -> float:
        once_a_second = {"SECRET_KEY_INTERVAL": "1s"}
        return float(file_only.python(LATENCIES.format(change=change), **once_a_second))

    pause = {"the keyring rests": partial(p99, False), "it changes 5 times a second": partial(p99, True)}
    return figures + compared("p99 of a request", "µs", pause, 5)
