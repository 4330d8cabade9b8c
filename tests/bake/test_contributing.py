"""Run every command of CONTRIBUTING.md, those that take long in a cheap form."""

import sys
from pathlib import Path

import life
import pytest
from baking import TEMPLATE, UV, Result, run
from readme import blocks

LINES = [line for block in blocks(TEMPLATE / "CONTRIBUTING.md") for line in block]
MADE_CHEAP = {
    "uv run pytest tests/secure": "--help",
    "uv run mypy": "tools/life.py",
    "uv run pytest": "--numprocesses=0 tests/secure/keys/test_text.py",
    "uv run python tools/mutation.py": "no_such_module",
    "uv run -m benchmarks": "none",
}
"""What is added to a command so that it takes seconds. The last two only start, and refuse the word."""
FAILS = {
    "uv run python tools/mutation.py": (1, "no_such_module: no module has this word in its path\n"),
    "uv run -m benchmarks": (2, "benchmarks: no such benchmark: none\nhint: "),
}


def run_line(line: str, clone: Path, environment: dict[str, str]) -> Result:
    """Run a command of the page in a clone, with the libraries of this process."""
    (clone / ".venv").symlink_to(sys.prefix)
    path = f"{Path(UV).parent}:{environment['PATH']}"
    command = f"{line} {MADE_CHEAP.get(line, '')}".replace(" /tmp ", f" {clone.parent} ")
    as_it_is = environment | {"UV_NO_SYNC": "1", "PATH": path}
    return run("bash", "-c", command, cwd=clone, environment=as_it_is, check=False)


def test_cheap_forms() -> None:
    """Each cheap form is of a command on the page."""
    assert set(MADE_CHEAP) <= set(LINES)


@pytest.mark.parametrize("line", LINES)
def test_command(line: str, clone: Path, environment: dict[str, str]) -> None:
    """Each command does what the page says."""
    for picture in (clone / "pictures").iterdir():
        picture.unlink()
    done = run_line(line, clone, environment)
    status, message = FAILS.get(line, (0, ""))
    assert done.returncode == status, done
    assert done.stderr.startswith(message)

    if "cookiecutter" in line:
        assert (clone.parent / "my-flask-app" / ".env").exists()
    drawn = {picture.name for picture in (clone / "pictures").iterdir()}
    every = {picture.name for picture in life.PICTURES.iterdir()}
    of_life = {name for name in every if name.startswith("life-")}
    assert drawn == {"uv run tools/life.py": of_life, "uv run tools/pictures.py": every - of_life}.get(line, set())
