"""A real cookiecutter bakes a real project, away from the home and the settings of the caller."""

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from baking import COOKIECUTTER, TEMPLATE, UV, Bake, run
from copying import COPIER
from hypothesis import settings
from once import made_once, of_all_workers
from warm import Warm

TESTS = Path(__file__).parent

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Return how many test processes there are: one more than processors, since many slow tests wait for a server."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return (os.cpu_count() or 1) + (0 if config.option.markexpr == "not slow" else 1)


FIRST = ("deploy/test_container.py", "suites/", "deploy/", "bake/test_building.py", "adversaries/")
"""What takes long and cannot be shared out: it runs while there is other work for the other processes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests of FIRST."""

    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(TESTS).as_posix()
        return next((number for number, start in enumerate(FIRST) if name.startswith(start)), len(FIRST))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Look for garbage rarely, and not in what stays until the end: it took a tenth of the unit tests' time."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a child process: an empty home, an empty folder for temporary files, no git settings."""
    home = tmp_path_factory.mktemp("home")
    temporary = tmp_path_factory.mktemp("tmp")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GIT_", "VIRTUAL_ENV", "FLASK_", "SECRET_KEY", "APP_ENV", "COOKIECUTTER", "PYTEST"))
    }
    cache = subprocess.run([UV, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    return kept | {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "TMPDIR": str(temporary),
        "UV_CACHE_DIR": cache,
        "UV_PYTHON": sys.executable,
        "GIT_CONFIG_GLOBAL": str(home / "no-gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "A Tester",
        "GIT_AUTHOR_EMAIL": "tester@example.invalid",
        "GIT_COMMITTER_NAME": "A Tester",
        "GIT_COMMITTER_EMAIL": "tester@example.invalid",
        # Compiled once, outside the projects: a start takes half the time.
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(of_all_workers(tmp_path_factory) / "bytecode"),
        # What mypy knows of a library; it compares the content of each file.
        "MYPY_CACHE_DIR": str(of_all_workers(tmp_path_factory) / "mypy"),
    }


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a commit of the work tree would have it: no cache, nothing that git ignores."""
    copy = tmp_path_factory.mktemp("template")
    listing = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = subprocess.run(listing, cwd=TEMPLATE, capture_output=True, text=True, check=True).stdout
    for name in names.rstrip("\0").split("\0"):
        if (TEMPLATE / name).exists():  # git lists a deleted file until the deletion is staged
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TEMPLATE / name, copy / name)
    return copy


@pytest.fixture
def clone(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, template: Path, environment: dict[str, str]
) -> Path:
    """A clone of the template."""

    def commit(folder: Path) -> None:
        shutil.copytree(template, folder, dirs_exist_ok=True)
        for command in (("init",), ("add", "--all"), ("commit", "--message", "A clone")):
            run("git", *command, cwd=folder, environment=environment)

    committed = made_once(tmp_path_factory, "committed", commit)
    return shutil.copytree(committed, tmp_path / "flask-secure-start")


@pytest.fixture(scope="session")
def cookiecutter(environment: dict[str, str]) -> Iterator[Warm]:
    """cookiecutter, loaded once."""
    with Warm(str(COOKIECUTTER), environment) as warm:
        yield warm


@pytest.fixture(scope="session")
def copier(environment: dict[str, str]) -> Iterator[Warm]:
    """copier, loaded once."""
    with Warm(COPIER, environment) as warm:
        yield warm


@pytest.fixture(scope="session")
def bake_into(environment: dict[str, str], template: Path, cookiecutter: Warm) -> Callable[..., Bake]:
    """A function that bakes into a folder: `bake_into(folder, "-f", project_name="My App")`.

    `template` is where to bake from; `under` is a command that runs cookiecutter, such as `("env", "A=1")`;
    `check` fails the test where cookiecutter fails.
    """
    clean = str(template)

    def bake(
        folder: Path,
        *flags: str,
        template: str = clean,
        under: tuple[str, ...] = (),
        check: bool = True,
        **answers: str,
    ) -> Bake:
        extra = [f"{name}={value}" for name, value in answers.items()]
        command = (*under, str(COOKIECUTTER), "--no-input", *flags, "-o", str(folder), template, *extra)
        warm = None if under else cookiecutter
        result = run(*command, cwd=folder, environment=environment, check=check, warm=warm)
        slug = answers.get("project_slug")
        projects = (
            [folder / slug] if slug else [path for path in folder.iterdir() if (path / "pyproject.toml").exists()]
        )
        return Bake(projects[0] if projects else folder, result, environment)

    return bake


@pytest.fixture
def bake(tmp_path: Path, bake_into: Callable[..., Bake]) -> Callable[..., Bake]:
    """A function that bakes into this test's own empty folder: `bake(project_name="My App")`."""

    def bake(*flags: str, **options: Any) -> Bake:
        return bake_into(tmp_path, *flags, **options)

    return bake


@pytest.fixture(scope="session")
def shared(
    tmp_path_factory: pytest.TempPathFactory, bake_into: Callable[..., Bake], environment: dict[str, str]
) -> Bake:
    """One default project with its environment, for tests that leave it as it is."""
    folder = made_once(tmp_path_factory, "shared", lambda folder: bake_into(folder).synced())
    return Bake(folder / "my-flask-app", subprocess.CompletedProcess((), 0), environment)
