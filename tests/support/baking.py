"""A baked project, and how its commands are run."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from warm import Warm

TEMPLATE = Path(__file__).resolve().parents[2]
PROJECT = TEMPLATE / "{{cookiecutter.project_slug}}"
COOKIECUTTER = Path(sys.executable).with_name("cookiecutter")
UV = shutil.which("uv") or "uv"

Result = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Bake:
    """What one run of cookiecutter left: its result, and the project where there is one."""

    path: Path
    result: Result
    environment: Mapping[str, str]

    @property
    def package(self) -> Path:
        """The folder of the project's Python package."""
        return next(self.path.glob("*/secure")).parent

    def env_file(self) -> dict[str, str]:
        """The variables in `.env`, read by the simplest means."""
        lines = (self.path / ".env").read_text("utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    def run(self, *command: str, check: bool = True, input: str | None = None, **variables: str) -> Result:
        """Run a command in the project's folder; `check` fails the test with what it printed."""
        return run(*command, cwd=self.path, environment={**self.environment, **variables}, check=check, input=input)

    def flask(self, *arguments: str, check: bool = True, input: str | None = None, **variables: str) -> Result:
        """Run the project's own flask command in its own environment."""
        return self.run(self.program("flask"), *arguments, check=check, input=input, **variables)

    def program(self, name: str) -> str:
        """The path of a program in the project's environment, which `synced` makes."""
        return str(self.path / ".venv" / "bin" / name)

    def copied(self, folder: Path, *left_out: str) -> "Bake":
        """A copy of the project in `folder`, without some of it, for a test that changes it; it shares the environment.

        What Python has compiled is copied too: a copy of a file has its time.
        """
        compiled = Path(self.environment["PYTHONPYCACHEPREFIX"])
        for root in (Path("/"), compiled):
            place = root / self.path.relative_to("/")
            if place.exists():
                ignored = shutil.ignore_patterns(".venv", *left_out)
                shutil.copytree(place, root / folder.relative_to("/"), ignore=ignored)
        share_environment(self.path / ".venv", folder, compiled)
        return replace(self, path=folder)

    def synced(self, python: str = sys.executable) -> "Bake":
        """The same project with its environment made, for the interpreter `python`."""
        self.run(UV, "sync", "--quiet", "--all-extras", "--group", "dev", UV_PYTHON=python)
        return self


def share_environment(venv: Path, folder: Path, compiled: Path) -> None:
    """Make `venv` the environment of a project, with what Python has compiled of it: it knows files by their path."""
    for root in (Path("/"), compiled):
        place, link = root / venv.relative_to("/"), root / folder.relative_to("/") / ".venv"
        for needed in (place, link.parent):
            needed.mkdir(parents=True, exist_ok=True)
        link.symlink_to(place)


def run(
    *command: str,
    cwd: Path,
    environment: Mapping[str, str],
    check: bool = True,
    input: str | None = None,
    warm: Warm | None = None,
) -> Result:
    """Run a command with `environment`, a shell's PWD, and no other variable.

    `warm` is the program that the command names, loaded with the same `environment`.
    """
    if warm:
        assert warm.environment == environment
        done = warm.run(*command, cwd=cwd, input=input or "")
    else:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**environment, "PWD": str(cwd)},
            input=input or "",
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=600,
        )
    if check and done.returncode:
        pytest.fail(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done
