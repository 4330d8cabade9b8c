"""Run every command of CONTRIBUTING.md, those that take long in a cheap form."""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import life
import pytest
from baking import TEMPLATE, UV, Bake, Result, run, share_environment
from copying import COPIER, copy
from programs import program
from readme import blocks

PAGE = (TEMPLATE / "CONTRIBUTING.md").read_text("utf-8")
LINES = [line for block in blocks(TEMPLATE / "CONTRIBUTING.md") for line in block]
MADE_CHEAP = {
    "uv run pytest tests/secure": "--help",
    'uv run pytest tests/secure -m "not slow" --hypothesis-profile=short': "--help",
    "uv run pytest -n 0 tests/secure/keys/test_keyring.py": "--hypothesis-profile=short",
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
    share_environment(Path(sys.prefix), clone, Path(environment["PYTHONPYCACHEPREFIX"]))
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


# A release, by the commands of the page and in their order.


@pytest.fixture
def gpg(environment: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables of a maintainer, whose key ends with the test."""
    if not shutil.which("gpg"):
        pytest.skip("gnupg is not installed")
    home = tmp_path / "gpg"
    home.mkdir(mode=0o700)
    own = environment | {"GNUPGHOME": str(home), "PATH": f"{Path(UV).parent}:{environment['PATH']}"}
    name = "A Tester <tester@example.invalid>"
    made = ("gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", name, "ed25519", "sign", "never")
    run(*made, cwd=home, environment=own)
    yield own
    subprocess.run(["gpgconf", "--kill", "all"], env=own, check=True)


def put_in(path: Path, pattern: str, new: str) -> None:
    """Replace the first text of a file that matches a pattern."""
    text, count = re.subn(pattern, new, path.read_text("utf-8"), count=1, flags=re.MULTILINE)
    assert count == 1
    path.write_text(text, "utf-8")


def test_release(clone: Path, gpg: dict[str, str], tmp_path: Path) -> None:
    """A project of each tool goes from the last tag to the new one; the changelog names the SHA-256 of `secure`."""
    steps = PAGE.partition("\n## A release\n")[2]
    typed = re.findall(r"`((?:uv|bash|git|copier|cruft) [^`]+)`", steps)
    sha, ci, commit, tag, push, with_copier, with_cruft = typed

    def sh(command: str, folder: Path = clone) -> Result:
        return run("bash", "-ec", command, cwd=folder, environment=gpg | cheap)

    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("apt-get", "sudo"):  # a test installs nothing on the machine
        (tools / name).write_text("#!/bin/sh\nexit 1\n")
        (tools / name).chmod(0o755)
    one_module = "--numprocesses=0 tests/secure/keys/test_text.py"
    cheap = {"UV_NO_SYNC": "1", "PYTEST_ADDOPTS": one_module, "PATH": f"{tools}:{gpg['PATH']}"}
    sh(f"git tag v0.1.0; git clone --quiet --bare . '{tmp_path}/template.git'")
    sh(f"git remote add origin '{tmp_path}/template.git'; echo .venv >> .git/info/exclude")
    share_environment(Path(sys.prefix), clone, Path(gpg["PYTHONPYCACHEPREFIX"]))
    address = (tmp_path / "template.git").as_uri()
    copied = copy(address, tmp_path / "copied", gpg, "--vcs-ref", "v0.1.0")
    created = ("cruft", "create", "--no-input", "--checkout", "v0.1.0", "--output-dir", str(tmp_path), address)
    run(*program(*created), cwd=tmp_path, environment=gpg)
    projects = [copied, Bake(tmp_path / "my-flask-app", copied.result, gpg)]
    for project in projects:
        sh("git add --all; git commit --quiet --message Created", project.path)
    keys = [project.env_file() for project in projects]

    put_in(clone / "pyproject.toml", '^version = ".*"$', 'version = "0.2.0"')
    [printed] = re.findall("[0-9a-f]{64}", sh(sha).stdout)
    news = f"## 0.2.0, 2026-12-01\n\nSHA-256: {printed}\n\n**To do when you update:** nothing.\n\n## "
    put_in(clone / "CHANGELOG.md", "^## ", news)
    said = sh(ci).stdout
    assert re.search(r" \d+ passed in ", said)
    sh(commit)
    sh(tag)
    sh(push)
    assert "Good signature" in sh("git verify-tag v0.2.0 2>&1").stdout

    sh(with_copier.replace("copier", COPIER, 1), projects[0].path)
    tool, *arguments = with_cruft.split()
    run(*program(tool, *arguments), cwd=projects[1].path, environment=gpg)
    for project in projects:
        text = (project.package / "secure" / "release.sha256").read_bytes()
        assert text.startswith(b"# secure 0.2.0\n")
        assert hashlib.sha256(text).hexdigest() == printed
    assert [project.env_file() for project in projects] == keys
