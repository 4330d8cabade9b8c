"""The workflows of the template and of a bake: least permissions, pinned actions, updates that wait a week."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from baking import Bake, Result, run
from programs import program

USED = re.compile(r"uses: (.+)")
PINNED = re.compile(r"(?P<action>[\w./-]+)@(?P<commit>[0-9a-f]{40}) # v\d+\.\d+\.\d+")
WEAK = """\
on: pull_request_target
jobs:
  check:
    runs-on: ubuntu-latst
    time-out: 15
    steps:
      - uses: actions/checkout@v6
      - run: echo ${{ github.event.pull_request.title }}
"""
WEAK_UPDATES = """\
version: 2
updates:
  - package-ecosystem: uv
    directory: /
    schedule: {interval: weekly}
    patience: none
"""

Tool = Callable[..., Result]


@pytest.fixture(scope="module")
def folders(template: Path, shared: Bake) -> list[Path]:
    """The folder `.github` of the template, and that of a bake."""
    return [template / ".github", shared.path / ".github"]


@pytest.fixture
def weak(tmp_path: Path) -> Path:
    """A folder `.github` with many faults."""
    folder = tmp_path / ".github"
    (folder / "workflows").mkdir(parents=True)
    (folder / "workflows" / "ci.yml").write_text(WEAK, "utf-8")
    (folder / "dependabot.yml").write_text(WEAK_UPDATES, "utf-8")
    return folder


@pytest.fixture
def tool(environment: dict[str, str], tmp_path: Path) -> Tool:
    """A function that runs a program of `programs.txt`: `tool("zizmor", "--offline", path)`."""

    def tool(*command: str) -> Result:
        return run(*program(*command), cwd=tmp_path, environment=environment, check=False)

    return tool


def test_zizmor(tool: Tool, folders: list[Path], weak: Path) -> None:
    """Zizmor finds nothing, even in its pedantic mode."""

    def audit(*folders: Path) -> Result:
        flags = ("--offline", "--persona", "pedantic", "--no-progress", "--color", "never")
        return tool("zizmor", *flags, *map(str, folders))

    found = audit(weak).stdout
    for rule in ("unpinned-uses", "artipacked", "excessive-permissions", "template-injection", "cooldown"):
        assert rule in found, "negative control"

    clean = audit(*folders)
    assert clean.returncode == 0
    assert clean.stdout.strip().startswith("No findings to report.")
    assert clean.stderr.count("completed") == sum(len(yaml_files(folder)) for folder in folders)
    print("zizmor:", clean.stdout.strip())


def test_actionlint(tool: Tool, folders: list[Path], weak: Path) -> None:
    """Actionlint finds nothing."""
    assert "ubuntu-latst" in tool("jactionlint", *yaml_files(weak)).stdout, "negative control"
    for folder in folders:
        said = tool("jactionlint", *yaml_files(folder))
        assert (said.returncode, said.stdout) == (0, "")


@pytest.mark.parametrize(
    ("schema", "pattern"), [("github-workflows", "workflows/*.yml"), ("dependabot", "dependabot.yml")]
)
def test_schemas(tool: Tool, folders: list[Path], weak: Path, schema: str, pattern: str) -> None:
    """The files match the schemas of GitHub."""

    def check(folder: Path) -> int:
        names = [str(path) for path in folder.glob(pattern)]
        return tool("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *names).returncode

    assert check(weak)
    assert [check(folder) for folder in folders] == [0, 0]


def test_pinned_actions(folders: list[Path]) -> None:
    """Every action is pinned to one commit, and a comment names its version."""
    texts = [Path(name).read_text("utf-8") for folder in folders for name in yaml_files(folder)]
    used = [use for text in texts for use in USED.findall(text)]
    pins = [PINNED.fullmatch(use) for use in used]
    assert used
    assert [use for use, pin in zip(used, pins, strict=True) if not pin] == []
    commits = {(pin["action"], pin["commit"]) for pin in pins if pin}
    assert len(commits) == len({action for action, _ in commits}), "the same commit everywhere"


def test_matrix(template: Path) -> None:
    """A bake is tested on every system and every Python."""
    workflow = (template / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    assert "system: [ubuntu-latest, macos-latest, windows-latest]" in workflow
    assert 'python: ["3.11", "3.12", "3.13", "3.14", "3.15"]' in workflow


def test_workflow_of_a_bake(shared: Bake) -> None:
    """It runs the checks, searches for keys, and audits the dependencies."""
    commands = (shared.path / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    for command in ("ruff check", "mypy", "-m pytest", "secret-key scan", "pip-audit"):
        assert command in commands


def yaml_files(folder: Path) -> list[str]:
    """Return the YAML files of a folder."""
    return [str(path) for path in sorted(folder.rglob("*.yml"))]
