"""A project in a folder of its own, with the real `flask` program run in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import secure

SOURCE = Path(secure.__file__).parent
APP = """
import sys
from flask import Flask
from .secure import sessions, web
from .secure.keys import watcher
from .secure.settings import Settings

def create_app():
    settings = Settings.load()
    for _, line in settings.notices(0):
        print(line, file=sys.stderr)
    app = Flask(__name__)
    watcher.init_app(app, watcher.KeyringWatcher(settings.keyring_source, settings.keyring, 0))
    app.add_url_rule("/", view_func=lambda: watcher.get_watcher(app).current().signing.fingerprint)

    @app.cli.command("key")
    def key():
        current = watcher.get_watcher(app).current()
        print(current.signing.fingerprint, settings.environment, settings.trusted_hosts)
    return app
"""


class Program:
    """A project's checkout: a package with `secure` in it, installed in an environment that others may share."""

    def __init__(self, path: Path, package: str, *, checkout: bool = True) -> None:
        self.path, self.package = path, package
        self.site = path if checkout else path.with_name(f"{path.name}-site")
        path.mkdir(parents=True, exist_ok=True)
        shutil.copytree(
            SOURCE, self.site / package / "secure", ignore=shutil.ignore_patterns("*.pyc.*", "static", "templates")
        )
        (self.site / package / "__init__.py").touch()
        (self.site / package / "app.py").write_text(APP)
        info = self.site / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[flask.commands]\nsecret-key = {package}.secure.keys.commands:secret_key\n"
        )
        if checkout:
            (path / "pyproject.toml").touch()
            (path / ".flaskenv").write_text(f"FLASK_APP={package}.app\n")
        self.others: list[Program] = []

    def start(self, *arguments: str, cwd: Path | None = None, before: tuple[str, ...] = (), **environ: str) -> Any:
        """Start `flask` with `arguments`."""
        places = [str(each.site) for each in (self, *self.others)]
        return subprocess.Popen(
            [*before, sys.executable, "-m", "flask", *arguments],
            cwd=cwd or self.path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places), "PYTHONDONTWRITEBYTECODE": "", **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run `flask` with `arguments` to its end."""
        process = self.start(*arguments, **options)
        stdout, stderr = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """Write a file of the project."""
        path = self.path / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def signing(self, **options: Any) -> str:
        """Return the fingerprint of the key with which a new process of the app signs."""
        done = self.run("key", **options)
        assert done.returncode == 0, done.stderr
        return str(done.stdout.split()[0])
