"""Which of the process environment and `.env` counts."""

import os
import secrets
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import click
import pytest
from click.core import ParameterSource
from flask.cli import ScriptInfo, load_dotenv
from projects import Program
from secure.keys.environment import Environment, read_environment
from secure.keys.files import FileError, identity
from secure.keys.key import Key, generate_key
from secure.keys.project import foreign_dotenv
from secure.keys.sources import load_keyring

OLD, NEW = generate_key(1_700_000_000), generate_key(1_700_000_001)
FOREIGN, OTHER = (Key(secrets.token_urlsafe(32)) for _ in range(2))
PRODUCTION = {"APP_ENV": "production"}


@pytest.mark.parametrize(
    ("environ", "dotenv", "is_read"),
    [
        ({}, "A=1", True),
        ({}, "", True),
        ({"APP_ENV": ""}, "A=1", True),
        ({"APP_ENV": "testing"}, "A=1", True),
        ({"APP_ENV": "Production"}, "A=1", True),
        (PRODUCTION, "A=1", False),
        (PRODUCTION, "APP_ENV=development\nA=1", False),
        ({"APP_ENV": " production\n"}, "A=1", False),
        (PRODUCTION, "APP_ENV=' production '\nA=1", True),
        ({}, "APP_ENV=production\nA=1", True),
    ],
)
def test_dotenv_is_read(tmp_path: Path, environ: dict[str, str], dotenv: str, is_read: bool) -> None:
    (tmp_path / ".env").write_text(dotenv)
    environment = read_environment(environ, tmp_path)

    assert environment.process == environ
    assert (environment.dotenv is not None) is is_read
    assert environment.get("A") == ("1" if is_read and "A" in dotenv else "")


def test_no_dotenv(tmp_path: Path) -> None:
    assert read_environment({}, tmp_path).dotenv == {}
    assert read_environment(PRODUCTION, tmp_path).dotenv is None


@pytest.mark.parametrize("environ", [{}, {"APP_ENV": "development"}])
def test_unreadable_dotenv(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff\xfe")
    with pytest.raises(FileError, match="not UTF-8"):
        read_environment(environ, tmp_path)

    assert read_environment(PRODUCTION, tmp_path).dotenv is None


def test_precedence(tmp_path: Path) -> None:
    """Settings: the process wins, and its empty variable means the default."""
    (tmp_path / ".env").write_text("A=file\nB=file\nC=' '\nD=' file '\n")
    environment = read_environment({"A": " process ", "B": ""}, tmp_path)

    assert [environment.get(name, "default") for name in "ABCDE"] == [
        "process",
        "default",
        "default",
        "file",
        "default",
    ]
    assert environment.get("E") == ""


@pytest.mark.parametrize(
    ("process", "dotenv", "expected"),
    [
        ({}, {}, {}),
        ({"SECRET_KEY": "p"}, {}, {"SECRET_KEY": "p"}),
        ({"SECRET_KEY": "p"}, None, {"SECRET_KEY": "p"}),
        ({"SECRET_KEY": "p"}, {"SECRET_KEY": "d"}, {"SECRET_KEY": "d"}),
        ({"SECRET_KEY_FILE": "p"}, {"SECRET_KEY": "d", "A": "1"}, {"SECRET_KEY": "d"}),
        ({"SECRET_KEY_FALLBACKS": "p"}, {"SECRET_KEY": "d"}, {"SECRET_KEY": "d"}),
        ({"SECRET_KEY": "p"}, {"SECRET_KEY_FALLBACKS": "d"}, {"SECRET_KEY_FALLBACKS": "d"}),
        ({"SECRET_KEY": "p"}, {"SECRET_KEY_FILE": "d"}, {"SECRET_KEY_FILE": "d"}),
        ({"SECRET_KEY": "p"}, {"SECRET_KEY": " ", "SECRET_KEY_FALLBACKS": " , "}, {"SECRET_KEY": "p"}),
        ({"SECRET_KEY": ""}, {"SECRET_KEY": "d"}, {"SECRET_KEY": "d"}),
    ],
)
def test_keys(process: dict[str, str], dotenv: dict[str, str] | None, expected: dict[str, str]) -> None:
    """The keyring is in one place, `.env` if that names any part of it."""
    environment = Environment(process, dotenv, Path("/srv/app"))

    assert environment.keys == expected
    assert environment.has_dotenv_keys is (expected != process)


IGNORED = (
    "SECRET_KEY: ignored in the process environment, because the keyring is in /srv/app/.env\nhint: unset SECRET_KEY"
)


@pytest.mark.parametrize(
    ("process", "dotenv", "warning"),
    [
        ({"SECRET_KEY": "old"}, {"SECRET_KEY": "new"}, IGNORED),
        ({"SECRET_KEY": "old"}, {"SECRET_KEY": "new", "SECRET_KEY_FALLBACKS": "older, old"}, ""),
        ({"SECRET_KEY": "new", "SECRET_KEY_FALLBACKS": "old"}, {"SECRET_KEY": "new"}, "SECRET_KEY_FALLBACKS: ignored"),
        ({"SECRET_KEY_FILE": "ring"}, {"SECRET_KEY": "new"}, "SECRET_KEY_FILE: ignored"),
        ({"SECRET_KEY": "old"}, {"SECRET_KEY_FILE": "ring"}, IGNORED),
        ({"SECRET_KEY_FILE": "ring"}, {"SECRET_KEY_FILE": "ring"}, ""),
        ({"SECRET_KEY": " new "}, {"SECRET_KEY": "new"}, ""),
        ({"SECRET_KEY": ""}, {"SECRET_KEY": "new"}, ""),
        ({"SECRET_KEY": "old"}, {"A": "1"}, ""),
        ({"SECRET_KEY": "old"}, None, ""),
    ],
)
def test_ignored_key(process: dict[str, str], dotenv: dict[str, str] | None, warning: str) -> None:
    """A copy of what is or was in `.env` since its last revocation is not worth a warning."""
    told = Environment(process, dotenv, Path("/srv/app")).ignored_key()

    assert told.startswith(warning)
    assert bool(told) is bool(warning)


def test_ignored_key_hint(tmp_path: Path) -> None:
    """Following the hint makes the process's key count, also where `.env` itself says APP_ENV=production."""
    process = {"SECRET_KEY": "p"}
    plain = Environment(process, {"SECRET_KEY": "d"}, tmp_path)
    assert plain.ignored_key().endswith("to use it instead of .env, set APP_ENV=production in the process environment")

    repeated = Environment(process, {"SECRET_KEY": "d", "APP_ENV": "production"}, tmp_path)
    assert "remove APP_ENV from .env and set APP_ENV=production in the process" in repeated.ignored_key()
    for dotenv in ("SECRET_KEY=d\n", "SECRET_KEY=d\nAPP_ENV=testing\n"):
        (tmp_path / ".env").write_text(dotenv)
        assert read_environment({**process, **PRODUCTION}, tmp_path).keys == process


def test_repr(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=hidden-in-the-file\n")

    assert "hidden" not in repr(read_environment({"B": "hidden-in-the-process"}, tmp_path))


def test_process_untouched(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\n")
    before = dict(os.environ)
    environment = read_environment(os.environ, tmp_path)
    os.environ["A"] = "2"

    assert {**os.environ} == {**before, "A": "2"}
    assert environment.get("A") == "1"
    del os.environ["A"]


def test_dotenv_identity(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\n")

    assert read_environment({}, tmp_path).dotenv_identity == identity(str(tmp_path / ".env"))


def test_copy_in_production(tmp_path: Path) -> None:
    """The `flask` command copies `.env` in production, too; what it copied does not count, as under gunicorn."""
    (tmp_path / ".env").write_text("SECRET_KEY=d\nSECRET_KEY_FALLBACKS=e\nA=1\n")
    (tmp_path / ".flaskenv").write_text("SECRET_KEY_FILE=f\nB=2\nFLASK_DEBUG=1\n")
    copied = {**PRODUCTION, "SECRET_KEY": "d", "SECRET_KEY_FALLBACKS": "p", "SECRET_KEY_FILE": "f", "C": "3"}
    copied |= {"A": "1", "B": "2", "FLASK_DEBUG": "1"}
    with click.Context(click.Command("flask"), obj=ScriptInfo()):
        environment = read_environment(copied, tmp_path)
        assert environment.keys == {"SECRET_KEY_FALLBACKS": "p"}
        assert environment.get("C") == "3"
        assert environment.get("FLASK_DEBUG") == "1", "Flask's own: it is on"
        assert environment.get("A") + environment.get("B") == ("" if sys.platform == "linux" else "12")
        assert read_environment({**copied, "APP_ENV": ""}, tmp_path).keys["SECRET_KEY"] == "d"
        reloaded = read_environment({**copied, "WERKZEUG_RUN_MAIN": "true"}, tmp_path)
        assert (reloaded.keys, reloaded.get("A")) == (environment.keys, "1")
    with click.Context(click.Command("flask"), obj=ScriptInfo()) as context:
        context.set_parameter_source("env_file", ParameterSource.COMMANDLINE)
        assert read_environment(copied, tmp_path).keys == {"SECRET_KEY_FALLBACKS": "p"}
        assert read_environment(copied, tmp_path).get("A") == "1", "that file may say so, too"
    with click.Context(click.Command("flask"), obj=ScriptInfo(load_dotenv_defaults=False)):
        assert read_environment(copied, tmp_path).keys["SECRET_KEY"] == "d"
    with click.Context(click.Command("other")):
        assert read_environment(copied, tmp_path).keys["SECRET_KEY"] == "d"
    assert read_environment(copied, tmp_path).keys["SECRET_KEY"] == "d", "under gunicorn"


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("refused", [".env", ".flaskenv"])
def test_copy_of_a_refused_file(tmp_path: Path, refused: str) -> None:
    """Others could have written what Flask has read there: no key of it counts."""
    (tmp_path / ".env").touch(0o600)
    (tmp_path / refused).write_text("SECRET_KEY=d\n")
    (tmp_path / refused).chmod(0o666)
    with click.Context(click.Command("flask"), obj=ScriptInfo()):
        environment = read_environment({**PRODUCTION, "SECRET_KEY": "d", "FLASK_DEBUG": "1"}, tmp_path)
    assert environment.keys == {}
    assert environment.get("FLASK_DEBUG") == "1"


def test_interpolated_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flask replaces a dollar in its copy; the file's text counts."""
    monkeypatch.setattr(os, "environ", {"HOME": "/home/ann"})
    (tmp_path / ".env").write_text("SECRET_KEY='before${HOME}after'\n")
    load_dotenv()

    assert os.environ["SECRET_KEY"] == "before/home/annafter"
    assert read_environment(os.environ, tmp_path).keys == {"SECRET_KEY": "before${HOME}after"}


# A .env of another folder


@pytest.mark.parametrize(
    ("dotenv", "folder", "hint"),
    [
        ("outer/.env", "outer/project", "touch {root}/.env"),
        ("outer/.env", "outer/project/tests", "touch {root}/.env"),
        ("elsewhere/.env", "elsewhere", "cd {root}"),
        ("outer/project/tests/.env", "outer/project/tests", "touch {root}/.env"),
        ("outer/project/.env", "outer/project/tests", ""),
        ("outer/project/.env", "outer/project", ""),
        ("outer/project/.env", "elsewhere", ""),
    ],
)
def test_foreign_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dotenv: str, folder: str, hint: str) -> None:
    """It is refused where Flask would have copied it; the hints, one after the other, lead out."""
    root = tmp_path / "outer" / "project"
    for each in ("outer/project/tests", "elsewhere"):
        (tmp_path / each).mkdir(parents=True)
    (tmp_path / dotenv).write_text("A=1\n")
    monkeypatch.chdir(tmp_path / folder)
    environment = read_environment({}, root)
    assert foreign_dotenv(environment) == "", "not under the flask command"

    with click.Context(click.Command("flask"), obj=ScriptInfo()):
        problem = foreign_dotenv(environment)
        if not hint:
            assert problem == ""
            return
        reason = f"{tmp_path / dotenv}: Flask has read this .env of another folder"
        assert problem == f"{reason}\nhint: {hint.format(root=root)}"
        for _ in range(2):
            command = problem.partition("hint: ")[2]
            assert command
            if command.startswith("cd "):
                monkeypatch.chdir(shlex.split(command)[1])
            else:
                subprocess.run(command, shell=True, check=True)  # noqa: S602
            problem = foreign_dotenv(environment)
            if not problem:
                break
        assert problem == ""


def test_foreign_dotenv_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("A=1\n")
    environment = read_environment({}, tmp_path / "project")
    with click.Context(click.Command("flask"), obj=ScriptInfo(load_dotenv_defaults=False)):
        assert foreign_dotenv(environment) == ""


@pytest.mark.parametrize(
    ("environ", "refused"),
    [
        ({"WERKZEUG_RUN_MAIN": "true"}, True),
        ({"WERKZEUG_RUN_MAIN": "true", "FLASK_SKIP_DOTENV": "1"}, False),
        ({}, False),
    ],
)
def test_foreign_dotenv_reloaded(tmp_path: Path, environ: dict[str, str], refused: bool) -> None:
    """`app.run()` has no command, but its reloader starts the app with the copies."""
    (tmp_path / ".env").write_text("A=1\n")

    assert bool(foreign_dotenv(read_environment(environ, tmp_path / "project"))) is refused


@pytest.mark.skipif(os.name != "posix", reason="the working directory cannot be removed")
def test_no_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with click.Context(click.Command("flask"), obj=ScriptInfo()):
        assert foreign_dotenv(read_environment({}, tmp_path)) == ""


# The real program: a copy never signs after a revocation


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """A project with the real program."""
    return Program(tmp_path / "outer" / "shop", "shop")


@pytest.mark.parametrize("app_env", ["", "development", "production"])
@pytest.mark.parametrize("key", [OLD, FOREIGN], ids=["generated", "foreign"])
def test_copy(tmp_path: Path, app_env: str, key: Key) -> None:
    """What a shell, an IDE or a supervisor copied from `.env` never signs after a revocation."""
    line = f"APP_ENV={app_env}\n" if app_env else ""
    copy = {"SECRET_KEY": key.text} | ({"APP_ENV": app_env} if app_env else {})
    (tmp_path / ".env").write_text(f"{line}SECRET_KEY='{key.text}'\n")
    assert load_keyring(read_environment(copy, tmp_path))[1].keys == (key,)
    (tmp_path / ".env").write_text(f"{line}SECRET_KEY={NEW.text}\n")

    assert load_keyring(read_environment(copy, tmp_path))[1].keys == (NEW,)
    (tmp_path / ".env").unlink()
    assert load_keyring(read_environment(copy, tmp_path))[1].keys == (key,), "a control"


@pytest.mark.slow
def test_sourced_copy(program: Program) -> None:
    """`set -a; . ./.env`, then revoke, then restart."""
    program.write(".env", f"APP_ENV=production\nSECRET_KEY='{FOREIGN.text}'\n")
    copy = {"SECRET_KEY": FOREIGN.text, "APP_ENV": "production"}
    assert program.signing(**copy) == FOREIGN.fingerprint, "a control"
    revoked = program.run("secret-key", "revoke", "--yes", **copy)
    assert (revoked.returncode, revoked.stderr) == (0, "")

    done = program.run("key", **copy)
    assert done.returncode == 0
    assert FOREIGN.fingerprint not in done.stdout
    assert "SECRET_KEY: ignored in the process environment" in done.stderr


@pytest.mark.slow
def test_production_of_program(program: Program) -> None:
    program.write(".env", f"SECRET_KEY={OLD.text}\n")
    done = program.run("secret-key", "status", APP_ENV="production")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: SECRET_KEY: is missing or empty\nhint: set SECRET_KEY to the output of")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, nothing tells a copy from a real variable")
def test_settings_of_program(program: Program) -> None:
    """In production, a command has the settings of the server: the real variables, and no line of a file."""
    program.write(".env", f"SECRET_KEY={OLD.text}\nTRUSTED_HOSTS=file.example\n")
    real = {"APP_ENV": "production", "SECRET_KEY": OLD.text}

    assert program.run("key", **real).stdout.split() == [OLD.fingerprint, "production", "()"]
    (program.path / "named.env").write_text("TRUSTED_HOSTS=file.example\n")
    for options in (("--env-file", "named.env"), ("-e", "named.env")):
        done = program.run(*options, "key", **real)
        assert done.stdout.split() == [OLD.fingerprint, "production", "('file.example',)"]
    done = program.run("key", TRUSTED_HOSTS="file.example", **real)
    assert done.stdout.split() == [OLD.fingerprint, "production", "('file.example',)"]


@pytest.mark.slow
def test_foreign_dotenv_of_program(program: Program) -> None:
    outer = program.path.parent / ".env"
    outer.write_text(f"SECRET_KEY={OTHER.text}\nTRUSTED_HOSTS=evil.example\n")
    for arguments in (["key"], ["secret-key", "init"]):
        refused = program.run(*arguments)
        assert refused.returncode == 1
        assert refused.stdout == ""
        assert f"{outer}: Flask has read this .env of another folder\nhint: touch" in refused.stderr
        assert "Traceback" not in refused.stderr

    program.write(".env", f"SECRET_KEY={OLD.text}\n")
    done = program.run("key")
    assert done.stdout.split() == [OLD.fingerprint, "production", "()"]
    assert program.run("key", TRUSTED_HOSTS="good.example").stdout.split()[2] == "('good.example',)"


@pytest.mark.slow
@pytest.mark.parametrize("key", [OLD, FOREIGN], ids=["generated", "foreign"])
def test_reloaded_development_server(program: Program, key: Key) -> None:
    """The reloader starts the app again with the copies that `flask run` made."""
    dotenv = program.write(".env", f"APP_ENV=development\nSECRET_KEY='{key.text}'\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = program.start("run", "--debug", "--port", str(port))
    try:
        assert _page(port, "") == key.fingerprint
        assert program.run("secret-key", "revoke", "--yes").returncode == 0
        app = program.path / "shop" / "app.py"
        app.write_text(app.read_text().replace(".signing.fingerprint)", ".signing.fingerprint + ' reloaded')"))
        page = _page(port, "reloaded")
    finally:
        server.terminate()
        server.communicate(timeout=10)
    assert key.fingerprint not in page
    assert key.text not in dotenv.read_text()


def _page(port: int, text: str) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                page = answer.read().decode()
                if text in page:
                    return str(page)
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.1)
    raise AssertionError("the server does not answer")
