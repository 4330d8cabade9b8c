"""Follow docs/updating.md with both tools: projects follow their template, and keep their keys and their own work."""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from baking import COOKIECUTTER, PROJECT, TEMPLATE, Bake, Result, run
from copying import COPIER, copy, tree
from programs import program
from readme import blocks
from warm import Warm

PAGE = TEMPLATE / "docs" / "updating.md"
ADDRESS = "https://git.example.org/flask-secure-start.git"
"""What the page calls the template."""
KEY_PATTERN = re.compile("fsk_[0-9]{8}T[0-9]{6}Z_[0-9a-f]{64}")
"""What every key begins with: the project's own, and those of the bakes that cruft makes to compare."""
FIRST_COMMIT = re.findall(
    "`((?:uv|git) [^`]+)`", PAGE.read_text("utf-8").partition("\nThen run ")[2].partition("\n\n")[0]
)
"""What the page has a team run in a new project."""
PACKAGE = "{{cookiecutter.package_name}}"


def typed(start: str, *changes: str) -> tuple[str, ...]:
    """Return the command of the page that starts with `start`, with every other of `changes` put in."""
    [command] = re.findall(rf"^\$ uvx ({start}.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in command
        command = command.replace(old, new)
    tool, *arguments = str(command).split()
    return (COPIER, *arguments) if tool == "copier" else program(tool, *arguments)


def answers_of(tool: str) -> str:
    """Return the file that the page has a team write for a tool."""
    files = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return str(files[("copier", "cruft").index(tool)])


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that a file has once or more."""
    text = path.read_text("utf-8")
    assert old in text, f"{path.name} has no {old}"
    path.write_text(text.replace(old, new), "utf-8")


def called(*command: str, cwd: Path, copier: Warm, check: bool = True) -> Result:
    """Run a command, or copier, with the variables of `copier`."""
    warm = copier if command[0] == COPIER else None
    return run(*command, cwd=cwd, environment=copier.environment, check=check, warm=warm)


@dataclass(frozen=True)
class Team:
    """A project of a team that uses one of the tools, and all that it has read on its terminal."""

    tool: str
    project: Bake
    copier: Warm
    said: list[str]

    def run(self, *command: str, check: bool = True) -> Result:
        """Run a command in the project's folder."""
        result = called(*command, cwd=self.project.path, copier=self.copier, check=check)
        self.said.extend((result.stdout, result.stderr))
        return result

    def is_behind(self) -> bool:
        """Whether the tool says that there is a newer tag."""
        command = typed("copier check-update") if self.tool == "copier" else typed("cruft check")
        result = self.run(*command, check=False)
        assert result.returncode in ((0,) if self.tool == "copier" else (0, 1)), result.stderr
        return result.returncode == 1 or "New template version available" in result.stdout

    def update(self, tag: str) -> Result:
        """Go to another tag."""
        if self.tool == "copier":
            return self.run(*typed("copier update"), "--vcs-ref", tag)
        return self.run(*typed("cruft update", "v0.2.0", tag))

    def git(self, *arguments: str) -> str:
        """Return what git prints of the project."""
        return self.run("git", *arguments).stdout

    def commit(self) -> None:
        """Commit all that git does not ignore, as a team would."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Work")

    def env_file(self) -> tuple[bytes, int, int, int]:
        """Return what must not change of `.env`: its bytes, inode, mode and time."""
        path = self.project.path / ".env"
        status = path.stat()
        return path.read_bytes(), status.st_ino, status.st_mode, status.st_mtime_ns


@pytest.fixture
def own(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The variables, with folders that nothing else has written to."""
    folders = {"HOME": tmp_path / "home", "TMPDIR": tmp_path / "tmp"}
    for folder in folders.values():
        folder.mkdir()
    return environment | {name: str(folder) for name, folder in folders.items()}


@pytest.fixture
def copier(own: dict[str, str]) -> Iterator[Warm]:
    """Copier with these variables, loaded once."""
    with Warm(COPIER, own) as warm:
        yield warm


@pytest.fixture
def tags(tmp_path: Path, template: Path, own: dict[str, str]) -> Path:
    """The template in a repository with three tags, each of which changes the project."""
    repository = tmp_path / "template.git"
    shutil.copytree(template, repository)
    run("git", "init", "--quiet", cwd=repository, environment=own)
    project, package = repository / PROJECT.name, repository / PROJECT.name / PACKAGE
    release(repository, "v0.1.0", own)
    edit(project / ".env.example", "#APP_ENV=development", "#APP_ENV=testing")
    edit(package / "views.py", '"""Your pages.', '"""The pages of v0.2.0.')
    edit(package / "secure" / "keys" / "files.py", "APP_ENV=development", "# Made by v0.2.0\\nAPP_ENV=development")
    (package / "added.py").write_text('"""New in v0.2.0."""\n', "utf-8")
    release(repository, "v0.2.0", own)
    edit(project / ".env.example", "#APP_ENV=testing", "#APP_ENV=production")
    edit(package / "secure" / "keys" / "files.py", "Made by v0.2.0", "Made by v0.3.0")
    (package / "added.py").unlink()
    without_tasks(repository)  # whatever a later version does, a project keeps its key
    release(repository, "v0.3.0", own)
    return repository


def without_tasks(template: Path) -> None:
    """Remove the tasks of a template for copier."""
    path = template / "copier.yml"
    text, removed = re.subn(r"^_tasks:\n(?: .*\n)+", "", path.read_text("utf-8"), flags=re.MULTILINE)
    assert removed == 1
    path.write_text(text, "utf-8")


def release(repository: Path, tag: str, environment: Mapping[str, str]) -> None:
    """Commit and tag a template."""
    for command in (("add", "--all", "--force"), ("commit", "--quiet", "-m", tag), ("tag", tag)):
        run("git", *command, cwd=repository, environment=environment)


@pytest.fixture(params=["copier", "cruft"])
def make_team(
    request: pytest.FixtureRequest, tmp_path: Path, tags: Path, own: dict[str, str], copier: Warm
) -> Callable[..., Team]:
    """A function that makes a team: `make_team(before_commit)` changes the fresh project first."""

    def make(before_commit: Callable[[Path], object] = lambda _: None) -> Team:
        home = tmp_path / "team"
        home.mkdir()
        (home / "team.yaml").write_text(answers_of(request.param), "utf-8")
        start = {"copier": "copier copy", "cruft": "cruft create"}[request.param]
        questions = () if request.param == "copier" else ("--no-input",)
        command = (*typed(start, ADDRESS, tags.as_uri()), *questions)
        result = called(*command, cwd=home, copier=copier)
        project = Bake(home / "my-flask-app", result, own)
        team = Team(request.param, project, copier, [result.stdout, result.stderr])
        before_commit(team.project.path)
        for line in FIRST_COMMIT:
            team.run("bash", "-ec", line)
        assert "uv.lock" in team.git("ls-files").split()
        return team

    return make


def test_three_versions(make_team: Callable[..., Team], tags: Path, own: dict[str, str]) -> None:
    """A project follows two releases. Its `.env` stays as it is, and no key is shown or saved."""
    team = make_team()
    package = team.project.package
    before = team.env_file()
    assert KEY_PATTERN.search(before[0].decode())
    assert "The Platform Team" in (team.project.path / "pyproject.toml").read_text("utf-8")
    assert team.is_behind()

    team.update("v0.2.0")
    assert (package / "views.py").read_text("utf-8").startswith('"""The pages of v0.2.0.')
    assert (package / "added.py").exists()
    assert team.env_file() == before
    team.commit()

    team.update("v0.3.0")
    assert not (package / "added.py").exists()
    assert "v0.3.0" in (package / "secure" / "keys" / "files.py").read_text("utf-8")
    assert team.env_file() == before
    team.commit()
    assert not team.is_behind()

    assert not KEY_PATTERN.search("".join(team.said))
    assert not holding_a_key(Path(own["TMPDIR"]), Path(own["HOME"]))
    assert team.project.env_file()["SECRET_KEY"] not in team.git("log", "--patch", "--all")


def our_words(project: Path) -> None:
    """Edit a line that v0.2.0 changes too."""
    edit(next(project.glob("*/views.py")), '"""Your pages.', '"""Our pages.')


def test_own_work(make_team: Callable[..., Team], tags: Path) -> None:
    """A team's edits merge, or are ordinary conflicts in its own files. None is in `secure`."""
    team = make_team()
    our_words(team.project.path)
    example = team.project.path / ".env.example"
    example.write_text(f"{example.read_text('utf-8')}# OUR_SETTING=1\n", "utf-8")
    team.commit()
    before = team.env_file()

    team.update("v0.2.0")
    assert team.git("diff", "--name-only", "--diff-filter=U").split() == ["my_flask_app/views.py"]
    assert "both modified:   my_flask_app/views.py" in team.git("status"), "as the page says"
    ours, theirs = '"""Our pages.', '"""The pages of v0.2.0.'
    views = (team.project.package / "views.py").read_text("utf-8")
    assert re.match(f"<<<<<<< .*\n{ours}.*\n=======\n{theirs}.*\n>>>>>>> ", views), "both, for the team to choose"
    merged = example.read_text("utf-8")
    assert "#APP_ENV=testing" in merged
    assert merged.endswith("# OUR_SETTING=1\n")
    run("git", "checkout", "--quiet", "v0.2.0", cwd=tags, environment=team.project.environment)
    assert tree(team.project.package / "secure") == tree(tags / PROJECT.name / PACKAGE / "secure")
    assert team.env_file() == before


@pytest.mark.parametrize("make_team", ["cruft"], indirect=True)
def test_rejected(make_team: Callable[..., Team]) -> None:
    """Without a commit of what it has made, cruft cannot merge. Git ignores the file with the rest."""
    team = make_team(our_words)
    before = team.env_file()
    team.update("v0.2.0")
    assert [path.name for path in team.project.path.rglob("*.rej")] == ["views.py.rej"]
    assert ".rej" not in team.git("status", "--porcelain", "--untracked-files=all")
    assert (team.project.package / "added.py").exists(), "the rest is updated"
    assert team.env_file() == before


def test_task_in_every_operation(tmp_path: Path, tags: Path, own: dict[str, str], copier: Warm) -> None:
    """A control: if a version runs its tasks in an update too, a later one deletes the key."""
    run("git", "checkout", "--quiet", "-B", "wrong", "v0.1.0", cwd=tags, environment=own)
    edit(tags / "copier.yml", "    when: \"{{cookiecutter._copier_operation == 'copy'}}\"\n", "")
    release(tags, "v0.1.1", own)
    project = copy(tags.as_uri(), tmp_path / "project", own, "--vcs-ref", "v0.1.1", warm=copier)
    for command in (("add", "--all"), ("commit", "--quiet", "--message", "Created")):
        project.run("git", *command)
    assert (project.path / ".env").exists()
    called(*typed("copier update"), "--vcs-ref", "v0.3.0", cwd=project.path, copier=copier)
    assert not (project.path / ".env").exists()


@pytest.mark.parametrize("make_team", ["cruft"], indirect=True)
def test_cruft_diff(make_team: Callable[..., Team]) -> None:
    """`cruft diff` compares whatever files both sides have: it shows no key and no password of a remote."""
    team = make_team()
    team.git("remote", "add", "origin", "https://user:password@example.invalid/project")
    team.run(*program("cruft", "diff", "--exit-code"))
    team.update("v0.2.0")
    team.commit()
    team.run(*program("cruft", "diff", "--exit-code"))
    assert "password" not in "".join(team.said)
    assert not KEY_PATTERN.search("".join(team.said))


def holding_a_key(*folders: Path) -> list[Path]:
    """The files below `folders` that hold a key."""
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [path for path in files if KEY_PATTERN.search(path.read_text("utf-8", errors="replace"))]


# A fork of an organization, in the lines of the page.

FORK, NEXT = blocks(PAGE)
SERVED = """
from my_flask_app.app import create_app
answer = create_app().test_client().get("/", base_url="https://localhost")
print(answer.headers["Content-Security-Policy"])
"""


def test_fork(tmp_path: Path, tags: Path, own: dict[str, str], shared: Bake) -> None:
    """A fork has its own defaults, files and policy with both tools, and follows our releases."""
    assert len(FORK) <= 10
    lines = "\n".join(FORK).replace(ADDRESS, tags.as_uri())
    run("git", "checkout", "--quiet", "-B", "main", "v0.1.0", cwd=tags, environment=own)
    run("bash", "-ec", lines, cwd=tmp_path, environment=own)
    fork = tmp_path / "acme-flask"
    copied = copy(f"git+{fork.as_uri()}", tmp_path / "copied", own, "--vcs-ref", "v0.1.0+acme.1")
    run(str(COOKIECUTTER), "--no-input", f"git+{fork.as_uri()}", cwd=tmp_path, environment=own)
    baked = Bake(tmp_path / "my-flask-app", copied.result, own)
    expected = tree(baked.path, ".env")
    assert tree(copied.path, ".env", ".copier-answers.yml") == expected
    assert expected["CODEOWNERS"][1] == b"* @acme/platform\n"
    metadata = expected["pyproject.toml"][1].decode()
    assert 'description = "An app of Acme."' in metadata
    assert 'authors = [{ name = "Acme" }]' in metadata
    assert "https://cdn.acme.example" in copied.run(shared.program("python"), "-c", SERVED).stdout
    copied.run(shared.program("ruff"), "check")
    copied.run(shared.program("ruff"), "format", "--check")

    for command in (("add", "--all"), ("commit", "--quiet", "--message", "Created")):
        copied.run("git", *command)
    run("bash", "-ec", "\n".join(NEXT), cwd=fork, environment=own)
    tags_of_fork = run("git", "tag", cwd=fork, environment=own).stdout.split()
    assert tags_of_fork == ["v0.1.0+acme.1", "v0.2.0+acme.1"]
    key = (copied.path / ".env").read_bytes()
    copied.run(*typed("copier update"))
    assert "_commit: v0.2.0+acme.1\n" in (copied.path / ".copier-answers.yml").read_text("utf-8")
    assert (copied.package / "added.py").exists()
    assert "https://cdn.acme.example" in (copied.package / "app.py").read_text("utf-8")
    assert (copied.path / ".env").read_bytes() == key
