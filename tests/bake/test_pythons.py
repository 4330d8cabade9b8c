"""What is baked is green as it is: its own tests, linter and type checker, on every Python from 3.11 up.

A supported version that is not installed is a skipped test, which names it.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from baking import TEMPLATE, UV, Bake
from readme import OF_PROJECT, blocks

SUPPORTED = ["3.11", "3.12", "3.13", "3.14", "3.15"]
NEEDED = ["3.11", "3.12", "3.13"]
FREE_THREADED = ["3.13t", "3.14t", "3.15t"]
WHICH = (
    "import sys, sysconfig; print('%d.%d' % sys.version_info[:2], bool(sysconfig.get_config_var('Py_GIL_DISABLED')))"
)


def installed() -> dict[str, str]:
    """The interpreters of this machine: version and path, on PATH or where pyenv keeps them."""
    places = [str(folder) for folder in sorted(Path.home().glob(".pyenv/versions/*/bin"))]
    found: dict[str, str] = {}
    for folder in [*os.get_exec_path(), *places]:
        for version in [*SUPPORTED, *FREE_THREADED]:
            python = shutil.which(f"python{version}", path=folder)
            if python and version not in found and works(python, version):
                found[version] = python
    return found


def works(python: str, version: str) -> bool:
    """Whether this is that interpreter: pyenv puts names on PATH that run nothing."""
    asked = subprocess.run([python, "-c", WHICH], capture_output=True, text=True, check=False)
    return asked.stdout.split() == [version.rstrip("t"), str(version.endswith("t"))]


PYTHONS = installed()


def interpreter(version: str) -> str:
    """The path of an interpreter; skip the test where it is not installed."""
    if version not in PYTHONS:
        pytest.skip(f"Python {version} is not installed")
    return PYTHONS[version]


def test_required_versions() -> None:
    if not os.environ.get("CI"):
        pytest.skip("only on a CI machine")
    assert [version for version in NEEDED if version not in PYTHONS] == []


@pytest.fixture(scope="session", params=SUPPORTED, ids=str)
def green(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, bake_into: Callable[..., Bake]
) -> Bake:
    """A default project, committed, in an environment for one of the interpreters."""
    version: str = request.param
    python = interpreter(version)
    project = bake_into(tmp_path_factory.mktemp(f"python{version}")).synced(python)
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "-m", "Baked")
    asked = project.run(project.program("python"), "-V").stdout
    assert asked.startswith(f"Python {version}.")
    return project


CHECKS = next(block for block in blocks(OF_PROJECT) if any("pytest" in command for command in block))
CHECKS.remove("uv run --group dev pytest")  # coverage runs it


@pytest.mark.parametrize("command", CHECKS)
def test_bake_is_green(command: str, green: Bake) -> None:
    green.run("sh", "-c", command, UV_PYTHON=green.program("python"))
    assert green.run("git", "status", "--porcelain", "--", ":!uv.lock").stdout == ""


@pytest.mark.parametrize("version", FREE_THREADED)
def test_threads_without_the_global_lock(version: str, bake_into: Callable[..., Bake], tmp_path: Path) -> None:
    """The tests of threads and of the keyring pass where threads run at once."""
    python = interpreter(version)
    project = bake_into(tmp_path)
    suite = [str(TEMPLATE / "tests" / "secure" / name) for name in ("test_threads.py", "keys/test_watcher.py")]
    libraries = [f"--with={name}" for name in ("pytest", "hypothesis", "redis")]
    done = project.run(
        *(UV, "run", "--quiet", "--isolated", *libraries, "python", "-m", "pytest", "-p", "no:cacheprovider", "-rP"),
        *("-c", os.devnull, f"--confcutdir={TEMPLATE / 'tests' / 'secure'}", *suite),
        UV_PYTHON=python,
        UV_NO_BUILD_PACKAGE="hypothesis",  # the newest version that needs no compiler
        PYTHON_GIL="0",
        PYTHONPATH=os.pathsep.join(map(str, (project.package, TEMPLATE / "tests" / "secure"))),
    )
    assert " free-threaded: " in done.stdout


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
