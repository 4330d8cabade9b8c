"""Run the commands of both READMEs, as they are written and in their order."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from baking import TEMPLATE, UV, Bake, run
from readme import OF_PROJECT, OF_TEMPLATE, blocks
from serving import serving

SESSIONS = TEMPLATE / "docs" / "sessions.md"
UVX, CLONE, TEST = blocks(OF_TEMPLATE)


def test_last_line_of_ci() -> None:
    """One command runs all tests of the template, and a CI machine runs the same."""
    assert len(UVX) == len(CLONE) == len(TEST) == 1
    assert (TEMPLATE / ".ci" / "run").read_text("utf-8").splitlines()[-1] == TEST[0]


def bake_with(command: str, folder: Path, environment: dict[str, str]) -> Bake:
    """Run a command of the README in `folder`, and press Enter at each question."""
    done = run("bash", "-c", command, cwd=folder, environment=environment, input="\n" * 5)
    return Bake(folder / "my-flask-app", done, environment)


def test_uvx(tmp_path: Path, clone: Path, environment: dict[str, str]) -> None:
    """A newcomer needs only uv. The clone is used instead of GitHub."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uvx").symlink_to(Path(UV).with_name("uvx"))
    newcomer = environment | {"PATH": f"{tools}:/usr/bin:/bin", "UV_TOOL_DIR": str(tmp_path / "uv")}
    command = UVX[0].replace("gh:org/flask-secure-start", str(clone))
    assert command != UVX[0]
    assert bake_with(command, tmp_path, newcomer).env_file()["SECRET_KEY"]


def test_clone(tmp_path: Path, clone: Path, environment: dict[str, str]) -> None:
    """Python, pip and git are all that the second way needs."""
    home, tools = tmp_path / "home", tmp_path / "tools"
    home.mkdir()
    tools.mkdir()
    (tools / "python3").symlink_to(sys.executable)
    newcomer = environment | {"HOME": str(home), "PATH": f"{tools}:/usr/bin:/bin"}
    [own] = re.findall(r"^`(python3 -m venv .*)`\.$", OF_TEMPLATE.read_text("utf-8"), re.MULTILINE)
    done = run("bash", "-c", f"{own} && {CLONE[0]}", cwd=clone, environment=newcomer, input="\n" * 5)
    project = Bake(tmp_path / "my-flask-app", done, newcomer)
    assert project.env_file()["SECRET_KEY"]
    assert "    uv run flask run --debug\n" in done.stdout
    assert (project.path / ".git").is_dir()


# The project's README is followed from its first block to its last, in a fresh clone, in both ways that it offers.

BY_HAND, *STEPS = blocks(OF_PROJECT)
SERVERS = {
    "uv run flask run --debug": ("--port PORT", "/"),
    "uv run gunicorn": ("--bind 127.0.0.1:PORT", "/healthz"),
}


def with_pip(line: str) -> str:
    """Return a command as the README says that it is run without uv."""
    return line.removeprefix("uv run ").removeprefix("--group dev ")


@pytest.mark.parametrize(("way", "steps"), [(str, STEPS), (with_pip, [BY_HAND, *STEPS])], ids=["uv", "pip"])
def test_project(way: Callable[[str], str], steps: list[list[str]], tmp_path: Path, bake: Callable[..., Bake]) -> None:
    """The README leads from a fresh clone to a rotation."""
    first = bake()
    first.run("git", "add", "--all")
    first.run("git", "commit", "--quiet", "-m", "Baked")
    clone, home = tmp_path / "clone", tmp_path / "home"
    home.mkdir()
    first.run("git", "clone", "--quiet", str(first.path), str(clone))
    project = Bake(clone, first.result, {**first.environment, "HOME": str(home)})

    said = {}
    shell: list[str] = []  # what the lines so far have set in the reader's shell
    for line in (line for block in steps for line in block):
        if line.startswith(("export ", ". ")):
            shell.append(line)
        elif line in SERVERS:
            port, page = SERVERS[line]
            start = ("bash", "-ec", "\n".join([*shell, f"exec {way(line)} {port}"]))
            with serving(*start, folder=clone, log=tmp_path / "log", environment=project.environment) as server:
                answer = server.get(page)
                said[line] = str(answer.status)
                assert ("<h1>My Flask App</h1>" in answer.body) == (page == "/")
        else:
            said[line] = project.run("bash", "-ec", "\n".join([*shell, way(line)])).stdout

    tool = "pip install" if way is with_pip else "uv sync"
    extras = re.findall(rf"`({tool} [^`]*)`", SESSIONS.read_text("utf-8"))
    assert len(extras) == 2
    for line, library in zip(extras, ("cryptography", "redis"), strict=True):
        check = f'python -c "import {library}"'
        project.run("bash", "-ec", "\n".join([". .venv/bin/activate", f"! {check} 2>/dev/null", line, check]))

    [keyring] = home.glob("keys/*/keyring")
    assert (clone / ".env").stat().st_mode & 0o777 == 0o600
    assert keyring.stat().st_mode & 0o777 == 0o600
    assert len(keyring.read_text().splitlines()) == 2
    assert [said[line] for line in SERVERS] == ["200", "200"]
    assert " passed" in said["uv run --group dev pytest"]
    assert "TOTAL" in said["uv run --group dev coverage report"]
    assert said["uv run flask secret-key rotate"].startswith(f"Changed {keyring}.\n")


def test_fixtures(shared: Bake) -> None:
    """The README documents the fixtures of the project's tests."""
    code = (shared.path / "tests" / "conftest.py").read_text("utf-8")
    documented = re.findall(r"^\| `(\w+)` \|", OF_PROJECT.read_text("utf-8"), re.MULTILINE)
    assert set(documented) == set(re.findall(r"^@pytest\.fixture\ndef (\w+)", code, re.MULTILINE))
