"""The suites of other projects pass with the keyring and our sessions on every app that they create.

Each suite comes from the project's source archive at the version that `expected.toml` pins, and runs with
`secure_plugin`. What fails runs again with stock Flask; what passes there is listed in `expected.toml`, with a reason.
SUITES=all also runs what `expected.toml` leaves out, which takes minutes.

Flask-Principal is not here: no source archive of it contains tests. Flask-Security is built on it.
"""

import hashlib
import os
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
from baking import PROJECT, UV, run

HERE = Path(__file__).parent
PINNED: dict[str, dict[str, Any]] = tomllib.loads((HERE / "expected.toml").read_text("utf-8"))
PLUGIN = ("-p", "secure_plugin")
PYTEST = """
import gc, os, sys, pytest
gc.set_threshold(100_000, 50, 50)
status = pytest.main()
sys.stdout.flush()
os._exit(status)
"""
"""pytest in a process that looks for garbage rarely and frees nothing at its end: a suite leaves hundreds of apps."""

Outcome = tuple[set[str], set[str]]
"""The tests that passed and those that did not, each as `tests.test_basic::test_login`."""
Suite = Callable[..., Outcome]


def fetched(url: str, hashes: dict[str, str], **_: object) -> bytes:
    """Return what the package index has at an address."""
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - the index is the one that uv asks
        content: bytes = answer.read()
    assert hashlib.sha256(content).hexdigest() == hashes["sha256"]
    return content


@pytest.fixture
def suite(environment: dict[str, str], tmp_path: Path) -> Callable[[str], Suite]:
    """A function that unpacks and installs a project, and returns what runs its tests, or some of them."""
    secure = next(PROJECT.glob("*/secure"))

    def prepare(name: str) -> Suite:
        pinned = PINNED[name]
        lock = ("pip", "compile", "--quiet", "--no-deps", "--format=pylock.toml", "-")
        locked = run(UV, *lock, cwd=tmp_path, environment=environment, input=f"{name}=={pinned['version']}").stdout
        [package] = tomllib.loads(locked)["packages"]
        (tmp_path / "source.tar.gz").write_bytes(fetched(**package["sdist"]))
        run("tar", "--extract", "--file=source.tar.gz", cwd=tmp_path, environment=environment)
        (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
        run(UV, "venv", "--quiet", "venv", cwd=tmp_path, environment=environment)
        python = str(tmp_path / "venv" / "bin" / "python")
        # `secure` needs python-dotenv.
        requirements = (f"{name}=={pinned['version']}", "pytest<9", "python-dotenv", *pinned["requirements"])
        run(UV, "pip", "install", "--quiet", "--python", python, *requirements, cwd=tmp_path, environment=environment)
        (tmp_path / "secure").symlink_to(secure)  # alone: beside it are modules named app and config
        path = os.pathsep.join((str(tmp_path), str(HERE)))

        def tests(label: str, some: Iterable[str] = (), plugin: tuple[str, ...] = ()) -> Outcome:
            results = tmp_path / f"{label}.xml"
            selected = [_node(folder, test) for test in some] or _modules(folder, pinned)
            files = (f"--junitxml={results}", f"--basetemp={tmp_path / label}")
            without = ("-k", f"not ({' or '.join(_left_out(pinned))})") if _left_out(pinned) else ()
            done = run(
                *(python, "-c", PYTEST, "-q", "-W", "ignore", "--tb=short", *files, *plugin, *without, *selected),
                cwd=folder,
                environment=environment | {"PYTHONPATH": path},
                check=False,
            )
            print(label, done.stdout[-4000:], done.stderr)
            assert done.returncode in (0, 1)  # 1: a test failed
            return _outcome(results)

        return tests

    return prepare


@pytest.mark.parametrize("name", PINNED)
def test_suite(suite: Callable[[str], Suite], name: str) -> None:
    """The tests that pass with stock Flask alone are exactly the listed ones."""
    tests = suite(name)
    ours, failed = tests("ours", plugin=PLUGIN)
    stock, _ = tests("stock", failed) if failed else (set[str](), failed)
    pinned = PINNED[name]
    print(f"{name} {pinned['version']}: {len(ours)} pass with ours, {len(stock)} with stock Flask alone")
    assert len(ours) >= pinned["at_least"]
    ran = {test.partition("::")[0] for test in ours}
    expected = {test for test in pinned["expected"] if test.partition("::")[0] in ran or _all()}
    assert stock == {test for test in expected if not any(word in test for word in _left_out(pinned))}


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


def _left_out(pinned: dict[str, Any]) -> list[str]:
    """Return the words of the tests that do not run."""
    return [] if _all() else pinned.get("left_out", [])


def _modules(folder: Path, pinned: dict[str, Any]) -> list[str]:
    """Return the test modules to run, in the project's folder."""
    if "modules" in pinned and not _all():
        return [f"tests/test_{module}.py" for module in pinned["modules"]]
    return [str(path.relative_to(folder)) for path in sorted(folder.glob("tests/test_*.py"))]


def _node(folder: Path, test: str) -> str:
    """Return what selects a test on pytest's command line."""
    place, _, name = test.partition("::")
    parts = place.split(".")
    end = next(end for end in range(len(parts), 0, -1) if (folder / "/".join(parts[:end])).with_suffix(".py").exists())
    return "::".join(("/".join(parts[:end]) + ".py", *parts[end:], name))


def _outcome(results: Path) -> Outcome:
    cases = Xml.parse(results).iter("testcase")  # noqa: S314 - pytest wrote the file
    tags = {f"{case.get('classname')}::{case.get('name')}": {part.tag for part in case} for case in cases}
    skipped = {test for test in tags if "skipped" in tags[test]}
    failed = {test for test in tags if tags[test] & {"failure", "error"}}
    return tags.keys() - failed - skipped, failed
