"""What a team finds on day one: its editor, a dev container, CI on two platforms, locked libraries, other systems."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import editorconfig
import post_gen_project
import pytest
import yaml
from baking import TEMPLATE, UV, Bake, Result, run
from pre_gen_project import WINDOWS_RESERVED
from programs import program
from serving import serving

CONTAINER = ".devcontainer.json"


def clone(project: Bake, folder: Path, *options: str) -> Bake:
    """Return a fresh clone of a committed project, as a colleague or CI has it."""
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--allow-empty", "-m", "Baked")
    project.run("git", *options, "clone", "--quiet", str(project.path), str(folder))
    return Bake(folder, project.result, {**project.environment, "UV_PYTHON": sys.executable})


@pytest.fixture
def cloned(tmp_path: Path, bake: Callable[..., Bake]) -> Bake:
    """A clone of a new project: it has no `.env`."""
    return clone(bake(), tmp_path / "clone")


def tracked(project: Bake) -> list[str]:
    """Return the files that git has or would add."""
    listed = project.run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout
    return [name for name in listed.split("\0") if name]


def shell(project: Bake, command: str, check: bool = True) -> Result:
    """Run a line of a script as CI does."""
    return project.run("bash", "-ec", command, check=check)


def test_size(bake: Callable[..., Bake]) -> None:
    """A project is small."""
    project = bake()
    files = tracked(project)
    team = [name for name in files if name.endswith(".py") and "/secure/" not in name]
    lines = sum(len((project.path / name).read_text("utf-8").splitlines()) for name in team)
    assert len(files) <= 65
    assert lines <= 700


# Tests


FIXTURES = """
from pathlib import Path


def test_after_a_request(client, request):
    client.get("/")
    with request.getfixturevalue("signed_in").session_transaction() as session:
        assert session["_user"] == 1


def test_guard(app, request):
    app.before_request(lambda: ("sign in first", 401))
    with request.getfixturevalue("signed_in").session_transaction() as session:
        assert session["_user"] == 1


def test_folder(app, tmp_path):
    assert Path(app.instance_path).is_relative_to(tmp_path)
"""


def test_fixtures(bake: Callable[..., Bake]) -> None:
    """A visitor signs in after other requests and past a guard; no test writes where the app keeps its files."""
    project = bake()
    (project.path / "tests" / "test_fixtures.py").write_text(FIXTURES, "utf-8")

    done = project.run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_fixtures.py")

    assert "3 passed" in done.stdout


# Editors


def faults(path: Path) -> list[str]:
    """Return what the project's .editorconfig does not allow in a file."""
    rules, content = editorconfig.get_properties(str(path)), path.read_bytes()
    text = content.decode(rules["charset"])
    found = {
        "CR LF": rules["end_of_line"] == "lf" and b"\r" in content,
        "white space at the end": rules["trim_trailing_whitespace"] == "true" and re.search(r"[ \t]\r?$", text, re.M),
        "no newline at the end": rules["insert_final_newline"] == "true" and content and not text.endswith("\n"),
        "a tab": rules["indent_style"] == "space" and re.search(r"^ *\t", text, re.M),
    }
    if path.suffix in (".html", ".yml", ".yaml", ".json"):
        widths = {len(indent) for indent in re.findall(r"^( +)(?=[\w<{@\"])", text, re.M)}
        found["another indentation"] = bool(widths) and min(widths) % int(rules["indent_size"]) > 0
    return [f"{path.name}: {name}" for name, is_wrong in found.items() if is_wrong]


def test_editorconfig(bake: Callable[..., Bake]) -> None:
    """The project's own files are as its .editorconfig says."""
    project = bake()
    files = [project.path / name for name in tracked(project) if not name.endswith(".bin")]
    assert len(files) > 50
    assert [fault for path in files for fault in faults(path)] == []

    wrong = project.path / "wrong.yml"
    wrong.write_bytes(b"a: \r\n   b:\r\n\tc")
    assert len(faults(wrong)) == 5


# A dev container


def test_dev_container(cloned: Bake, tmp_path: Path) -> None:
    """It needs no secret: the command that prepares it creates a key, and the app starts."""
    container = json.loads((cloned.path / CONTAINER).read_text("utf-8"))
    cloned.run(UV, "venv", "--quiet", "--seed", str(tmp_path / "image"))
    python = replace(cloned, environment={**cloned.environment, "PATH": f"{tmp_path}/image/bin:/usr/bin:/bin"})

    prepared = shell(python, container["postCreateCommand"])

    key = cloned.env_file()["SECRET_KEY"]
    assert key not in prepared.stdout + prepared.stderr
    assert (cloned.path / ".env").stat().st_mode & 0o777 == 0o600
    command = (cloned.program("flask"), "run", "--port", "PORT")
    with serving(*command, folder=cloned.path, log=tmp_path / "log", environment=cloned.environment) as server:
        assert server.get().status == 200
    assert container["forwardPorts"] == [5000], "where flask run answers"


# CI


def test_gitlab_schema(shared: Bake, tmp_path: Path) -> None:
    pipeline, wrong = shared.path / ".gitlab-ci.yml", tmp_path / ".gitlab-ci.yml"
    wrong.write_text(pipeline.read_text("utf-8").replace("script:", "scripts:"))

    def check(path: Path) -> int:
        command = program("check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", str(path))
        return run(*command, cwd=tmp_path, environment=shared.environment, check=False).returncode

    assert check(wrong) == 1, "negative control"
    assert check(pipeline) == 0


def commands(pipeline: Path) -> list[list[str]]:
    """Return the commands of each job of a workflow or a pipeline."""
    content = yaml.safe_load(pipeline.read_text("utf-8"))
    if "jobs" in content:
        return [[step["run"] for step in job["steps"] if "run" in step] for job in content["jobs"].values()]
    return [job["script"] for job in content.values() if "script" in job]


def test_both_pipelines_do_the_same(shared: Bake) -> None:
    assert commands(shared.path / ".gitlab-ci.yml") == commands(shared.path / ".github/workflows/ci.yml")


def test_locked(tmp_path: Path, bake: Callable[..., Bake]) -> None:
    """The first command writes uv.lock. Once it is committed, CI refuses one that is not current."""
    project = bake()
    assert not (project.path / "uv.lock").exists()
    project.run(UV, "sync", "--quiet")
    assert "uv.lock" in tracked(project)
    theirs = clone(project, tmp_path / "clone")
    sync = commands(theirs.path / ".gitlab-ci.yml")[0][0]
    shell(theirs, sync)

    file = theirs.path / "pyproject.toml"
    file.write_text(
        file.read_text("utf-8").replace('"flask-wtf>=1.3",', '"flask-wtf>=1.3", "itsdangerous>=2",'), "utf-8"
    )

    refused = shell(theirs, sync, check=False)
    assert refused.returncode
    assert "--locked" in refused.stderr


def test_audit(tmp_path: Path, bake: Callable[..., Bake]) -> None:
    """What the page runs in a fleet's CI passes in a new project, and fails after a change in `secure`."""
    page = (TEMPLATE / "docs" / "updating.md").read_text("utf-8")
    [block] = re.findall(r"^\$ (APP_ENV=.*)$", page, re.MULTILINE)
    project = clone(bake(), tmp_path / "clone")
    assert shell(project, block).stdout.endswith("Nothing found.\n")
    if Path("/dev/full").exists():
        full = shell(project, f"{block} > /dev/full", check=False)
        assert full.stderr.splitlines()[-1] == "Error: cannot write the output: no space left on device"
        assert "Traceback" not in full.stderr

    with (project.package / "secure" / "web.py").open("a") as file:
        file.write("# an edit\n")
    found = shell(project, block, check=False)
    assert found.returncode == 1
    assert found.stdout.endswith("\nsecure/web.py: changed\n")


def test_instance_folder_is_ignored(bake: Callable[..., Bake]) -> None:
    project = bake()
    (project.path / "instance").mkdir()
    (project.path / "instance" / "app.db").touch()
    assert [name for name in tracked(project) if "instance" in name] == []


# Windows and macOS


@pytest.mark.parametrize("of", ["template", "project"])
def test_legal_names(of: str, template: Path, shared: Bake) -> None:
    """A name is legal on Windows, and no two names differ in their case only (macOS, Windows)."""
    root = template if of == "template" else shared.path
    names = [path.relative_to(root).as_posix() for path in root.rglob("*") if ".venv" not in path.parts]
    assert len(names) > 60
    assert illegal(names) == []
    assert len({name.lower() for name in names}) == len(names)
    assert max(map(len, names)) < 130, "a path has at most 260 characters"


def illegal(names: list[str]) -> list[str]:
    """Return the names that Windows does not allow."""
    wrong = re.compile(r'[<>:"|?*\\\x00-\x1f]|[ .](/|$)')
    return [
        name
        for name in names
        if wrong.search(name) or {part.partition(".")[0].lower() for part in name.split("/")} & WINDOWS_RESERVED
    ]


def test_illegal_names() -> None:
    names = ["a/b:c", "nul", "a/aux.txt", "name.", "a /b", "a?", "fine/name.py", ".env"]
    assert illegal(names) == names[:6]


def test_windows_line_endings(tmp_path: Path, bake: Callable[..., Bake]) -> None:
    """In a clone with CR LF, as git for Windows makes it, the commands and the checks of the project work."""
    project = clone(bake(), tmp_path / "clone", "-c", "core.autocrlf=true")
    assert b"\r\n" in (project.path / "pyproject.toml").read_bytes()
    shell(project, commands(project.path / ".gitlab-ci.yml")[0][0])
    project.flask("secret-key", "init")
    env = project.path / ".env"
    env.write_bytes(env.read_bytes().replace(b"\n", b"\r\n"))

    project.flask("secret-key", "rotate")
    assert project.flask("secure-audit").stdout.endswith("Nothing found.\n")
    for command in commands(project.path / ".gitlab-ci.yml")[0][1:]:
        shell(project, command)
    served = (project.program("flask"), "run", "--port", "PORT")
    with serving(*served, folder=project.path, log=tmp_path / "log", environment=project.environment) as server:
        assert server.get().status == 200


@pytest.mark.parametrize(
    ("program", "steps"),
    [
        ("uv", "    py -m venv .venv\n    .venv\\Scripts\\activate\n    pip install -e .\n    flask run --debug\n"),
        ("uv.exe", "    uv run flask run --debug\n"),
    ],
)
def test_next_steps_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, steps: str) -> None:
    (tmp_path / program).touch(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        patch.setenv("PATH", str(tmp_path))
        text = post_gen_project.next_steps("my-flask-app", created=True, has_git=True)
    assert f"\n{steps}\n" in text


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.touch(0o644)], ids=["folder", "no program"])
def test_what_is_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]) -> None:
    """A home on PATH may have a folder named git."""
    make(tmp_path / "git")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not post_gen_project.on_path("git")
    (tmp_path / "uv").touch(0o755)
    assert post_gen_project.on_path("uv")


@contextmanager
def exfat(folder: Path) -> Iterator[Path]:
    """A file system that ignores case, as those of Windows and macOS do."""
    image, place = folder / "image", folder / "exfat"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    loop = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True, check=False)
    if loop.returncode or not shutil.which("mkfs.exfat"):
        pytest.skip("no loop device, or no mkfs.exfat")
    device = loop.stdout.strip()
    try:
        subprocess.run(["mkfs.exfat", device], check=True, capture_output=True)
        subprocess.run(["mount.exfat-fuse", "-o", "umask=077", device, place], check=True, capture_output=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def test_file_system_that_ignores_case(tmp_path: Path, bake_into: Callable[..., Bake], shared: Bake) -> None:
    """A project can be baked there, and its commands work."""
    with exfat(tmp_path) as place:
        (place / "Case").touch()
        assert (place / "case").exists(), "the file system ignores case"
        project = bake_into(place)
        flask = shlex.quote(shared.program("flask"))
        assert {*tracked(project)} == {*tracked(shared)} - {"uv.lock"}
        rotated = shell(project, f"PYTHONPATH=. {flask} secret-key rotate && PYTHONPATH=. {flask} secure-audit")
        assert rotated.stdout.endswith("Nothing found.\n")
