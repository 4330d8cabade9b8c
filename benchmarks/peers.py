"""Starters that the package registry has: how long one takes, what its app's sessions cost, and its key."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .bake import floor
from .measure import Figure, compared
from .project import Project, bake, clean_copy, install, make_environment
from .readme import BAKE_OF_PEERS, REQUEST_OF_PEERS
from .request_cost import in_process

ROUNDS = 5
APPS = """
from flask import session
from app import create_app


def count():
    session["n"] = session.get("n", 0) + 1
    return "ok"


def theirs():
    app = create_app({argument})
    app.add_url_rule("/count", view_func=count)
    return app
"""


@dataclass(frozen=True)
class Peer:
    """A starter, the command that it is used by, and what is to be known of its app."""

    name: str
    version: str
    command: tuple[str, ...]
    key: str
    """The key that it hands to everybody."""
    where: str
    """Where that key stands, and when the app has it."""
    typed: str = ""
    needs: tuple[str, ...] = ()
    """What it leaves out of its own dependencies."""
    app: str = "."
    """The folder of the app, in what it makes."""
    requirements: str = "requirements.txt"
    argument: str = ""
    """What its `create_app` takes for production."""
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """Its name and version, as in a table."""
        return f"{self.name} {self.version}"


PEERS = (
    Peer(
        "flask-skeleton",
        "1.0.2",
        ("create-flask-app", "made"),
        "Ensure you set a secret key, this is important!",
        "in the code, for where its `.env` is not read; that has a random one",
        typed="y\n",
        needs=("markupsafe<2.1",),
        argument="'production'",
    ),
    Peer(
        "flarevel",
        "5.0.1",
        ("flarevel", "create", "made"),
        "your_secret_key",
        "in the code",
        needs=("flask==3.1.3", "flask-sqlalchemy==3.1.1", "flask-migrate==4.1.0"),
    ),
    Peer(
        "boilerpy",
        "1.0.1",
        ("bpy", "init", "flask", "made"),
        "your-secret-key-change-in-production",
        "in the code, for where `SECRET_KEY` is not set",
        typed="5\n",
    ),
    Peer(
        "create-flask-react",
        "0.1.0",
        ("create-flask-react", "made"),
        "change-this-to-a-random-secret",
        "in `.env` and in the code",
        app="backend",
        requirements="pyproject.toml",
        variables=(("FLASK_ENV", "production"), ("DATABASE_URL", "sqlite://")),
    ),
)
NOT_RUN = {
    "cookiecutter-flask": "the package registry does not have it",
    "cookiecutter-django 1.11.9": "the registry's package has no template in it",
    "create-flask-app 0.2.1": "needs a terminal with a login, and Flask 0.12 with a MySQL client",
    "flask-app 1.0.1": "needs psycopg2-binary 2.8.3, which this Python cannot build",
}


def notes() -> dict[str, str]:
    """What is no number: the key of each peer, or why it was not run."""
    keys = {peer.title: f"has the key `{peer.key}` {peer.where}" for peer in PEERS}
    return keys | {name: f"not run: {why}" for name, why in NOT_RUN.items()}


def run(project: Project) -> list[Figure]:
    """Wall seconds of each starter's command, and CPU microseconds of a request that changes the session."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours, bare = clean_copy(folder / "template"), floor(folder)
        bakes: dict[str, Callable[[], float]] = {
            "one file, no hook": partial(_timed, folder, lambda into: bake(bare, into, folder)),
            "flask-secure-start": partial(_timed, folder, lambda into: bake(ours, into, folder)),
        }
        requests: dict[str, Callable[[], float]] = {
            "bare Flask": partial(in_process, project, "bare", "/count"),
            "flask-secure-start": partial(in_process, project, "baked", "/count"),
        }
        for peer in PEERS:
            environment = _installed(peer, folder / peer.name)
            bakes[peer.title] = partial(_timed, folder, partial(_make, peer, environment))
            app = _app(peer, environment, folder / f"{peer.name}-app")
            requests[peer.title] = partial(in_process, app, "theirs", "/count")
        figures = compared(BAKE_OF_PEERS, "s", bakes, ROUNDS)
        return figures + compared(REQUEST_OF_PEERS, "µs CPU", requests, ROUNDS)


def _timed(folder: Path, make: Callable[[Path], None]) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as into:
        start = time.perf_counter()
        make(Path(into))
        return time.perf_counter() - start


def _installed(peer: Peer, environment: Path) -> Path:
    """An environment with the starter in it."""
    install(make_environment(environment), f"{peer.name}=={peer.version}", *peer.needs)
    return environment


def _make(peer: Peer, environment: Path, into: Path) -> None:
    """Use the starter as its page says."""
    program, *arguments = peer.command
    subprocess.run(
        [str(environment / "bin" / program), *arguments],
        cwd=into,
        input=peer.typed,
        text=True,
        capture_output=True,
        check=True,
    )


def _app(peer: Peer, environment: Path, into: Path) -> Project:
    """The app that it makes, with what that needs and the page to count."""
    into.mkdir()
    _make(peer, environment, into)
    path = into / "made" / peer.app
    install(environment, "--requirement", str(path / peer.requirements))
    (path / ".venv").symlink_to(environment)
    (path / "apps.py").write_text(APPS.format(argument=peer.argument), "utf-8")
    return Project(path, {"PATH": os.environ["PATH"], **dict(peer.variables)})
