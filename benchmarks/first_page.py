"""How long a newcomer waits for the first page of a new project, against a project that is bare Flask."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .measure import Figure, compared, wall_seconds
from .project import UV, Project, bake, clean_copy
from .serving import free_port, served

ROUNDS = {"uv": 4, "pip": 2}
PROJECT = """
[project]
name = "bare"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["flask", "python-dotenv", "gunicorn"]
"""
APP = """
from flask import Flask
app = Flask(__name__)
@app.get("/")
def home():
    return "hello"
"""


def run(_: Project) -> list[Figure]:
    """Wall seconds from the first command to the page, by uv and by pip, with an empty cache and with a warm one.

    uv asks a registry nothing that its warm cache knows, as for ten minutes with PyPI (`max-age=600`): a mirror that
    allows no caching would be all that is measured.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare = folder / "bare"
        bare.mkdir()
        (bare / "pyproject.toml").write_text(PROJECT, "utf-8")
        (bare / "app.py").write_text(APP, "utf-8")
        bake(clean_copy(folder / "template"), folder, folder)
        projects = {"bare": bare, "baked": folder / "my-flask-app"}
        figures = []
        for tool, first_page in {"uv": _by_uv, "pip": _by_pip}.items():
            for cache in ("empty", "warm"):
                waits: dict[str, Callable[[], float]] = {
                    which: partial(
                        _waited, first_page, project, folder / f"{tool}-{which}" if cache == "warm" else None
                    )
                    for which, project in projects.items()
                }
                figures += compared(f"first page, {tool}, {cache} cache", "s", waits, ROUNDS[tool])
        return figures


def _waited(first_page: Callable[[Path, dict[str, str]], None], project: Path, warm: Path | None) -> float:
    with tempfile.TemporaryDirectory(dir=project.parent) as name:
        copy, cache = Path(name) / "project", str(warm or Path(name) / "cache")
        shutil.copytree(project, copy)
        os.sync()
        wanted = ("PATH", "LANG", "SSL_CERT_FILE")
        kept = {name: value for name, value in os.environ.items() if name in wanted or name.startswith(("PIP_", "UV_"))}
        environment = {**kept, "HOME": name, "UV_CACHE_DIR": cache, "PIP_CACHE_DIR": cache}
        environment.pop("UV_PROJECT_ENVIRONMENT", None)
        if warm and warm.exists():  # filled by the round that is not counted
            environment["UV_OFFLINE"] = "1"
        return wall_seconds(partial(first_page, copy, environment))


def _by_uv(project: Path, environment: dict[str, str]) -> None:
    _see_page([UV, "run", "--quiet", "--python", sys.executable, "flask", "run"], project, environment)


def _by_pip(project: Path, environment: dict[str, str]) -> None:
    for command in ([sys.executable, "-m", "venv", ".venv"], [".venv/bin/pip", "install", "--quiet", "-e", "."]):
        subprocess.run(command, cwd=project, env=environment, check=True)
    _see_page([str(project / ".venv/bin/flask"), "run"], project, environment)


def _see_page(command: list[str], project: Path, environment: dict[str, str]) -> None:
    port = free_port()
    with served([*command, "--port", str(port)], port, project, environment):
        pass
