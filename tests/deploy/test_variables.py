"""The commands of docs/deploy.md for platforms with variables, run with a stand-in for each platform's command."""

import json
import os
import re
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from baking import Bake, Result, run
from readme import DEPLOY, block
from running import APPS, Server
from secure.keys.key_format import generate_text

PAGE = DEPLOY.read_text("utf-8")
PRINT = "flask secret-key rotate --print"
KEY = re.compile("fsk_[0-9]{8}T")


def cells(platform: str) -> list[str]:
    """Return the commands in the row of a platform: for its first key, and for a rotation."""
    [row] = re.findall(rf"^\| {platform} \|(.*)\|$", PAGE, re.MULTILINE)
    found = re.findall(r"`([^`]+)`", row.replace(r"\|", "|"))
    return [command for command in found if re.match(r"(heroku|fly|gcloud|aws|flask) ", command)]


@dataclass
class Platform:
    """An app on a platform: a clone of the project, and what the stand-in has stored."""

    project: Bake
    folder: Path

    def type(self, command: str, check: bool = True) -> Result:
        """Run a command of the page in the clone; it shows no key."""
        done = run("bash", "-uc", command, cwd=self.project.path, environment=self.project.environment, check=check)
        assert not KEY.search(done.stdout + done.stderr)
        return done

    @property
    def variables(self) -> dict[str, str]:
        """The variables of the app, which has no others."""
        stored: dict[str, str] = json.loads((self.folder / "variables").read_text())
        return stored

    @property
    def keyring(self) -> list[str]:
        """The keys in the variables, newest first."""
        keys = [self.variables["SECRET_KEY"], *self.variables.get("SECRET_KEY_FALLBACKS", "").split(",")]
        return [key for key in keys if key]

    def count(self, session: str) -> tuple[str, str]:
        """Start the app with its variables; return what a visitor with a session sees, and its new session."""
        script = """if 1:
            import sys, visited
            client = visited.app().test_client(use_cookies=False)
            answer = client.get("/count", base_url="https://localhost", headers={"Cookie": sys.argv[1]})
            given = (line.split(";")[0] for line in answer.headers.getlist("Set-Cookie"))
            print(answer.text, "; ".join(given), sep="\\n")
            """
        own = {name: text for name, text in self.project.environment.items() if not name.startswith("SECRET_KEY")}
        own |= {"PROJECT": self.project.package.name, "PYTHONPATH": f"{self.project.path}:{APPS}", **self.variables}
        python = self.project.program("python")
        said = run(python, "-c", script, session, cwd=self.project.path, environment=own).stdout.splitlines()
        return said[0], said[1]


@pytest.fixture
def platform(shared: Bake, tmp_path: Path) -> Platform:
    """A clone without `.env`, and the stand-ins on PATH."""
    clone = shared.copied(tmp_path / "app", ".git", ".env")
    (tmp_path / "bin").mkdir()
    for name in ("heroku", "fly", "gcloud", "aws"):
        command = shlex.join([sys.executable, str(APPS / "hosting.py"), str(tmp_path), name])
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {
        **shared.environment,
        "PATH": f"{tmp_path / 'bin'}:{clone.path / '.venv' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(clone.path),
        "FLASK_APP": f"{clone.package.name}.app",
    }
    return Platform(Bake(clone.path, shared.result, environment), tmp_path)


@pytest.mark.parametrize("name", ["Heroku", "Fly"])
def test_variables(platform: Platform, name: str) -> None:
    """The first key, a rotation that is not due, one that is, and a revocation."""
    first, rotation = cells(name)
    assert PRINT in rotation
    platform.type(first)
    key = platform.keyring
    shown, session = platform.count("")
    assert shown == "1 1"

    not_due = platform.type(rotation.replace("rotate", "rotate --if-older-than 90d"), check=False)
    assert not_due.returncode, "a scheduler sees it"
    assert platform.variables == {"SECRET_KEY": key[0]}

    platform.type(rotation.replace("rotate", "rotate --in 1s"))
    assert platform.keyring[1:] == key
    shown, session = platform.count(session)
    assert shown == "2 2", "a session from before"

    platform.type(rotation.replace("rotate", "revoke"))
    assert set(platform.variables) == {"SECRET_KEY", "SECRET_KEY_FALLBACKS"}
    assert len(platform.keyring) == 1
    assert platform.count(session)[0] == "1 1", "negative control"


def test_procfile(platform: Platform, tmp_path: Path) -> None:
    """The process of Heroku listens on the port that it is given."""
    [line] = re.findall(r"`Procfile` with `web: ([^`]+)`", PAGE)
    assert line == "gunicorn", "which Server runs"
    platform.type(cells("Heroku")[0])
    server = Server(platform.project, tmp_path / "log", platform.variables, by_port=True)
    try:
        assert server.get("/healthz")[0]
    finally:
        server.stop()


@pytest.mark.parametrize("name", ["Render", "ECS"])
def test_by_hand(platform: Platform, name: str) -> None:
    """A person copies both lines, one after the other, from the shell of an instance; ECS then starts new tasks."""
    printing, *after = cells(name)
    assert printing == PRINT
    variables = {"SECRET_KEY": generate_text(int(time.time()))}
    variables |= {"SECRET_KEY_FALLBACKS": ""} if name == "ECS" else {}
    (platform.folder / "variables").write_text(json.dumps(variables))
    session = platform.count("")[1]
    instance = {**platform.project.environment, "APP_ENV": "production", **variables}
    printed = run("sh", "-c", printing, cwd=platform.project.path, environment=instance).stdout
    new = dict(line.split("=", 1) for line in printed.splitlines())
    assert list(new) == ["SECRET_KEY", "SECRET_KEY_FALLBACKS"]
    (platform.folder / "variables").write_text(json.dumps(new))
    for command in after:
        platform.type(command)
        assert platform.type(command.replace("--service app", ""), check=False).returncode, "negative control"
    assert platform.count(session)[0] == "2 2"


def test_cloud_run(platform: Platform, tmp_path: Path) -> None:
    """The first key, a rotation that is not due, one that is, and a revocation: each is a version of the secret."""

    def versions() -> list[list[str]]:
        return [version.split() for version in json.loads((tmp_path / "versions").read_text())]

    [first] = cells("Cloud Run")
    rotation, shipped = block("gcloud: rotation"), "rotate --if-older-than 90d"
    assert shipped in rotation
    platform.type(first)
    assert platform.type(first, check=False).returncode, "it replaces no secret"
    assert "Nothing to do" in platform.type(rotation).stdout
    assert len(versions()) == 1
    platform.type(rotation.replace(shipped, "rotate"))
    first_key, both = versions()
    assert both[1:] == first_key
    platform.type(rotation.replace(shipped, "revoke --yes"))
    assert len(versions()[2]) == 1
    assert platform.type(rotation.replace("latest", "1.5"), check=False).returncode
    assert len(versions()) == 3, "a step that fails stores nothing"
