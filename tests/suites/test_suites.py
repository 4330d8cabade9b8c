"""The suites of other projects pass with the keyring and our sessions on every app that they create.

Each suite comes from the project's source archive at the version that `expected.toml` pins, and runs twice: with stock
Flask, and with `secure_plugin`. What passes with stock Flask passes with ours, or `expected.toml` has the reason.
SUITES=all also runs the remaining modules, which take minutes.

Flask-Principal is not here: no source archive of it contains tests. Flask-Security is built on it.
"""

import os
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
from baking import PROJECT, UV, run

HERE = Path(__file__).parent
PINNED: dict[str, dict[str, Any]] = tomllib.loads((HERE / "expected.toml").read_text("utf-8"))
PLUGIN = ("-p", "secure_plugin")

Suite = Callable[..., set[str]]


@pytest.fixture
def suite(environment: dict[str, str], tmp_path: Path) -> Callable[[str], Suite]:
    """A function that unpacks and installs a project, and returns what runs its tests and returns those that pass."""
    secure = next(PROJECT.glob("*/secure"))

    def prepare(name: str) -> Suite:
        pinned = PINNED[name]
        wanted = f"{name}=={pinned['version']}"
        fetch = ("pip", "download", "--quiet", "--no-deps", "--no-binary", name, "--dest", ".", wanted)
        run(UV, "tool", "run", "--quiet", *fetch, cwd=tmp_path, environment=environment)
        (archive,) = tmp_path.glob("*.tar.gz")
        with tarfile.open(archive) as content:
            content.extractall(tmp_path, filter="data")
        (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
        run(UV, "venv", "--quiet", "venv", cwd=tmp_path, environment=environment)
        python = str(tmp_path / "venv" / "bin" / "python")
        # `secure` needs python-dotenv; a project's own code is what its archive has.
        requirements = (str(folder), "pytest<9", "python-dotenv", *pinned["requirements"])
        run(UV, "pip", "install", "--quiet", "--python", python, *requirements, cwd=tmp_path, environment=environment)
        (tmp_path / "secure").symlink_to(secure)  # alone: beside it are modules named app and config
        path = os.pathsep.join((str(tmp_path), str(HERE)))

        def tests(label: str, *options: str) -> set[str]:
            results = tmp_path / f"{label}.xml"
            files = (f"--junitxml={results}", f"--basetemp={tmp_path / label}")
            flags = ("-q", "-W", "ignore", "--tb=short", *files, *options)
            done = run(
                *(python, "-m", "pytest", *flags, *_modules(folder, pinned)),
                cwd=folder,
                environment=environment | {"PYTHONPATH": path},
                check=False,
            )
            print(label, done.stdout[-4000:], done.stderr)
            assert done.returncode in (0, 1)  # 1: a test failed
            return _passed(results)

        return tests

    return prepare


@pytest.mark.parametrize("name", PINNED)
def test_suite(suite: Callable[[str], Suite], name: str) -> None:
    """The tests that do not pass with ours are exactly the listed ones."""
    tests = suite(name)
    with ThreadPoolExecutor() as runs:
        both = runs.submit(tests, "stock"), runs.submit(tests, "ours", *PLUGIN)
        stock, ours = (one.result() for one in both)
    pinned = PINNED[name]
    print(f"{name} {pinned['version']}: {len(stock)} pass with stock Flask, {len(stock & ours)} of them with ours")
    assert len(stock) >= pinned["at_least"]
    ran = {test.partition("::")[0] for test in stock}
    listed = {test for test in pinned["expected"] if test.partition("::")[0] in ran or _all()}
    assert stock - ours == listed


def test_plugin() -> None:
    """Without the plugin an app has Flask's sessions, with it ours."""
    secure = next(PROJECT.glob("*/secure"))
    code = "import flask; print(type(flask.Flask('app').session_interface).__name__)"
    for load, expected in (("", "SecureCookieSessionInterface"), ("import secure_plugin; ", "Sessions")):
        path = os.pathsep.join((str(HERE), str(secure.parent)))
        command = (sys.executable, "-c", load + code)
        found = subprocess.run(command, env={"PYTHONPATH": path}, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == expected


def _all() -> bool:
    return os.environ.get("SUITES") == "all"


def _modules(folder: Path, pinned: dict[str, Any]) -> list[str]:
    """Return the test modules to run, in the project's folder."""
    if "modules" in pinned and not _all():
        return [f"tests/test_{module}.py" for module in pinned["modules"]]
    return [str(path.relative_to(folder)) for path in sorted(folder.glob("tests/test_*.py"))]


def _passed(results: Path) -> set[str]:
    """Return the tests that passed: `tests.test_basic::test_login`."""
    cases = Xml.parse(results).iter("testcase")  # noqa: S314 - pytest wrote the file
    bad = {"failure", "error", "skipped"}
    outcomes = [(f"{case.get('classname')}::{case.get('name')}", {part.tag for part in case}) for case in cases]
    return {test for test, tags in outcomes if not tags & bad}
