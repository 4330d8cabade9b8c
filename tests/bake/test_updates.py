"""A project follows its template from tag to tag with cruft, and its key stays where and what it is."""

import re
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from baking import PROJECT, TEMPLATE, Bake, Result, run
from programs import program

KEY_PATTERN = re.compile("fsk_[0-9]{8}T[0-9]{6}Z_[0-9a-f]{64}")
"""What every key begins with: the project's own, and those of the bakes that cruft makes to compare."""
README = (TEMPLATE / "README.md").read_text("utf-8")


@dataclass(frozen=True)
class Team:
    """A project made from the first tag of a template that has a second one, and committed."""

    project: Bake
    said: list[str]
    """All that cruft and git have printed."""

    def cruft(self, *arguments: str, check: bool = True) -> Result:
        """Run cruft in the project's folder."""
        return self._heard(self.project.run(*program("cruft", *arguments), check=check))

    def update(self) -> Result:
        """Go on to the second tag, as the README says."""
        return self.cruft(*typed("update", "v0.2.0", "v2"), "--skip-apply-ask")

    def git(self, *arguments: str) -> str:
        """What git prints of the project."""
        return self._heard(self.project.run("git", *arguments)).stdout

    def commit(self) -> None:
        """Commit all that git does not ignore, as a team would."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Work")

    def _heard(self, result: Result) -> Result:
        self.said.extend((result.stdout, result.stderr))
        return result


def typed(step: str, *changes: str) -> list[str]:
    """The arguments that the README has people type after `cruft`, with every other of `changes` put in."""
    [command] = re.findall(rf"^\$ cruft ({step}.*)$", README, re.MULTILINE)
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in command
        command = command.replace(old, new)
    return str(command).split()


@pytest.fixture
def environment(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The variables, with folders that nothing else has written to."""
    folders = {"HOME": tmp_path / "home", "TMPDIR": tmp_path / "tmp"}
    for folder in folders.values():
        folder.mkdir()
    return environment | {name: str(folder) for name, folder in folders.items()}


@pytest.fixture
def tags(tmp_path: Path, template: Path, environment: dict[str, str]) -> Path:
    """The template in a repository, with a tag v1 as it is, and a tag v2 that changes the project."""
    repository = tmp_path / "template"
    shutil.copytree(template, repository)

    def release(tag: str) -> None:
        for command in (("add", "--all", "--force"), ("commit", "--quiet", "-m", tag), ("tag", tag)):
            run("git", *command, cwd=repository, environment=environment)

    run("git", "init", "--quiet", cwd=repository, environment=environment)
    release("v1")
    project = repository / PROJECT.name
    package = project / "{{cookiecutter.package_name}}"
    for path, old, new in (
        (project / ".env.example", "#APP_ENV=development", "#APP_ENV=testing"),
        (package / "views.py", '"""Your pages.', '"""The pages of v2.'),
        (package / "secure" / "keys" / "files.py", "APP_ENV=development", "# Made by v2\\nAPP_ENV=development"),
    ):
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new), "utf-8")
    (package / "added.py").write_text('"""New in v2."""\n', "utf-8")
    release("v2")
    return repository


@pytest.fixture
def make_team(tmp_path: Path, tags: Path, environment: dict[str, str]) -> Callable[..., Team]:
    """A function that makes a team: `make_team(before_commit)` changes the fresh project first."""

    def make(before_commit: Callable[[Path], object] = lambda _: None) -> Team:
        home = tmp_path / "team"
        home.mkdir()
        (home / "team.yaml").write_text("default_context:\n  author: The Platform Team\n", "utf-8")
        create = typed("create", "v0.1.0", "v1", "https://git.example.org/flask-secure-start", tags.as_uri())
        result = run(*program("cruft", *create, "--no-input"), cwd=home, environment=environment)
        team = Team(Bake(home / "my-flask-app", result, environment), [result.stdout, result.stderr])
        before_commit(team.project.path)
        team.commit()
        return team

    return make


def test_a_project_follows_its_template_from_tag_to_tag(make_team: Callable[..., Team]) -> None:
    team = make_team()
    package = team.project.package
    assert "The Platform Team" in (team.project.path / "pyproject.toml").read_text("utf-8")

    assert team.cruft("check", check=False).returncode == 1, "there is a newer tag"
    team.cruft("diff", "--exit-code")
    team.update()

    assert (package / "views.py").read_text("utf-8").startswith('"""The pages of v2.')
    assert (package / "added.py").exists()
    assert '"checkout": "v2"' in (team.project.path / ".cruft.json").read_text("utf-8")
    team.commit()
    team.cruft("check")
    team.cruft("diff", "--exit-code")


def test_an_update_leaves_the_key_alone_and_never_shows_one(
    make_team: Callable[..., Team], environment: dict[str, str]
) -> None:
    team = make_team()
    env = team.project.path / ".env"
    before = env.read_bytes()
    assert KEY_PATTERN.search(before.decode())

    for command in ("check", "diff"):
        team.cruft(command, check=False)
    team.update()
    team.commit()
    team.cruft("diff")

    assert env.read_bytes() == before
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    assert not KEY_PATTERN.search("".join(team.said))
    assert not holding_a_key(Path(environment["TMPDIR"]), Path(environment["HOME"]))
    assert team.project.env_file()["SECRET_KEY"] not in team.git("log", "--patch", "--all")


def test_what_cannot_be_merged_is_told_and_git_would_add_no_rest_of_it(
    make_team: Callable[..., Team],
) -> None:
    def own_words(project: Path) -> None:
        views = next(project.glob("*/views.py"))
        views.write_text(views.read_text("utf-8").replace('"""Your pages.', '"""Our pages.'), "utf-8")

    team = make_team(own_words)
    env = (team.project.path / ".env").read_bytes()
    told = team.update()

    assert "views.py" in told.stdout + told.stderr
    rejected = [path.name for path in team.project.path.rglob("*.rej")]
    assert rejected == ["views.py.rej"]
    assert ".rej" not in team.git("status", "--porcelain", "--untracked-files=all")
    assert (team.project.path / ".env").read_bytes() == env
    assert (team.project.package / "added.py").exists(), "the rest is updated"


def test_a_difference_shows_nothing_of_the_project_s_own_git_settings(
    make_team: Callable[..., Team],
) -> None:
    """A remote's address may hold a password; cruft compares whatever files both sides have."""
    team = make_team()
    team.git("remote", "add", "origin", "https://user:password@example.invalid/project")
    said = team.cruft("diff", "--exit-code")
    assert "password" not in said.stdout


def holding_a_key(*folders: Path) -> list[Path]:
    """The files below `folders` that hold a key."""
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [path for path in files if KEY_PATTERN.search(path.read_text("utf-8", errors="replace"))]
