"""Which project a command acts on: the one in which it is run, or none."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from projects import Program
from secure.keys.key import generate_key
from secure.keys.project import CODE, PACKAGE, ProjectError, find_project, project_root

KEY, OTHER = generate_key(1_700_000_000), generate_key(1_700_000_001)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """A function that makes a folder with these files; it returns the folder."""

    def make(name: str, *files: str) -> Path:
        for file in files:
            path = tmp_path / name / file.replace("CODE", CODE.replace("*", "shop"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        return tmp_path / name

    return make


def refusal(flask_app: str = "", package: Path = PACKAGE) -> str:
    with pytest.raises(ProjectError) as caught:
        find_project(flask_app, package)
    return str(caught.value)


def test_package() -> None:
    """The top-level package, however deep this code is in it."""
    assert PACKAGE.name == "secure"
    assert CODE == "*/keys/project.py"


def test_project_root(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    package, elsewhere = make("project/shop"), make("elsewhere")
    monkeypatch.chdir(elsewhere)
    assert project_root(package) == elsewhere, "an installed app"
    make("project", "pyproject.toml")
    assert project_root(package) == package.parent
    assert project_root() == elsewhere


def test_no_working_directory(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    gone = make("gone")
    monkeypatch.chdir(gone)
    gone.rmdir()
    expected = "working directory: it no longer exists\nhint: change to the project's folder"

    assert refusal() == expected
    with pytest.raises(ProjectError, match="it no longer exists"):
        project_root()


@pytest.mark.parametrize("folder", ["project", "project/tests/deep", "elsewhere"])
def test_checkout(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    project = make("project", "pyproject.toml", "CODE")
    monkeypatch.chdir(make(folder))

    assert find_project(package=project / "shop") == project


@pytest.mark.parametrize("folder", ["project", "project/src", "project/tests"])
def test_source_folder(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """The package may be in `src/`."""
    project = make("project", "pyproject.toml", "src/CODE", "tests/conftest.py")
    package = project / "src" / "shop"
    monkeypatch.chdir(project.parent / folder)

    assert project_root(package) == project
    for flask_app in ("", "shop.app", "shop"):
        assert find_project(flask_app, package) == project
    other = make("other", "pyproject.toml", "src/CODE")
    monkeypatch.chdir(other)
    assert find_project("", package) == other


@pytest.mark.parametrize(
    ("installed", "shared"),
    [
        (["shop flask.commands secret-key"], False),
        (["shop flask.commands secret-key", "store flask.commands secret-key"], True),
        (["shop flask.commands secret-key", "store flask.commands other"], False),
        (["shop flask.commands secret-key", "store console_scripts secret-key"], False),
    ],
)
def test_outside_any_project(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, installed: list[str], shared: bool
) -> None:
    """In an environment with one project, the command acts on that; with two it cannot tell."""
    project, elsewhere, site = make("project", "pyproject.toml", "CODE"), make("elsewhere"), make("site")
    for package, group, command in map(str.split, installed):
        info = make(f"site/{package}-1.0.dist-info", "METADATA", "entry_points.txt")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{command} = {package}.secure.keys.commands:secret_key\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(elsewhere)
    if shared:
        assert refusal(package=project / "shop") == (
            f"working directory {elsewhere}: several projects share this environment: shop, store\n"
            "hint: change to the folder of the project"
        )
    else:
        assert find_project(package=project / "shop") == project


@pytest.mark.parametrize("folder", ["other", "other/sub", "project/nested"])
def test_folder_of_another_project(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """Any other project: a command that is run there cannot act on this one."""
    project = make("project", "pyproject.toml", "CODE")
    other = make(folder.removesuffix("/sub"), "pyproject.toml")
    monkeypatch.chdir(make(folder))

    assert refusal(package=project / "shop") == (
        f"working directory {make(folder)}: it belongs to {other}, not to {project}\nhint: cd {project}"
    )


def test_sibling(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another project with this code: the command acts on that one."""
    project, sibling = make("a", "pyproject.toml", "CODE"), make("b", "pyproject.toml", "CODE")
    monkeypatch.chdir(make("b/tests"))

    assert find_project(package=project / "shop") == sibling


def test_installed(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    package = make("site-packages/shop")
    for name, files in {"bare": (), "with settings": (".env",), "served": ("gunicorn.conf.py",)}.items():
        folder = make(name, *files)
        monkeypatch.chdir(folder)
        assert find_project(package=package) == folder
        monkeypatch.chdir(make(f"{name}/logs"))
        if files:
            assert refusal(package=package) == (
                f"working directory {folder / 'logs'}: the app seems to run in {folder}\n"
                f"hint: cd {shlex.quote(str(folder))}"
            )
        else:
            assert find_project(package=package) == folder / "logs"

    monkeypatch.chdir(make("other", "pyproject.toml"))
    assert refusal(package=package) == (
        f"working directory {make('other')}: it belongs to {make('other')}, not to {package}\n"
        "hint: change to the folder in which the app runs"
    )


def test_named_pipe(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A `.env` of 1Password counts, too."""
    os.mkfifo(make("run") / ".env")
    monkeypatch.chdir(make("run/logs"))

    assert "the app seems to run in" in refusal(package=make("site-packages/shop"))


@pytest.mark.parametrize(
    ("flask_app", "fits"),
    [
        ("", True),
        ("shop", True),
        ("shop.app", True),
        ("shop.web.app", True),
        ("shop.app:create_app('x')", True),
        ("wsgi", True),
        ("wsgi.py", True),
        ("wsgi:app", True),
        ("./wsgi.py:app", True),
        ("{here}/shop/app.py", True),
        ("store.app", False),
        ("{there}/app.py", False),
        ("../wsgi.py", False),
    ],
)
def test_flask_app(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, flask_app: str, fits: bool) -> None:
    project, other = make("project", "pyproject.toml", "CODE", "wsgi.py"), make("other", "app.py")
    monkeypatch.chdir(project)
    flask_app = flask_app.format(here=project, there=other)
    if fits:
        assert find_project(flask_app, project / "shop") == project
    else:
        assert refusal(flask_app, project / "shop") == (
            f"FLASK_APP={flask_app}: not in {project}, where the command is run\n"
            "hint: unset FLASK_APP, or change to its folder"
        )


def test_flask_app_installed(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The installed package is not in the folder where the app runs. In a sibling's checkout it is another app."""
    package, run = make("site-packages/store"), make("run")
    monkeypatch.chdir(run)
    assert find_project("store.app", package) == run
    assert "FLASK_APP=shop.app" in refusal("shop.app", package)

    monkeypatch.chdir(make("sibling", "pyproject.toml", "CODE"))
    assert "FLASK_APP=store.app" in refusal("store.app", package)


# The real program


@pytest.fixture
def workspace(tmp_path: Path) -> tuple[Program, Program]:
    """Two projects that share an environment."""
    a, b = Program(tmp_path / "a", "shop"), Program(tmp_path / "b", "store")
    a.others, b.others = [b], [a]
    return a, b


@pytest.mark.slow
def test_workspace(workspace: tuple[Program, Program]) -> None:
    """Either project's command may be found first: the file of the folder is changed."""
    for first in workspace:
        for here in workspace:
            for each in workspace:
                each.write(".env", f"SECRET_KEY={KEY.text}\n")
            done = first.run("secret-key", "revoke", "--yes", cwd=here.path)
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith(f"{here.path}/.env now has one key")
            changed = [each for each in workspace if KEY.text not in (each.path / ".env").read_text()]
            assert changed == [here]


@pytest.mark.slow
def test_workspace_refusals(workspace: tuple[Program, Program], tmp_path: Path) -> None:
    """Outside both projects, or with the other's FLASK_APP, both are named and nothing is changed."""
    a = workspace[0]
    for each in workspace:
        each.write(".env", f"SECRET_KEY={KEY.text}\n")
    (tmp_path / "outside").mkdir()
    (tmp_path / "pyproject.toml").touch()
    root = a.run("secret-key", "revoke", "--yes", cwd=tmp_path)
    (tmp_path / "pyproject.toml").unlink()
    refused = {
        "outside": a.run("secret-key", "revoke", "--yes", cwd=tmp_path / "outside"),
        "root": root,
        "--app": a.run("--app", "store.app", "secret-key", "revoke", "--yes"),
        "FLASK_APP": a.run("secret-key", "revoke", "--yes", FLASK_APP="store.app"),
    }

    assert {name: done.returncode for name, done in refused.items()} == dict.fromkeys(refused, 1)
    assert "outside: several projects share this environment: shop, store\nhint: change to" in refused["outside"].stderr
    assert f"it belongs to {tmp_path}, not to {tmp_path}/" in root.stderr
    for name in ("--app", "FLASK_APP"):
        assert f"FLASK_APP=store.app: not in {a.path}" in refused[name].stderr
    for each in workspace:
        assert KEY.text in (each.path / ".env").read_text()


@pytest.mark.slow
def test_wheel(tmp_path: Path) -> None:
    program = Program(tmp_path / "run", "shop", checkout=False)
    path = program.write(".env", f"SECRET_KEY={KEY.text}\n")
    (program.path / "logs").mkdir()
    refused = program.run("secret-key", "revoke", "--yes", cwd=program.path / "logs")
    assert (refused.returncode, KEY.text in path.read_text()) == (1, True)
    assert f"the app seems to run in {program.path}\nhint: cd {program.path}" in refused.stderr

    assert program.run("secret-key", "revoke", "--yes", FLASK_APP="shop.app").returncode == 0
    assert KEY.text not in path.read_text()


@pytest.mark.slow
def test_adopted_keys_alone(tmp_path: Path) -> None:
    """The folder `keys`, copied by itself into a package, acts on the package's project."""
    program = Program(tmp_path / "shop", "shop")
    (program.path / "shop/secure/keys").rename(program.path / "shop/keys")
    for entry in program.path.glob("*.dist-info/entry_points.txt"):
        entry.write_text(entry.read_text().replace("shop.secure.keys", "shop.keys"))
    path = program.write(".env", f"SECRET_KEY={KEY.text}\n")
    done = program.run("secret-key", "status", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert str(path) in done.stdout
