"""One command bakes a project that runs, from wherever the template comes and whoever runs it."""

import os
import re
import shutil
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from baking import COOKIECUTTER, UV, Bake, run
from serving import Server, serving

MISSING = (
    "Error: SECRET_KEY: is missing or empty\n"
    "hint: flask secret-key init (on a server, set SECRET_KEY to the output of: flask secret-key generate)\n"
)


def title(project: Bake) -> str:
    """The first line of the README, which has the project's name."""
    return (project.path / "README.md").read_text("utf-8").splitlines()[0]


def start(project: Bake, folder: Path) -> AbstractContextManager[Server]:
    """The project's development server; its output goes to a file in `folder`."""
    command = (project.program("flask"), "run", "--port", "PORT")
    return serving(*command, folder=project.path, log=folder / "log", environment=project.environment)


def test_defaults(shared: Bake) -> None:
    """The defaults bake a good project."""
    assert shared.path.name == "my-flask-app"
    assert shared.package.name == "my_flask_app"
    assert title(shared) == "# My Flask App"


def test_files(bake: Callable[..., Bake], template: Path) -> None:
    """Every file is rendered, and nothing else is there."""
    project = bake()
    source = template / "{{cookiecutter.project_slug}}"
    meant = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    for answer, default in (("package_name", "my_flask_app"), ("project_slug", "my-flask-app")):
        meant = {name.replace(f"{{{{cookiecutter.{answer}}}}}", default) for name in meant}
    meant.remove("{{cookiecutter._copier_conf.answers_file}}")  # an empty name: cookiecutter skips the file
    meant.add(".env")
    files = [path for path in project.path.rglob("*") if path.is_file() and ".git" not in path.parts]
    assert {str(path.relative_to(project.path)) for path in files} == meant
    assert [path for path in files if re.search(rb"{[{%] *cookiecutter", path.read_bytes())] == []


def test_next_steps(tmp_path: Path, bake_into: Callable[..., Bake]) -> None:
    """The output says what to type next: with uv, and with pip where uv is missing."""
    both = {}
    for name, path in (("uv", os.path.dirname(UV)), ("pip", "/nowhere")):
        (tmp_path / name).mkdir()
        both[name] = bake_into(tmp_path / name, under=("env", f"PATH={path}")).result.stdout
    assert "    cd my-flask-app\n    uv run flask run --debug\n" in both["uv"]
    by_hand = ["cd my-flask-app", "python3 -m venv .venv", ". .venv/bin/activate", "pip install -e ."]
    assert "".join(f"    {step}\n" for step in [*by_hand, "flask run --debug"]) in both["pip"]


@pytest.mark.parametrize("pwd", [[], ["PWD=/nowhere"]])
def test_folder_elsewhere(pwd: list[str], tmp_path: Path, bake: Callable[..., Bake]) -> None:
    """The next steps have the whole path if the shell is in another folder."""
    result = bake(under=("env", "-u", "PWD", *pwd)).result
    assert f"    cd {tmp_path / 'my-flask-app'}\n" in result.stdout


def test_folder_in_other_letters(tmp_path: Path, bake_into: Callable[..., Bake]) -> None:
    """A name that the terminal cannot show does not end the bake."""
    folder = tmp_path / "größe 🚀"
    folder.mkdir()
    project = bake_into(folder, under=("env", "-u", "PWD", "PYTHONIOENCODING=ascii"))
    assert "/gr\\xf6\\xdfe \\U0001f680/my-flask-app'\n" in project.result.stdout


def test_zip_file(tmp_path: Path, template: Path, bake_into: Callable[..., Bake]) -> None:
    archive, out = tmp_path / "template.zip", tmp_path / "out"
    out.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        file.mkdir("flask-secure-start")
        for path in sorted(template.rglob("*")):
            file.write(path, Path("flask-secure-start", path.relative_to(template)))
    assert bake_into(out, template=str(archive)).env_file()["SECRET_KEY"]


def test_git_repository(
    tmp_path: Path, template: Path, environment: dict[str, str], bake_into: Callable[..., Bake]
) -> None:
    repository, out = tmp_path / "flask-secure-start", tmp_path / "out"
    shutil.copytree(template, repository)
    out.mkdir()
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "A template"]):
        run("git", *command, cwd=repository, environment=environment)
    assert bake_into(out, template=f"git+file://{repository}").env_file()["SECRET_KEY"]


def test_replay(tmp_path: Path, environment: dict[str, str], template: Path, bake: Callable[..., Bake]) -> None:
    """Replayed answers bake the same project with another key."""
    first = bake(project_name="Replayed & Co.")
    name, key = title(first), first.env_file()["SECRET_KEY"]
    shutil.rmtree(first.path)
    replay = (str(COOKIECUTTER), "--replay", "-o", str(tmp_path), str(template))
    again = Bake(first.path, run(*replay, cwd=tmp_path, environment=environment), environment)
    assert title(again) == name == "# Replayed \\& Co."
    assert again.env_file()["SECRET_KEY"] != key


def test_read_only_folder(tmp_path: Path, bake_into: Callable[..., Bake]) -> None:
    """It is left as it is."""
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    powerless = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
    result = bake_into(out, under=powerless, check=False).result
    assert result.returncode == 1
    assert "Unable to create directory" in result.stderr
    assert list(out.iterdir()) == []


def test_without_hooks(bake: Callable[..., Bake], shared: Bake) -> None:
    """There is no key, and the app refuses to start."""
    project = bake("--accept-hooks", "no")
    assert project.result.returncode == 0
    assert not (project.path / ".env").exists()
    started = project.run(shared.program("flask"), "run", "--port", "0", check=False, PYTHONPATH=".")
    assert (started.returncode, started.stdout) == (1, "")
    assert started.stderr.endswith(MISSING)


def test_fresh_clone(tmp_path: Path, bake_into: Callable[..., Bake]) -> None:
    """Another member of the team creates a key of their own."""
    (tmp_path / "mine").mkdir()
    mine = bake_into(tmp_path / "mine")
    mine.run("git", "add", "--all")
    mine.run("git", "commit", "--quiet", "-m", "Baked")
    clone = tmp_path / "theirs"
    mine.run("git", "clone", "--quiet", str(mine.path), str(clone))
    theirs = Bake(clone, mine.result, mine.environment).synced()
    assert not (clone / ".env").exists()

    refused = theirs.flask("run", "--port", "0", check=False)
    assert (refused.returncode, refused.stdout, refused.stderr) == (1, "", MISSING)

    made = theirs.flask("secret-key", "init").stdout
    key = theirs.env_file()["SECRET_KEY"]
    assert key != mine.env_file()["SECRET_KEY"]
    assert key not in made
    assert (clone / ".env").stat().st_mode & 0o777 == 0o600
    with start(theirs, tmp_path) as server:
        assert server.get().status == 200
    assert theirs.run("git", "status", "--porcelain").stdout in ("", "?? uv.lock\n")
