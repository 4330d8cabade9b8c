"""The commands: flask secret-key init, generate, status, rotate, cancel, revoke, scan."""

import errno
import itertools
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from flask.cli import ScriptInfo
from projects import Program
from secure.keys import commands, files
from secure.keys import project as projects_of
from secure.keys.environment import read_dotenv, read_environment
from secure.keys.key import Key, generate_key, validate_key
from secure.keys.key_format import KEY_PATTERN
from secure.keys.keyring import RETENTION, Keyring
from secure.keys.sources import load_keyring

NOW = 1_800_000_000
"""2027-01-15 08:00:00 UTC"""
DAY = 86400
KEY, OLDER, OLDEST = (generate_key(NOW - days * DAY) for days in (10, 11, 400))
FAR = generate_key(NOW + 20_000 * DAY)
LAST = generate_key(253402300799)
"""From the last second of the year 9999."""
FOREIGN = "kIx3v9_Qm7-aZ0yR2tW5uB8cD1eF4gH6jL"
GENERATE = "set SECRET_KEY to the output of: flask secret-key generate"
IN_AN_HOUR = "2027-01-15 09:00:00 UTC (in 1 h)"


@dataclass(frozen=True)
class Project:
    """A project's folder, with its commands run in this process."""

    path: Path

    def run(self, *arguments: str, answer: str | None = None, **environ: str) -> Result:
        """Run `flask secret-key` with `arguments`."""
        return CliRunner().invoke(commands.secret_key, arguments, input=answer, env=environ)

    def succeeds(self, *arguments: str, answer: str | None = None, **environ: str) -> str:
        """Return what a command prints that must not fail."""
        result = self.run(*arguments, answer=answer, **environ)
        assert result.exit_code == 0, result.output
        return result.output

    def refuses(self, *arguments: str, answer: str | None = None, **environ: str) -> str:
        """Return the error of a command that must fail and change nothing."""
        before = self.state()
        result = self.run(*arguments, answer=answer, **environ)
        assert result.exit_code == 1 + ("Usage: " in result.stderr), result.output
        assert self.state() == before
        return result.stderr.removeprefix("Error: ").removesuffix("\n")

    def state(self) -> dict[str, tuple[int, bytes]]:
        """Return every file with its mode and content."""
        found = (path for path in self.path.rglob("*") if path.is_file() and ".git/" not in str(path))
        return {str(path): (path.lstat().st_mode, path.read_bytes()) for path in found}

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """Write a file of the project."""
        path = self.path / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def dotenv(self, *keys: Key) -> Path:
        """Write a `.env` with a keyring, and more."""
        older = ",".join(key.text for key in keys[1:])
        text = f"# mine\nexport SECRET_KEY='{keys[0].text}' # newest\nSECRET_KEY_FALLBACKS={older}\nA=1\n"
        return self.write(".env", text)

    def key_file(self, *keys: Key) -> Path:
        """Write a key file that `.env` names."""
        self.write(".env", "SECRET_KEY_FILE=ring\n")
        return self.write("ring", "".join(f"{key.text}\n" for key in keys))

    def keyring(self, **environ: str) -> Keyring:
        """Return the keyring as the app would load it."""
        return load_keyring(read_environment(environ, self.path))[1]

    def git(self, *arguments: str) -> None:
        """Run git in the project."""
        subprocess.run(["git", "-C", str(self.path), *arguments], check=True, capture_output=True)


Write = Callable[..., Path]
both_places = pytest.mark.parametrize("place", [Project.dotenv, Project.key_file])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project without a key, in which a command is run at the moment NOW."""
    path = tmp_path / "project"
    code = path / projects_of.CODE.replace("*", "package")
    code.parent.mkdir(parents=True)
    for name in (code, path / "pyproject.toml"):
        name.touch()
    (path / "tests").mkdir()
    monkeypatch.chdir(path / "tests")
    monkeypatch.setattr(time, "time", lambda: NOW + 0.9)
    return Project(path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# init


def test_init(project: Project) -> None:
    dotenv = project.path / ".env"

    assert project.succeeds("init") == f"Created a key in {dotenv}.\n"
    assert [key.activation for key in project.keyring().keys] == [NOW]
    assert mode(dotenv) == 0o600


@pytest.mark.parametrize("line", ["SECRET_KEY=\n", "SECRET_KEY=\nSECRET_KEY_FALLBACKS=\n", ""])
def test_init_in_dotenv(project: Project, line: str) -> None:
    """A `.env` without a key gets one and keeps the rest; the copies of `.env` do not matter."""
    dotenv = project.write(".env", f"A=1\n{line}# the end\n", mode=0o640)
    told = project.succeeds("init", A="1", **dict.fromkeys(re.findall("SECRET_KEY[A-Z_]*", line), ""))

    assert told == (
        f"Created a key in {dotenv}.\nOthers can read this file.\nhint: chmod 600 {dotenv}\n"
        "APP_ENV is not set, which means production.\nhint: on your own machine, add APP_ENV=development to this file\n"
    )
    assert read_dotenv(str(dotenv)).get("A") == "1"
    assert [key.activation for key in project.keyring().keys] == [NOW]
    assert "# the end\n" in dotenv.read_text()
    assert mode(dotenv) == 0o640


@pytest.mark.parametrize("text", ["", "\n", " \n\n"])
def test_init_in_empty_dotenv(project: Project, text: str) -> None:
    """As without the file: `touch .env` is a hint of ours."""
    dotenv = project.write(".env", text)

    assert project.succeeds("init") == f"Created a key in {dotenv}.\n"
    assert read_dotenv(str(dotenv))["APP_ENV"] == "development"


@pytest.mark.parametrize("environ", [{"APP_ENV": "testing"}, {}])
def test_init_in_dotenv_of_a_known_environment(project: Project, environ: dict[str, str]) -> None:
    dotenv = project.write(".env", "A=1\n" if environ else "APP_ENV=development\n")

    assert project.succeeds("init", **environ) == f"Created a key in {dotenv}.\n"


def test_init_key_file(project: Project) -> None:
    project.write(".env", "SECRET_KEY_FILE=ring\n")

    assert project.succeeds("init") == f"Created a key in {project.path / 'ring'}.\n"
    assert [key.activation for key in project.keyring().keys] == [NOW]
    assert mode(project.path / "ring") == 0o600


@both_places
def test_init_again(project: Project, place: Write) -> None:
    path = place(project, KEY, OLDER)
    before = project.state()

    assert project.succeeds("init") == f"Nothing changed: {path} already has a key.\n"
    assert project.state() == before


def test_init_with_variables(project: Project) -> None:
    assert project.succeeds("init", SECRET_KEY=KEY.text) == (
        "Nothing changed: the process environment already has a key.\n"
    )
    missing = f"SECRET_KEY: is missing or empty\nhint: {GENERATE}"
    assert project.refuses("init", APP_ENV="production") == missing
    assert project.refuses("init", SECRET_KEY_FALLBACKS=KEY.text).startswith("SECRET_KEY: is missing")


@pytest.mark.parametrize("text", ["SECRET_KEY=changeme\n", "SECRET_KEY=\nSECRET_KEY_FALLBACKS={key}\n"])
def test_init_with_invalid_key(project: Project, text: str) -> None:
    """It never replaces a text that somebody wrote there."""
    project.write(".env", text.format(key=KEY.text))

    assert project.refuses("init").startswith("SECRET_KEY: is ")


def test_init_with_invalid_key_file(project: Project) -> None:
    project.key_file(KEY).write_text(f"\n{KEY.text}x\n")

    assert "damaged" in project.refuses("init")


def test_init_dangling_link(project: Project) -> None:
    (project.path / ".env").symlink_to("nowhere")

    assert "no such file or directory" in project.refuses("init")


def test_init_loses(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one creates the key after this one has seen that there is none."""
    project.write(".env", "SECRET_KEY=\n")
    locked = files.locked

    def the_other_one_first(path: str, wait: float = 0) -> AbstractContextManager[None]:
        project.dotenv(KEY)
        return locked(path, wait)

    monkeypatch.setattr(files, "locked", the_other_one_first)
    assert "already has a key" in project.succeeds("init")
    assert project.keyring().keys == (KEY,)

    (project.path / ".env").unlink()
    assert "already has a key" in project.succeeds("init")
    assert project.keyring().keys == (KEY,)


# generate


def test_generate(project: Project) -> None:
    before = project.state()
    first, second = project.succeeds("generate"), project.succeeds("generate")

    assert validate_key(first.removesuffix("\n"), files.leaked_hashes()).activation == NOW
    assert first != second
    assert project.state() == before


# status


def test_status(project: Project) -> None:
    new, foreign = generate_key(NOW + 1800), Key(FOREIGN)
    path = str(project.dotenv(new, KEY, OLDER, foreign))
    *rows, change = project.succeeds("status").splitlines()

    assert [re.split(" {2,}", row) for row in rows] == [
        ["FINGERPRINT", "STATE", "SIGNS FROM", "VERIFIES UNTIL", "SOURCE"],
        [new.fingerprint, "upcoming", "2027-01-15 08:30:00 UTC", "no end yet", path],
        [KEY.fingerprint, "signing", "2027-01-05 08:00:00 UTC", "2027-01-22 08:30:00 UTC", path],
        [OLDER.fingerprint, "expired", "2027-01-04 08:00:00 UTC", path],
        [foreign.fingerprint, "expired", "unknown (foreign)", path],
    ]
    assert len({row.index(path) for row in rows[1:]}) == 1
    assert change == "Next change: 2027-01-15 08:30:00 UTC (in 30 min)."


def test_status_without_change(project: Project) -> None:
    path = project.key_file(KEY)

    assert project.succeeds("status").splitlines()[1:] == [
        f"{KEY.fingerprint}     signing  2027-01-05 08:00:00 UTC  no end yet      {path}"
    ]


@pytest.mark.usefixtures("far_from_utc")
def test_status_elsewhere(project: Project) -> None:
    project.dotenv(KEY)

    assert " 2027-01-05 08:00:00 UTC " in project.succeeds("status")


def test_status_json(project: Project) -> None:
    path = project.dotenv(KEY, Key(FOREIGN))
    output = project.succeeds("status", "--json", SECRET_KEY_RETENTION="14d")

    assert output.startswith('{\n  "path": '), "people read it as well"
    assert json.loads(output) == {
        "path": str(path),
        "retention_seconds": 14 * DAY,
        "keys": [
            {
                "fingerprint": KEY.fingerprint,
                "state": "signing",
                "signs_from": NOW - 10 * DAY,
                "verifies_until": None,
            },
            {
                "fingerprint": Key(FOREIGN).fingerprint,
                "state": "retired",
                "signs_from": None,
                "verifies_until": NOW + 4 * DAY,
            },
        ],
    }
    assert json.loads(project.succeeds("status", "--json", SECRET_KEY=KEY.text, APP_ENV="production"))["path"] is None


def test_status_max_age(project: Project) -> None:
    project.dotenv(KEY)
    project.succeeds("status", "--max-age", "10d")

    error = f"signing key {KEY.fingerprint}: 10 d old\nhint: flask secret-key rotate"
    assert project.refuses("status", "--max-age", "239h") == error
    assert json.loads(project.run("status", "--json", "--max-age", "9d").stdout)["keys"]
    assert project.refuses("status", "--max-age", "9d", SECRET_KEY=FOREIGN, APP_ENV="production") == (
        f"signing key {Key(FOREIGN).fingerprint}: of unknown age\nhint: flask secret-key rotate"
    )


def test_status_invalid(project: Project) -> None:
    project.write(".env", f"SECRET_KEY={KEY.text[:-1]}\nSECRET_KEY_FALLBACKS=a,\n")

    lines = project.refuses("status").splitlines()
    assert len(lines) == 6
    assert "damaged" in lines[0]
    assert [line.startswith("hint: ") for line in lines] == [False, True] * 3


# Keys that a wrong clock has dated


@both_places
@pytest.mark.parametrize("far", [FAR, LAST], ids=["2081", "9999"])
def test_far_future(project: Project, place: Write, far: Key) -> None:
    """`status` fails, `cancel` or a rotation removes the key, and nobody is logged out."""
    place(project, far, KEY)
    for options in ([], ["--json"], ["--max-age", "400d"]):
        error = project.refuses("status", *options)
        assert error.startswith(f"key {far.fingerprint}: it signs only from ")
        assert error.endswith("hint: check the clock of this machine, then run: flask secret-key cancel")
    assert far.fingerprint in project.succeeds("cancel")
    assert project.keyring().keys == (KEY,)
    project.succeeds("status", "--max-age", "400d")

    for command in (["rotate"], ["rotate", "--now"], ["rotate", "--if-older-than", "90d"]):
        place(project, far, KEY)
        project.succeeds(*command)
        new, old = project.keyring().keys
        assert (far.text != new.text, old) == (True, KEY)
        project.succeeds("status", "--max-age", "400d")


@both_places
@pytest.mark.parametrize("far", [FAR, LAST], ids=["2081", "9999"])
def test_far_future_alone(project: Project, place: Write, far: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only key signs, whatever its date. What it signed stays valid for the retention."""
    place(project, far)
    error = project.refuses("status")
    assert error.endswith("then run: flask secret-key rotate --now")
    project.succeeds("rotate", "--now")
    keyring = project.keyring()
    assert keyring.signing(NOW) not in (far, KEY)
    assert far in keyring.verifying(NOW)

    assert project.refuses("status").endswith("from 2027-01-22 08:00:00 UTC on: flask secret-key cancel")
    monkeypatch.setattr(time, "time", lambda: NOW + RETENTION)
    assert project.refuses("status").endswith("then run: flask secret-key cancel")
    project.succeeds("cancel")
    assert far not in project.keyring().keys
    project.succeeds("status")


def test_year_9999(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose clock is at the end of time shows its keys."""
    monkeypatch.setattr(time, "time", lambda: 253402300799)
    project.dotenv(LAST, KEY)
    assert "9999-12-31 23:59:59" in project.succeeds("status")
    assert "after the year 9999" in project.succeeds("status")
    for command in (["rotate"], ["rotate", "--in", "7d"]):
        assert project.refuses(*command) == (
            "cannot rotate: the new key would sign after the year 9999\nhint: check the clock of this machine"
        )
    project.dotenv(KEY)
    project.succeeds("rotate", "--now")
    project.refuses("cancel")
    project.succeeds("revoke", "--yes")


# rotate


@both_places
@pytest.mark.parametrize(
    ("options", "delay", "start"),
    [
        ([], 3600, IN_AN_HOUR),
        (["--in", "2h"], 7200, "2027-01-15 10:00:00 UTC (in 2 h)"),
        (["--in", "7d"], 7 * DAY, "2027-01-22 08:00:00 UTC (in 7 d)"),
        (["--now"], 0, "2027-01-15 08:00:00 UTC (now)"),
        (["--if-older-than", "9d"], 3600, IN_AN_HOUR),
        (["--if-older-than", "9d", "--now"], 0, "2027-01-15 08:00:00 UTC (now)"),
    ],
)
def test_rotate(project: Project, place: Write, options: list[str], delay: int, start: str) -> None:
    path = place(project, KEY)
    path.chmod(0o640)
    output = project.succeeds("rotate", *options)
    new, old = project.keyring().keys

    assert (new.activation, old) == (NOW + delay, KEY)
    assert mode(path) == 0o640
    end = {0: "2027-01-22 08:00", 3600: "2027-01-22 09:00", 7200: "2027-01-22 10:00"}.get(delay, "2027-01-29 08:00")
    lines = output.splitlines()
    assert lines[:2] == [f"Changed {path}.", f"The new key {new.fingerprint} verifies now and signs from {start}."]
    signs = "signs until then and " if delay else ""
    assert lines[2].startswith(f"The old key {KEY.fingerprint} {signs}verifies until {end}")
    assert lines[3:] == ["Running apps reload the file."]


def test_rotate_keeps_the_rest(project: Project) -> None:
    dotenv = project.dotenv(KEY)
    project.succeeds("rotate")
    new = project.keyring().keys[0].text

    assert dotenv.read_text() == (f"# mine\nexport SECRET_KEY={new} # newest\nSECRET_KEY_FALLBACKS={KEY.text}\nA=1\n")


def test_rotate_keeps_verifying_keys(project: Project) -> None:
    young, younger = generate_key(NOW - 2 * DAY), generate_key(NOW - DAY)
    project.dotenv(younger, young)
    output = project.succeeds("rotate")

    assert project.keyring().keys[1:] == (younger, young)
    assert f"The old key {younger.fingerprint} signs until then" in output


@both_places
def test_rotate_removes_expired_keys(project: Project, place: Write) -> None:
    path = place(project, KEY, OLDER, OLDEST)
    output = project.succeeds("rotate")

    assert project.keyring().keys[1:] == (KEY,)
    assert f"Changed {path}. Removed: {OLDER.fingerprint}, {OLDEST.fingerprint}.\n" in output


@both_places
def test_rotate_in_progress(project: Project, place: Write) -> None:
    place(project, KEY)
    project.succeeds("rotate")
    error = (
        f"a rotation is in progress: its key signs from {IN_AN_HOUR}\n"
        "hint: rotate again after that, or remove that key: flask secret-key cancel"
    )

    for options in ([], ["--now"], ["--print"], ["--in", "2h"]):
        assert project.refuses("rotate", *options) == error


def test_rotate_twice_in_a_second(project: Project) -> None:
    project.dotenv(KEY)
    project.succeeds("rotate", "--now")

    assert "2027-01-15 08:00:00 UTC (now)\nhint: rotate again" in project.refuses("rotate", "--now")


def test_rotate_foreign(project: Project) -> None:
    project.dotenv(Key(FOREIGN))
    project.succeeds("rotate", "--if-older-than", "400d")

    assert [key.activation for key in project.keyring().keys] == [NOW + 3600, None]


def test_rotate_comma(project: Project) -> None:
    project.dotenv(Key("kIx3v9,Qm7-aZ0yR2tW5uB8cD1eF4gH6jL"))

    assert project.refuses("rotate").startswith("SECRET_KEY_FALLBACKS: a key contains a comma")


@pytest.mark.parametrize(
    ("options", "environ", "error"),
    [
        (["--now", "--in", "1h"], {}, "--in and --now exclude each other"),
        (["--in", "1"], {}, "Invalid value for '--in': must be a number with a unit"),
        (["--in", "0s"], {}, "Invalid value for '--in': must be a number with a unit"),
        (["--if-older-than", "soon"], {}, "Invalid value for '--if-older-than': must be"),
        (["--in", "169h"], {}, "--in: must not be longer than SECRET_KEY_RETENTION (7 d)"),
        (["--in", "365d"], {}, "--in: must not be longer than SECRET_KEY_RETENTION (7 d)"),
        (["--in", "15d"], {"SECRET_KEY_RETENTION": "14d"}, "--in: must not be longer than SECRET_KEY_RETENTION (14 d)"),
    ],
)
def test_rotate_wrong_options(project: Project, options: list[str], environ: dict[str, str], error: str) -> None:
    project.dotenv(KEY)

    told = project.refuses("rotate", *options, **environ)
    assert told.startswith("Usage: ")
    assert told.splitlines()[-1].startswith(f"Error: {error}")


def test_rotate_short_retention(project: Project) -> None:
    """Without --in, the usual hour is fine with any retention."""
    project.dotenv(KEY)
    project.succeeds("rotate", SECRET_KEY_RETENTION="30m")


@both_places
def test_rotate_print(project: Project, place: Write) -> None:
    place(project, KEY)
    before = project.state()
    result = project.run("rotate", "--print")
    names, values = zip(*(line.split("=") for line in result.stdout.splitlines()), strict=True)

    assert names == ("SECRET_KEY", "SECRET_KEY_FALLBACKS")
    assert values[1] == KEY.text
    assert validate_key(values[0], files.leaked_hashes()).activation == NOW + 3600
    assert result.stderr.endswith("\nRedeploy every instance before the new key signs.\n")
    assert project.state() == before


@both_places
@pytest.mark.parametrize("options", [[], ["--print"], ["--now"]])
def test_rotate_not_due(project: Project, place: Write, options: list[str]) -> None:
    place(project, KEY)
    before = project.state()
    told = f"Nothing to do: key {KEY.fingerprint} is 10 d old, not more than 10 d.\n"
    assert project.succeeds("rotate", "--if-older-than", "10d", *options) == told
    assert project.state() == before

    project.succeeds("rotate")
    new, before = project.keyring().keys[0], project.state()
    told = f"Nothing to do: key {new.fingerprint} signs from {IN_AN_HOUR}.\n"
    assert project.succeeds("rotate", "--if-older-than", "1s", *options) == told
    assert project.state() == before


def test_rotate_print_not_due(project: Project) -> None:
    """What is piped to a platform is empty."""
    project.dotenv(KEY)
    result = project.run("rotate", "--print", "--if-older-than", "90d")
    assert (result.stdout, result.stderr[:13]) == ("", "Nothing to do")


def test_rotate_not_due_in_variables(project: Project) -> None:
    environ = {"SECRET_KEY": KEY.text}
    assert project.succeeds("rotate", "--if-older-than", "90d", **environ).startswith("Nothing to do")
    assert "a command cannot change it" in project.refuses("rotate", "--if-older-than", "9d", **environ)


def test_rotate_if_older_than_invalid(project: Project) -> None:
    project.write(".env", "SECRET_KEY=short\n")

    assert project.refuses("rotate", "--if-older-than", "90d").startswith("SECRET_KEY: is too short")


# cancel


@both_places
def test_cancel(project: Project, place: Write) -> None:
    path = place(project, KEY, OLDEST)
    project.succeeds("rotate")
    new = project.keyring().keys[0]

    assert project.succeeds("cancel") == f"Changed {path}. Removed: {new.fingerprint}.\n"
    assert project.keyring().keys == (KEY,)
    assert project.refuses("cancel") == "nothing to cancel: no key is waiting to sign"


def test_cancel_print(project: Project) -> None:
    new = generate_key(NOW + 60)
    environ = {"SECRET_KEY": new.text, "SECRET_KEY_FALLBACKS": KEY.text}
    assert "flask secret-key cancel --print" in project.refuses("cancel", **environ)

    assert project.succeeds("cancel", "--print", **environ) == (f"SECRET_KEY={KEY.text}\nSECRET_KEY_FALLBACKS=\n")


# revoke


@both_places
def test_revoke(project: Project, place: Write) -> None:
    path = place(project, KEY, OLDER)
    path.chmod(0o640)
    output = project.succeeds("revoke", "--yes")
    (new,) = project.keyring().keys

    assert new.activation == NOW
    assert mode(path) == 0o640
    assert output.splitlines() == [
        f"{path} now has one key, {new.fingerprint}.",
        "Running apps that read this file refuse the old keys within seconds.",
    ]
    assert KEY.text not in path.read_text()


@pytest.mark.parametrize("invalid", ["SECRET_KEY=changeme\n", f"SECRET_KEY={KEY.text[:-1]}\n", "SECRET_KEY=a,b\n", ""])
def test_revoke_invalid(project: Project, invalid: str) -> None:
    dotenv = project.write(".env", invalid)
    project.succeeds("revoke", "--yes")

    assert "APP_ENV" not in dotenv.read_text(), "a server stays in production"
    assert [key.activation for key in project.keyring().keys] == [NOW]


@pytest.mark.parametrize(
    "text",
    [
        *("a=1\n", "junk\n", "key: value\n\n", "correcthorsebatterystaple\n", "8" + "a" * 100_000 + "  x"),
        *(
            f"-----BEGIN PRIVATE KEY-----\n{KEY.text}\n",
            "TOKEN=0a1b2c3d4e5f60718293\nDATABASE=abcdefghijklmnop1\n",
        ),
    ],
    ids=itertools.count(),
)
def test_revoke_other_file(project: Project, text: str) -> None:
    """SECRET_KEY_FILE may name a file by mistake: it may be the only copy of what is in it."""
    path = project.write("ring", text)
    project.write(".env", "SECRET_KEY_FILE=ring\n")

    assert project.refuses("revoke", "--yes") == (
        f"{path}: it has something else than keys (unchanged)\n"
        "hint: if it is the right file, copy it, empty it, then run the command again"
    )
    assert path.read_text() == text


CUT = "0a1b2c3d4e5f60718293"


@pytest.mark.parametrize(
    "text",
    [
        *("", " \n", f"{KEY.text[:-1]}\n", f"# old\n{KEY.text}\n", f"junk\n{KEY.text}\n"),
        *(f"{CUT}\n", f"{CUT}\n\n{CUT}\r\n", f"{CUT},{CUT}", f'"{CUT}"\n', f'["{CUT}"]'),
        *(f"SECRET_KEY={CUT}", f"export SECRET_KEY='{CUT}'\n", f"SECRET_KEY: {CUT}=="),
    ],
)
def test_revoke_broken_key_file(project: Project, text: str) -> None:
    project.write("ring", text)
    project.write(".env", "SECRET_KEY_FILE=ring\n")
    project.succeeds("revoke", "--yes")

    assert [key.activation for key in project.keyring().keys] == [NOW]


def test_revoke_asks(project: Project) -> None:
    dotenv = project.dotenv(KEY)
    refused = "revoke: not confirmed (nothing changed)\nhint: to do it without a question, add --yes"
    for answer in ("n\n", "\n", ""):
        assert project.refuses("revoke", answer=answer).endswith(refused)

    question = f"Replace all keys in {dotenv} and log everyone out? [y/N]"
    assert question in project.succeeds("revoke", answer="y\n")
    assert KEY not in project.keyring().keys


def test_revoke_nothing(project: Project) -> None:
    hint = f"hint: flask secret-key init (on a server, {GENERATE})"
    assert project.refuses("revoke", "--yes") == f"{project.path / '.env'}: no such file\n{hint}"
    assert project.refuses("revoke", "--yes", SECRET_KEY_FILE="ring") == (
        f"{project.path / 'ring'}: no such file\nhint: flask secret-key init"
    )


def test_revoke_print(project: Project) -> None:
    project.dotenv(KEY, OLDER)
    before = project.state()
    key, fallbacks = project.succeeds("revoke", "--print").splitlines()

    assert validate_key(key.removeprefix("SECRET_KEY="), files.leaked_hashes()).activation == NOW
    assert fallbacks == "SECRET_KEY_FALLBACKS="
    assert project.state() == before


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_revoke_in_refused_file(project: Project) -> None:
    """An app that refuses the file would keep the leaked key: the command fails, after the change."""
    path = project.key_file(KEY)
    path.chmod(0o666)
    result = project.run("revoke", "--yes")

    assert result.exit_code == 1
    assert "now has one key" in result.stdout
    assert "Running apps" not in result.stdout
    assert f"other users can write to it\nhint: chmod go-w {path}\n" in result.stderr


# What holds for several commands

changing = pytest.mark.parametrize("command", [["rotate"], ["revoke", "--yes"]], ids=["rotate", "revoke"])


@changing
def test_variables_are_printed(project: Project, command: list[str]) -> None:
    assert project.refuses(*command, SECRET_KEY=KEY.text) == (
        "the keyring is in the process environment: a command cannot change it\n"
        f"hint: set what this prints: flask secret-key {command[0]} --print"
    )
    printed = project.run(*command, "--print", SECRET_KEY=KEY.text)
    variables = dict(line.split("=") for line in printed.stdout.splitlines())

    assert printed.exit_code == 0
    assert project.keyring(**variables).keys[1:] == ((KEY,) if command == ["rotate"] else ())


@changing
def test_both_set(project: Project, command: list[str]) -> None:
    error = "SECRET_KEY_FILE and SECRET_KEY: both are set\nhint: keep one of them"

    assert project.refuses(*command, SECRET_KEY=KEY.text, SECRET_KEY_FILE="ring") == error


@pytest.mark.parametrize("command", [["init"], ["status"], ["rotate"], ["revoke", "--yes"]], ids=" ".join)
def test_tilde(project: Project, command: list[str]) -> None:
    assert project.refuses(*command, SECRET_KEY_FILE="~/keys/ring").startswith("SECRET_KEY_FILE: starts with ~, which")
    assert not (project.path / "~").exists()


@changing
def test_link(project: Project, command: list[str]) -> None:
    """A link to another folder is followed, and the command says so."""
    (project.path / "vault").mkdir()
    target = project.write("vault/env", f"SECRET_KEY={KEY.text}\n")
    (project.path / ".env").symlink_to("vault/env")
    result = project.run(*command)

    assert result.stderr == f"{project.path / '.env'} is a link to {target}.\n"
    assert (project.path / ".env").readlink() == Path("vault/env")
    assert read_dotenv(str(target))["SECRET_KEY"] != KEY.text


@changing
def test_link_within_folder(project: Project, command: list[str]) -> None:
    project.write("env", f"SECRET_KEY={KEY.text}\n")
    (project.path / ".env").symlink_to("env")

    assert project.run(*command).stderr == ""
    assert (project.path / ".env").is_symlink()
    assert project.keyring().keys[0] != KEY


@both_places
@pytest.mark.parametrize(
    ("command", "waits"),
    [
        (["rotate"], False),
        (["cancel"], False),
        (["rotate", "--if-older-than", "9d"], True),
        (["revoke", "--yes"], True),
    ],
)
def test_locked(
    project: Project, command: list[str], waits: bool, place: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that must not be lost waits for a moment."""
    monkeypatch.setattr(commands, "WAIT", 0.3)
    path = place(project, KEY)
    start = time.monotonic()
    with files.locked(str(path)):
        assert "is changing it" in project.run(*command).stderr
    assert (time.monotonic() - start >= 0.3) is waits
    assert project.keyring().keys == (KEY,)


def test_init_waits(project: Project) -> None:
    """Several instances that start at once create one key, and none of them fails."""
    taken = threading.Event()

    def hold() -> None:
        with files.locked(str(project.path / ".env")):
            taken.set()
            time.sleep(0.3)

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait(60)
    project.succeeds("init")
    holder.join()


@pytest.mark.parametrize("command", [["init"], ["status"], ["rotate"], ["revoke", "--yes"]], ids=" ".join)
def test_wrong_retention(project: Project, command: list[str]) -> None:
    project.dotenv(KEY)
    result = project.run(*command, SECRET_KEY_RETENTION="a week")

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: SECRET_KEY_RETENTION: must be a number with a unit")


def test_no_key_is_shown(project: Project) -> None:
    """Only `generate` and `--print` show one."""
    project.dotenv(KEY, OLDER)
    all_commands = ["init"], ["status"], ["status", "--json"], ["rotate"], ["cancel"], ["revoke", "--yes"], ["init"]
    output = "".join(project.succeeds(*command) for command in all_commands)

    assert output
    assert not KEY_PATTERN.search(output)
    assert KEY_PATTERN.search(project.succeeds("generate")), "a control"


def test_help(project: Project) -> None:
    assert "Exit status: 0 if it is done" in " ".join(project.succeeds("--help").split())


def test_output_full(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(click, "echo", fail)
    with pytest.raises(click.ClickException) as caught:
        commands.secret_key(["generate"], standalone_mode=False)
    assert caught.value.message == "cannot write the output: no space left on device"


def test_output_closed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of a pipe has ended, as `head` does: that is no error to show."""

    def fail(_: str) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr(click, "echo", fail)
    result = project.run("generate")

    assert (result.exit_code, result.output) == (1, "")


# git


@pytest.fixture
def repository(project: Project) -> Project:
    """A project in a git repository that ignores nothing."""
    project.git("init", "--quiet")
    return project


def tracked(path: Path) -> str:
    return f"{path}: git would track this file (unchanged)\nhint: printf"


@pytest.mark.parametrize("name", [".env", "it's a ring"])
@pytest.mark.parametrize("environ", [{}, {"GIT_DIR": "/nowhere"}, {"GIT_DIR": "{other}/.git"}])
def test_untracked(repository: Project, tmp_path: Path, name: str, environ: dict[str, str]) -> None:
    """No key is written where git would pick it up; the hint helps, and keeps the key."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "other")], check=True)
    (tmp_path / "other/.gitignore").write_text("*\n")
    environ = {variable: value.format(other=tmp_path / "other") for variable, value in environ.items()}
    if name != ".env":
        repository.write(".env", f'SECRET_KEY_FILE="{name}"\n')
    path = repository.path / name
    repository.write(".gitignore", "*.pyc")

    error = repository.refuses("init", **environ)
    assert error.startswith(tracked(path))
    subprocess.run(error.partition("hint: ")[2], shell=True, check=True)  # noqa: S602
    assert "Created a key" in repository.succeeds("init", **environ)
    (key,) = repository.keyring().keys
    assert (repository.path / ".gitignore").read_text().startswith("*.pyc\n")

    repository.git("add", "--force", "--", name)
    error = repository.refuses("rotate", **environ)
    assert error.startswith(tracked(path))
    subprocess.run(error.partition("hint: ")[2], shell=True, check=True)  # noqa: S602
    assert repository.keyring().keys == (key,)
    repository.succeeds("status")


def test_untracked_without_key(repository: Project) -> None:
    """Also where `.env` is there and has no key."""
    path = repository.write(".env", "A=1\n")

    assert repository.refuses("init").startswith(tracked(path))


def test_tracked_rotate(repository: Project) -> None:
    """`--print`, `cancel` and a rotation that is not due do not write a new key there."""
    path = repository.dotenv(KEY)
    for options in ([], ["--now"], ["--if-older-than", "9d"]):
        assert repository.refuses("rotate", *options).startswith(tracked(path))
    repository.succeeds("rotate", "--print")
    repository.succeeds("rotate", "--if-older-than", "10d")
    repository.dotenv(generate_key(NOW + 60), KEY)
    repository.succeeds("cancel")


def test_tracked_link(repository: Project, tmp_path: Path) -> None:
    """The file that a link leads to counts."""
    target = tmp_path / "env"
    target.write_text(f"SECRET_KEY={KEY.text}\n")
    target.chmod(0o600)
    (repository.path / ".env").symlink_to(target)
    repository.succeeds("rotate")


def test_tracked_revoke(repository: Project) -> None:
    """A revocation cannot wait: it is done, with a warning."""
    path = repository.dotenv(KEY)
    result = repository.run("revoke", "--yes")
    assert result.exit_code == 0
    assert result.stderr.startswith(f"warning: {path}: git tracks this file\nhint: printf")
    assert KEY not in repository.keyring().keys

    repository.write(".gitignore", ".env\n")
    assert repository.run("revoke", "--yes").stderr == ""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs another user's repository")
def test_repository_of_another_user(repository: Project) -> None:
    for path in (repository.path, *repository.path.rglob("*")):
        os.lchown(path, 12345, 12345)

    assert repository.refuses("init").startswith(tracked(repository.path / ".env"))


def test_without_git(repository: Project, tmp_path: Path) -> None:
    repository.succeeds("init", PATH=str(tmp_path))


def test_scan(repository: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository.path)
    assert repository.succeeds("scan") == ""

    repository.write("settings.py", f"KEY = '{KEY.text}'\n")
    repository.git("add", "settings.py")
    result = repository.run("scan")
    assert result.exit_code == 1
    assert KEY.fingerprint in result.stdout
    assert result.stderr == (
        "Error: scan: 1 found in the files that git tracks\n"
        "hint: if the app uses such a key, everyone who can read the repository has it: flask secret-key revoke\n"
    )


def test_scan_without_repository(project: Project) -> None:
    assert "not a git repository" in project.refuses("scan")


# A hint never loses anything

RING = {".env": "SECRET_KEY_FILE=ring\n"}
BROKEN = {
    "nothing": ({}, ["status"]),
    ".env without a key": ({".env": "A=1\n"}, ["status"]),
    "no key file": (RING, ["status"]),
    "key file that others can write to": ({**RING, "ring": f"{KEY.text}\n"}, ["status"]),
    ".env that others can write to": ({".env": f"SECRET_KEY={KEY.text}\n"}, ["status"]),
    "short key": ({".env": "SECRET_KEY=short\n"}, ["status"]),
    "short key first": ({".env": f"SECRET_KEY=short\nSECRET_KEY_FALLBACKS={KEY.text}\n"}, ["status"]),
    "fallbacks alone": ({".env": f"SECRET_KEY=\nSECRET_KEY_FALLBACKS={KEY.text}\n"}, ["status"]),
    "fallbacks alone, init": ({".env": f"SECRET_KEY=\nSECRET_KEY_FALLBACKS={KEY.text}\n"}, ["init"]),
    "junk first": ({**RING, "ring": f"junk\n{KEY.text}\n"}, ["status"]),
    "comment": ({**RING, "ring": f"# mine\n{KEY.text}\n"}, ["status"]),
    "quotes": ({".env": f"SECRET_KEY='\"{KEY.text}\"'\n"}, ["status"]),
    "line break": ({".env": f'SECRET_KEY="{KEY.text}\n"\n'}, ["status"]),
    "damaged": ({".env": f"SECRET_KEY={KEY.text[:-1]}\nSECRET_KEY_FALLBACKS={OLDER.text}\n"}, ["status"]),
    "too old": ({".env": f"SECRET_KEY={KEY.text}\n"}, ["status", "--max-age", "1d"]),
    "far future": ({**RING, "ring": f"{FAR.text}\n{KEY.text}\n"}, ["status"]),
    "far future alone": ({**RING, "ring": f"{FAR.text}\n"}, ["status"]),
    "in progress": ({**RING, "ring": f"{generate_key(NOW + 60).text}\n{KEY.text}\n"}, ["rotate"]),
    "no file to revoke": ({}, ["revoke", "--yes"]),
    "in variables": ({}, ["rotate"]),
}
COMMAND = re.compile(r"flask secret-key (\w+(?: --[\w-]+)*)|^((?:chmod|mkdir|printf|touch) .*)")


@pytest.mark.parametrize(("written", "command"), BROKEN.values(), ids=BROKEN)
def test_hints(project: Project, written: dict[str, str], command: list[str], request: pytest.FixtureRequest) -> None:
    """Run every command that is printed, as far as it leads: the app starts, and no key that was valid is gone."""
    open_to_others = "others can write" in request.node.callspec.id
    environ = {"SECRET_KEY": KEY.text} if request.node.callspec.id == "in variables" else {}
    valid = {key for key in (KEY, OLDER, FAR) if key.text in str(written) + str(environ)}
    valid -= {FAR} if KEY in valid else set()  # it has never signed
    for name, text in written.items():
        project.write(name, text, mode=0o666 if open_to_others and KEY.text in text else 0o600)
    result = project.run(*command, **environ)
    assert result.exit_code == 1
    hints = [line.removeprefix("hint: ") for line in result.output.splitlines() if line.startswith("hint: ")]
    assert hints
    for hint in hints:
        match = COMMAND.search(hint)
        if match and match[1] in ("generate", "cancel --print"):
            continue
        if match and match[1]:
            arguments = match[1].split()
            printed = project.run(*arguments, *(["--yes"] if arguments == ["revoke"] else []), **environ)
            assert printed.exit_code == 0, printed.output
            if "--print" in arguments:
                environ = dict(line.split("=") for line in printed.stdout.splitlines())
        elif match:
            subprocess.run(match[2], shell=True, check=True)  # noqa: S602
        else:
            assert re.match("remove|move|restore|copy|put|keep|write|save|set", hint), hint
            if valid:
                assert not re.search("generate|rotate|revoke|init", hint)
                return
    assert set(project.keyring(**environ).verifying(NOW)) >= valid
    assert project.run("status", **environ).exit_code == 0 or valid == {FAR}


# The `flask` command around them


def test_ignored_key(project: Project) -> None:
    """The warning of a key that does not count goes to standard error."""
    project.dotenv(KEY)
    result = project.run("status", "--json", SECRET_KEY=OLDER.text)

    assert result.stderr.startswith("warning: SECRET_KEY: ignored in the process environment")
    assert [key["fingerprint"] for key in json.loads(result.stdout)["keys"]] == [KEY.fingerprint]


@pytest.mark.parametrize(
    ("option", "variable", "refused"),
    [
        (None, "store.app", "store.app"),
        ("store.app", "", "store.app"),
        ("store.app", "package.app", "store.app"),
        ("package.app", "store.app", ""),
        (None, "package.app", ""),
        (None, "", ""),
    ],
)
def test_app_of_another_project(project: Project, option: str | None, variable: str, refused: str) -> None:
    """`flask --app` counts more than FLASK_APP."""
    project.dotenv(KEY)
    script = ScriptInfo(app_import_path=option, load_dotenv_defaults=False)
    result = CliRunner().invoke(commands.secret_key, ["status"], obj=script, env={"FLASK_APP": variable})

    where = f"not in {project.path}, where the command is run\nhint: unset FLASK_APP, or change to its folder"
    assert result.stderr == (f"Error: FLASK_APP={refused}: {where}\n" if refused else "")


def test_dotenv_of_another_folder(project: Project) -> None:
    """Flask has copied it into the process."""
    other = project.path.parent / ".env"
    other.write_text(f"SECRET_KEY={KEY.text}\n")
    script = ScriptInfo(load_dotenv_defaults=True)
    result = CliRunner().invoke(commands.secret_key, ["status"], obj=script)

    hint = f"touch {project.path / '.env'}"
    assert result.stderr == f"Error: {other}: Flask has read this .env of another folder\nhint: {hint}\n"


# The real program, in a process of its own, by the real clock

PAST = generate_key(0)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """A fresh clone: it has no `.env`."""
    return Program(tmp_path / "checkout", "shop")


@pytest.mark.slow
def test_fresh_clone(program: Program) -> None:
    dotenv = program.path / ".env"
    status = program.run("secret-key", "status")
    assert (status.returncode, status.stdout) == (1, "")
    assert status.stderr.startswith("Error: SECRET_KEY: is missing or empty\nhint: flask secret-key init")
    assert len(status.stderr.splitlines()) == 2

    init = program.run("secret-key", "init")
    assert (init.returncode, init.stderr) == (0, "")
    assert mode(dotenv) == 0o600
    rotate = program.run("secret-key", "rotate")
    assert (rotate.returncode, rotate.stderr) == (0, "")
    assert rotate.stdout.startswith(f"Changed {dotenv}.")
    assert "upcoming" in program.run("secret-key", "status").stdout


@pytest.mark.slow
def test_print_through_a_pipe(program: Program) -> None:
    production = {"APP_ENV": "production"}
    generated = program.run("secret-key", "generate")
    assert (generated.stderr, len(generated.stdout.splitlines())) == ("", 1)
    rotate = program.run("secret-key", "rotate", "--print", SECRET_KEY=generated.stdout.strip(), **production)
    assert rotate.returncode == 0
    variables = dict(line.split("=") for line in rotate.stdout.splitlines())
    status = program.run("secret-key", "status", "--json", **variables, **production)

    assert [key["state"] for key in json.loads(status.stdout)["keys"]] == ["upcoming", "signing"]


@pytest.mark.slow
def test_ten_timers_at_once(program: Program) -> None:
    """They rotate once, and none fails."""
    path = program.write(".env", f"SECRET_KEY={PAST.text}\n")
    timers = [program.start("secret-key", "rotate", "--if-older-than", "90d") for _ in range(10)]
    outputs = [process.communicate(timeout=120) for process in timers]

    assert [process.returncode for process in timers] == [0] * 10, outputs
    assert sorted(stdout.split()[0] for stdout, _ in outputs) == ["Changed"] + ["Nothing"] * 9
    assert [len(stdout.splitlines()) for stdout, _ in outputs].count(1) == 9
    assert len(load_keyring(read_environment({}, program.path))[1].keys) == 2
    assert {each.name for each in path.parent.glob(".env*")} == {".env"}


@pytest.mark.slow
def test_two_rotations_at_once(program: Program) -> None:
    """One wins."""
    program.write(".env", f"SECRET_KEY={PAST.text}\n")
    both = [program.start("secret-key", "rotate") for _ in range(2)]
    errors = {process.communicate(timeout=60)[1]: process.returncode for process in both}

    assert sorted(errors.values()) == [0, 1]
    lost = next(error for error, code in errors.items() if code)
    assert "is changing it" in lost or "belongs to another" in lost or "a rotation is in progress" in lost
    assert len(load_keyring(read_environment({}, program.path))[1].keys) == 2


def shell(program: Program, line: str) -> "subprocess.CompletedProcess[str]":
    """Run a line in which $FLASK is the program."""
    flask = f"{sys.executable} -m flask"
    environ = {**os.environ, "PYTHONPATH": str(program.path)}
    return subprocess.run(  # noqa: S602
        line.replace("$FLASK", flask),
        shell=True,
        cwd=program.path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a full device")
@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("$FLASK secret-key generate >/dev/full", "Error: cannot write the output: no space left on device"),
        ("$FLASK secret-key status >/dev/full", "Error: cannot write the output: no space left on device"),
        ("$FLASK secret-key revoke <&-", "Error: revoke: not confirmed (nothing changed)"),
        ("$FLASK secret-key revoke </dev/null", "Error: revoke: not confirmed (nothing changed)"),
    ],
)
def test_broken_streams(program: Program, line: str, error: str) -> None:
    """One line and a hint, no traceback."""
    path = program.write(".env", f"SECRET_KEY={PAST.text}\n")
    done = shell(program, line)

    assert done.returncode == 1
    assert done.stderr.lstrip().splitlines()[0] == error
    assert len(done.stderr.strip().splitlines()) <= 2
    assert path.read_text() == f"SECRET_KEY={PAST.text}\n"


def without_the_rights_of_root() -> tuple[str, ...]:
    """Return what to put before a command so that modes hold for it."""
    if os.geteuid() != 0:
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("root passes over modes")
    return ("setpriv", "--bounding-set=-dac_override", "--")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("command", [["rotate"], ["revoke", "--yes"], ["init"]], ids=" ".join)
def test_read_only_folder(program: Program, command: list[str]) -> None:
    if command != ["init"]:
        program.write(".env", f"SECRET_KEY={PAST.text}\n")
    before = {path: path.read_bytes() for path in program.path.iterdir() if path.is_file()}
    program.path.chmod(0o500)
    try:
        result = program.run("secret-key", *command, before=without_the_rights_of_root())
    finally:
        program.path.chmod(0o700)

    assert result.returncode == 1
    assert result.stderr.startswith(
        f"Error: cannot write {program.path / '.env'}: permission denied (file unchanged)\n"
    )
    assert result.stderr.splitlines()[1:] == [f"hint: chmod u+wx {program.path}"]
    assert {path: path.read_bytes() for path in program.path.iterdir() if path.is_file()} == before
