"""A fresh bake in a folder of its own, with its environment, and apps to compare."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parent.parent
COOKIECUTTER = str(Path(sys.executable).with_name("cookiecutter"))
UV = shutil.which("uv") or "uv"

APPS = '''
"""The same session work in bare Flask, and in the baked app with all its protection."""
import logging
import os
from flask import Flask, session


def count():
    session["n"] = session.get("n", 0) + 1
    return "ok"


def sign_in():
    from my_flask_app.secure import sessions

    sessions.sign_in("ann")
    return "ok"


def plain():
    return "ok"


def bare():
    app = Flask("bare")
    app.secret_key = os.environ["SECRET_KEY"]
    return with_routes(app)


def baked():
    from my_flask_app.app import create_app

    return with_routes(create_app())


def flask_session():
    from flask_session import Session
    from redis import Redis

    app = bare()
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=Redis.from_url(os.environ["REDIS"]))
    Session(app)
    return app


def quiet():
    app = baked()
    logging.getLogger("my_flask_app.secure.logging").setLevel(logging.WARNING)
    return app


def with_routes(app):
    app.add_url_rule("/count", view_func=count)
    app.add_url_rule("/sign-in", view_func=sign_in)
    app.add_url_rule("/plain", view_func=plain)
    return app
'''


@dataclass(frozen=True)
class Project:
    """A baked project, and the variables its processes get."""

    path: Path
    environment: Mapping[str, str]

    def program(self, name: str) -> str:
        """A program of the project's own environment."""
        return str(self.path / ".venv" / "bin" / name)

    def python(self, code: str, **variables: str) -> str:
        """What a Python of the project prints for `code`."""
        return self.run(self.program("python"), "-c", code, **variables)

    def run(self, *command: str, **variables: str) -> str:
        """What a command in the project's folder prints."""
        environment = {**self.environment, **variables}
        done = subprocess.run(command, cwd=self.path, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{command[0]} failed: {done.stderr}")
        return done.stdout


def bake(template: Path, into: Path, home: Path) -> None:
    """Run cookiecutter with its defaults."""
    command = [COOKIECUTTER, "--no-input", "--overwrite-if-exists", "-o", str(into), str(template)]
    environment = {**os.environ, "HOME": str(home)}
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)


def install(environment: Path, *what: str) -> None:
    """Install into a virtual environment, by what pip takes."""
    python = str(environment / "bin" / "python")
    subprocess.run([UV, "pip", "install", "--quiet", "--python", python, *what], check=True)


def clean_copy(folder: Path) -> Path:
    """The template as git has it, with what is new: no cache, no build."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TEMPLATE,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (TEMPLATE / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TEMPLATE / name, folder / name)
    return folder


def make_project(folder: Path) -> Project:
    """Bake, make the environment, and add the apps to compare."""
    home = folder / "home"
    home.mkdir()
    bake(clean_copy(folder / "template"), folder, home)
    path = folder / "my-flask-app"
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "SSL_CERT_FILE") if name in os.environ}
    subprocess.run([UV, "sync", "--quiet", "--all-extras", "--python", sys.executable], cwd=path, check=True)
    install(path / ".venv", "flask-session>=0.8")
    (path / "apps.py").write_text(APPS, "utf-8")
    (path / ".env").unlink()  # in production, the key is in the environment
    project = Project(path, {**kept, "APP_ENV": "production", "TRUSTED_HOSTS": "127.0.0.1"})
    key = project.run(project.program("flask"), "secret-key", "generate").strip()
    return Project(path, {**project.environment, "SECRET_KEY": key})
