"""What the two READMEs tell their readers to type works, typed as it stands, in the order that it stands."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TEMPLATE, Bake, run
from readme import OF_PROJECT, OF_TEMPLATE, blocks
from serving import serving

BAKE, TEST = blocks(OF_TEMPLATE)


def test_two_commands_do_all_set_up_and_a_ci_machine_runs_the_second() -> None:
    assert len(BAKE) == len(TEST) == 1
    assert (TEMPLATE / ".ci" / "run").read_text("utf-8").splitlines()[-1] == TEST[0]


def test_the_first_command_bakes_a_project_with_no_more_than_python_pip_and_git(
    tmp_path: Path, template: Path, environment: dict[str, str]
) -> None:
    clone, home = tmp_path / "flask-secure-start", tmp_path / "home"
    home.mkdir()
    shutil.copytree(template, clone)
    run("git", "init", "--quiet", cwd=clone, environment=environment)
    run(sys.executable, "-m", "venv", str(home / ".venv"), cwd=home, environment=environment)
    newcomer = environment | {"HOME": str(home), "PATH": f"{home}/.venv/bin:/usr/bin:/bin"}
    done = run("bash", "-c", BAKE[0], cwd=clone, environment=newcomer, input="\n" * 5)
    project = Bake(tmp_path / "my-flask-app", done, newcomer)
    assert project.env_file()["SECRET_KEY"]
    assert "    uv run flask run --debug\n" in done.stdout
    assert (project.path / ".git").is_dir()


# The project's README is followed from its first block to its last, in a fresh clone, by both ways it offers.

BY_HAND, *STEPS = blocks(OF_PROJECT)
CHECKS = STEPS[2]
SERVERS = {"flask run --debug": ("--port PORT", "/"), "gunicorn": ("--bind 127.0.0.1:PORT", "/healthz")}


@pytest.mark.parametrize(
    ("prefix", "blocks"), [("uv run ", STEPS), ("", [BY_HAND, *STEPS])], ids=["uv", "pip"]
)
def test_the_readme_of_a_project_leads_from_a_fresh_clone_to_a_rotation(
    prefix: str, blocks: list[list[str]], tmp_path: Path, bake: Callable[..., Bake]
) -> None:
    first = bake()
    first.run("git", "add", "--all")
    first.run("git", "commit", "--quiet", "-m", "Baked")
    clone, home = tmp_path / "clone", tmp_path / "home"
    home.mkdir()
    first.run("git", "clone", "--quiet", str(first.path), str(clone))
    project = Bake(clone, first.result, {**first.environment, "HOME": str(home)})

    said = {}
    shell: list[str] = []  # what the lines so far have set in the reader's shell
    for line in (line for block in blocks for line in block):
        if line.startswith(("export ", ". ")):
            shell.append(line)
        elif line in SERVERS:
            port, page = SERVERS[line]
            start = ("bash", "-ec", "\n".join([*shell, f"exec {prefix}{line} {port}"]))
            with serving(
                *start, folder=clone, log=tmp_path / "log", environment=project.environment
            ) as server:
                said[line] = str(server.get(page).status)
        else:
            tool = prefix if line.split()[0] in {"flask", *(check.split()[0] for check in CHECKS)} else ""
            short = " --help" if line in CHECKS else ""  # test_pythons.py runs them in full
            said[line] = project.run("bash", "-ec", "\n".join([*shell, f"{tool}{line}{short}"])).stdout

    assert (clone / ".env").stat().st_mode & 0o777 == 0o600
    assert (home / "keys" / "ring").stat().st_mode & 0o777 == 0o600
    assert len((home / "keys" / "ring").read_text().splitlines()) == 2
    assert [said[line] for line in SERVERS] == ["200", "200"]
    assert said["flask secret-key rotate"].startswith(f"Added a key to {home}/keys/ring.\n")
