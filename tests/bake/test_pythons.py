"""What is baked is green as it is: its own tests, linter and type checker, on every Python from 3.11 up."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from baking import UV, Bake
from readme import OF_PROJECT, blocks

OLDEST = (3, 11)
NEEDED = ["3.11", "3.12", "3.13"]


def installed() -> dict[str, str]:
    """The interpreters of this machine: version and path, on PATH or where pyenv keeps them."""
    places = [str(folder) for folder in sorted(Path.home().glob(".pyenv/versions/*/bin"))]
    found: dict[str, str] = {}
    for folder in [*os.get_exec_path(), *places]:
        for minor in range(OLDEST[1], 30):
            version = f"{OLDEST[0]}.{minor}"
            python = shutil.which(f"python{version}", path=folder)
            if python and version not in found and works(python, version):
                found[version] = python
    return found


def works(python: str, version: str) -> bool:
    """Whether this is that interpreter: pyenv puts names on PATH that run nothing."""
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    asked = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    return asked.stdout.strip() == version


PYTHONS = installed()


def test_the_versions_that_must_be_tested_are_there() -> None:
    if not os.environ.get("CI"):
        pytest.skip("only on a CI machine")
    assert [version for version in NEEDED if version not in PYTHONS] == []


@pytest.fixture(scope="session", params=PYTHONS, ids=str)
def green(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, bake_into: Callable[..., Bake]
) -> Bake:
    """A default project, committed, in an environment for one of the interpreters."""
    version: str = request.param
    project = bake_into(tmp_path_factory.mktemp(f"python{version}")).synced(PYTHONS[version])
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "-m", "Baked")
    asked = project.run(project.program("python"), "-V").stdout
    assert asked.startswith(f"Python {version}.")
    return project


CHECKS = next(block for block in blocks(OF_PROJECT) if any("pytest" in command for command in block))


@pytest.mark.parametrize("command", CHECKS)
def test_bake_is_green(command: str, green: Bake) -> None:
    green.run("sh", "-c", command, UV_PYTHON=green.program("python"))
    assert green.run("git", "status", "--porcelain", "--", ":!uv.lock").stdout == ""


def test_lowest_versions(bake: Callable[..., Bake]) -> None:
    """The lower bounds in pyproject.toml are true."""
    project = bake()
    project.run(UV, "sync", "--quiet", "--resolution", "lowest-direct", "--group", "dev", "--all-extras")
    for command in CHECKS:
        project.run("sh", "-c", command.replace("uv run", "uv run --no-sync"))


@pytest.mark.parametrize("package", ["a", "m" * 60, "zz_top_9"])
def test_any_package_name(package: str, bake: Callable[..., Bake], shared: Bake) -> None:
    project = bake(package_name=package)
    project.run(shared.program("ruff"), "check")
    project.run(shared.program("ruff"), "format", "--check")
    assert project.package.name == package
