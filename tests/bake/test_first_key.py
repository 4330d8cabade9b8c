"""The first key: made once, while the project is baked, for its owner alone, and nowhere but in `.env`."""

import os
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from baking import Bake, run

KEY_PATTERN = re.compile(r"fsk_[0-9]{8}T[0-9]{6}Z_[0-9a-f]{64}_[0-9a-f]{8}")
OWN = "# mine\nAPP_ENV=development\nSECRET_KEY=6b1f0c9d2e8a4b7c5d3e9f8a7b6c5d4e3f2a1b0c\nPORT=8000\n"


def mode(path: Path) -> int:
    """The permission bits of a file, not those of what it links to."""
    return path.lstat().st_mode & 0o777


def git(project: Bake, *arguments: str, check: bool = True) -> str:
    """What a git command prints, run in the project's folder."""
    return project.run("git", *arguments, check=check).stdout


def test_new_key(bake: Callable[..., Bake]) -> None:
    """A project has a key that was generated just now."""
    env = bake().env_file()
    assert list(env) == ["APP_ENV", "SECRET_KEY"]
    assert env["APP_ENV"] == "development"
    assert KEY_PATTERN.fullmatch(env["SECRET_KEY"])
    assert int(env["SECRET_KEY"][-8:], 16) == zlib.crc32(env["SECRET_KEY"][:-8].encode())


def test_same_answers(tmp_path: Path, bake_into: Callable[..., Bake]) -> None:
    """Two bakes with the same answers have different keys."""
    keys = set()
    for name in "ab":
        (tmp_path / name).mkdir()
        keys.add(bake_into(tmp_path / name).env_file()["SECRET_KEY"])
    assert len(keys) == 2


@pytest.mark.parametrize("umask", ["000", "022", "077", "777"])
def test_mode(umask: str, tmp_path: Path, bake: Callable[..., Bake]) -> None:
    """Only the owner can read the key, under any umask."""
    if umask == "777" and os.geteuid():
        pytest.skip("only root can use folders that it may not enter")
    project = bake(under=("sh", "-c", f'umask {umask} && exec "$@"', "sh"))
    assert mode(project.path / ".env") == 0o600


def test_mode_at_every_moment(tmp_path: Path, environment: dict[str, str], bake: Callable[..., Bake]) -> None:
    """The key is never in a file that others can open."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    trace = tmp_path / "trace"
    calls = "open,openat,creat,chmod,fchmod,fchmodat,link,linkat,rename,renameat,renameat2"
    bake(
        under=(
            "sh",
            "-c",
            'umask 000 && exec "$@"',
            "sh",
            "strace",
            "-f",
            "-o",
            str(trace),
            "-e",
            f"trace={calls}",
        )
    )
    lines = [line for line in trace.read_text("utf-8").splitlines() if '.env"' in line or ".env.fsk-tmp" in line]
    made = [line for line in lines if "O_CREAT" in line]
    assert len(made) == 1
    assert all(flag in made[0] for flag in ("O_EXCL", "O_NOFOLLOW", "0600"))
    assert [line for line in lines if "chmod" in line and "0600" not in line] == []


def test_places_of_the_key(tmp_path: Path, environment: dict[str, str], bake_into: Callable[..., Bake]) -> None:
    """The key is in no other file and in no output."""
    places = [tmp_path / name for name in ("home", "tmp", "out")]
    for place in places:
        place.mkdir()
    own_places = ("env", f"HOME={places[0]}", f"TMPDIR={places[1]}")
    project = bake_into(places[2], "-v", under=own_places)
    key = project.env_file()["SECRET_KEY"]
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "-m", "Baked")

    files = [path for place in places for path in place.rglob("*") if path.is_file() and path.name != ".env"]
    assert {"my-flask-app", "home", "tmp"} <= {part for path in files for part in path.parts}
    objects = git(project, "cat-file", "--batch-all-objects", "--batch")
    assert "create_app" in objects
    texts = [path.read_bytes() for path in files] + [
        objects.encode(),
        project.result.stdout.encode(),
        project.result.stderr.encode(),
    ]
    random_part = key.split("_")[2].encode()
    assert [text for text in texts if random_part in text or KEY_PATTERN.search(text.decode("utf-8", "replace"))] == []


# A project that is there already keeps its key, whatever is asked of cookiecutter.


@pytest.mark.parametrize("flags", [["-f"], ["-f", "-s"]])
def test_second_bake(flags: list[str], bake: Callable[..., Bake]) -> None:
    """It leaves `.env` as it is."""
    env = bake().path / ".env"
    env.write_text(OWN)
    env.chmod(0o640)
    again = bake(*flags)
    assert again.result.returncode == 0
    assert "with its .env unchanged" in again.result.stdout
    assert env.read_text() == OWN
    assert mode(env) == 0o640


def test_second_bake_without_env(bake: Callable[..., Bake]) -> None:
    """It creates the key if there is no `.env`."""
    first = bake()
    old = first.env_file()["SECRET_KEY"]
    (first.path / ".env").unlink()
    again = bake("-f")
    assert KEY_PATTERN.fullmatch(again.env_file()["SECRET_KEY"])
    assert again.env_file()["SECRET_KEY"] != old


def test_link_to_another_env(tmp_path: Path, bake: Callable[..., Bake]) -> None:
    """The link and the file stay as they are."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(OWN)
    elsewhere.chmod(0o644)
    env = bake().path / ".env"
    env.unlink()
    env.symlink_to(elsewhere)
    bake("-f")
    assert env.readlink() == elsewhere
    assert elsewhere.read_text() == OWN
    assert mode(elsewhere) == 0o644


def test_second_bake_without_key(bake: Callable[..., Bake]) -> None:
    """It says that the `.env` has no key."""
    env = bake().path / ".env"
    env.write_text("A=1\nSECRET_KEY=\n")
    again = bake("-f").result
    assert "with its .env unchanged, which has no key. Create one: flask secret-key init." in again.stdout
    assert env.read_text() == "A=1\nSECRET_KEY=\n"


@pytest.mark.skipif(os.name != "posix", reason="there are no named pipes")
def test_pipe_named_env(bake: Callable[..., Bake]) -> None:
    """A password manager's pipe has no writer now: the bake does not wait for one."""
    env = bake().path / ".env"
    env.unlink()
    os.mkfifo(env, 0o600)
    again = bake("-f", under=("timeout", "20"))
    assert "with its .env unchanged.\n" in again.result.stdout


@pytest.mark.parametrize("redirection", ["| true", ">&-", "> /dev/full"])
def test_output_that_nobody_reads(redirection: str, bake: Callable[..., Bake]) -> None:
    """A project that is complete stays: cookiecutter would delete it after a failure of the hook."""
    project = bake(under=("sh", "-c", f'"$@" {redirection}', "sh"))
    assert project.result.stderr == ""
    assert KEY_PATTERN.fullmatch(project.env_file()["SECRET_KEY"])


def test_folder_named_env(bake: Callable[..., Bake]) -> None:
    """The bake is refused."""
    env = bake().path / ".env"
    env.unlink()
    env.mkdir()
    result = bake("-f", check=False).result
    assert result.returncode == 1
    assert result.stderr == "ERROR: .env: a folder\nhint: remove it, then run: flask secret-key init\n"


def test_link_to_nowhere(tmp_path: Path, bake: Callable[..., Bake]) -> None:
    """The bake is refused, and nothing is created through the link."""
    env = bake().path / ".env"
    env.unlink()
    env.symlink_to(tmp_path / "nowhere")
    result = bake("-f", check=False).result
    assert result.returncode == 1
    assert result.stderr == (
        "ERROR: .env: a link to a missing file\nhint: remove the link, then run: flask secret-key init\n"
    )
    assert env.is_symlink()
    assert not (tmp_path / "nowhere").exists()


# Git never gets the key.


def test_ignored_files(bake: Callable[..., Bake]) -> None:
    """The key, and what a killed command leaves of it."""
    project = bake()
    for name in (".env.fsk-tmp", ".env.rej", ".env.local", ".env.bak"):
        (project.path / name).write_text("")
    git(project, "add", "--all")
    tracked = git(project, "ls-files").splitlines()
    assert ".env.example" in tracked
    assert [name for name in tracked if name.startswith(".env") and name != ".env.example"] == []


def repository(folder: Path, environment: dict[str, str]) -> Bake:
    """A git repository in `folder`, to bake into."""
    outer = Bake(folder, run("git", "init", "--quiet", cwd=folder, environment=environment), environment)
    git(outer, "commit", "--quiet", "--allow-empty", "-m", "Begin")
    return outer


def test_inside_a_repository(tmp_path: Path, environment: dict[str, str], bake: Callable[..., Bake]) -> None:
    """No other repository is created, and the key is ignored."""
    outer = repository(tmp_path, environment)
    (tmp_path / ".gitignore").write_text("!.env\n!**/.env\n")
    project = bake()
    assert not (project.path / ".git").exists()
    git(outer, "add", "--all")
    tracked = git(outer, "ls-files").splitlines()
    assert "my-flask-app/.env.example" in tracked
    assert "my-flask-app/.env" not in tracked


@pytest.mark.parametrize("flags", [[], ["-f"]])
def test_tracked_env(flags: list[str], tmp_path: Path, environment: dict[str, str], bake: Callable[..., Bake]) -> None:
    """If git tracks `.env`, the bake fails and creates no key."""
    outer = repository(tmp_path, environment)
    env = tmp_path / "my-flask-app" / ".env"
    env.parent.mkdir()
    env.write_text("PORT=8000\n")
    git(outer, "add", "--force", "my-flask-app/.env")
    git(outer, "commit", "--quiet", "-m", "A mistake")
    env.unlink()
    if not flags:
        env.parent.rmdir()

    result = bake(*flags, check=False).result
    assert result.returncode == 1
    assert result.stderr.startswith(
        "ERROR: .env: git does not ignore this file, which holds the key\nhint: add the line .env to"
    )
    assert len(result.stderr.splitlines()) == 2
    assert not env.exists()
    assert env.parent.exists() == bool(flags)


def test_git_variables(tmp_path: Path, environment: dict[str, str], bake_into: Callable[..., Bake]) -> None:
    """They do not change which folder the hook asks git about."""
    other, out = tmp_path / "other", tmp_path / "out"
    other.mkdir()
    out.mkdir()
    repository(other, environment)
    before = sorted(path for path in other.rglob("*"))
    places = (
        f"GIT_DIR={other / '.git'}",
        f"GIT_WORK_TREE={other}",
        f"GIT_INDEX_FILE={other / '.git' / 'index'}",
    )
    project = bake_into(out, under=("env", *places))
    assert (project.path / ".git").is_dir()
    assert sorted(path for path in other.rglob("*")) == before


@pytest.mark.parametrize("kind", ["LITERAL", "GLOB", "NOGLOB", "ICASE"])
def test_git_pathspecs(kind: str, bake: Callable[..., Bake]) -> None:
    """A setting for git's arguments, which `git check-ignore` may refuse, is no reason to fail."""
    assert "which git ignores" in bake(under=("env", f"GIT_{kind}_PATHSPECS=1")).result.stdout


def test_git_failure(tmp_path: Path, environment: dict[str, str], bake: Callable[..., Bake]) -> None:
    """If git cannot tell whether it ignores `.env`, the bake fails."""
    repository(tmp_path, environment)
    (tmp_path / ".git" / "config").write_text("no configuration\n")
    result = bake(check=False).result
    assert result.returncode == 1
    assert result.stderr.startswith("ERROR: git cannot tell whether it ignores .env: fatal: bad config line 1")
    assert len(result.stderr.splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == [".git"]


def test_without_git(tmp_path: Path, bake: Callable[..., Bake]) -> None:
    """The project has its key, and the output says what is left to do."""
    project = bake(under=("env", "PATH=/nowhere"))
    assert KEY_PATTERN.fullmatch(project.env_file()["SECRET_KEY"])
    assert not (project.path / ".git").exists()
    assert "git is not installed. Run 'git init' later; .gitignore keeps .env out of git." in project.result.stdout
    assert "is ready, with a new key in .env.\n" in project.result.stdout
    git(project, "init", "--quiet")
    assert git(project, "check-ignore", ".env") == ".env\n"


# A bake that is cut short leaves nothing, or a project that the next one completes.


@pytest.fixture
def cut_short(tmp_path: Path, template: Path) -> Callable[[str], str]:
    """A function that gives a template whose post hook ends with the statement it is given."""
    copy = tmp_path / "template"
    shutil.copytree(template, copy)

    def cut_short(statement: str) -> str:
        hook = copy / "hooks" / "post_gen_project.py"
        hook.write_text(f"{hook.read_text('utf-8')}    {statement}\n", "utf-8")
        return str(copy)

    return cut_short


def test_killed_hook(tmp_path: Path, bake_into: Callable[..., Bake], cut_short: Callable[[str], str]) -> None:
    """It leaves nothing."""
    out = tmp_path / "out"
    out.mkdir()
    killed = cut_short("os.kill(os.getpid(), 9)")
    assert bake_into(out, template=killed, check=False).result.returncode == 1
    assert list(out.iterdir()) == []


def test_bake_after_a_kill(tmp_path: Path, bake_into: Callable[..., Bake], cut_short: Callable[[str], str]) -> None:
    """The key stays the same."""
    out = tmp_path / "out"
    out.mkdir()
    killed = bake_into(out, template=cut_short("os.kill(os.getppid(), 9)"), check=False)
    assert killed.result.returncode == -9
    key = killed.env_file()["SECRET_KEY"]
    assert mode(killed.path / ".env") == 0o600
    assert bake_into(out, "-f").env_file()["SECRET_KEY"] == key
