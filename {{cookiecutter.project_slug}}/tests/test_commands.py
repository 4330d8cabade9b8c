"""The commands: flask secret-key init, generate, status, rotate, revoke, scan."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from package import MINTED, Key, Keyring, cli, judge, load_ring, mint, read_dotenv, read_environment, store

NOW = 1_800_000_000
"""2027-01-15 08:00:00 UTC"""
DAY = 86400
KEY, OLDER, OLDEST = (mint(NOW - days * DAY) for days in (10, 11, 400))
FOREIGN = "kIx3v9_Qm7-aZ0yR2tW5uB8cD1eF4gH6jL"

GENERATE = "set it in the process environment to what this prints: flask secret-key generate"


@dataclass(frozen=True)
class Project:
    """A project's folder, with its commands run in this process."""

    path: Path

    def run(self, *arguments: str, answer: str | None = None, **environ: str) -> Result:
        """Run `flask secret-key` with `arguments`."""
        return CliRunner().invoke(cli.secret_key, arguments, input=answer, env=environ)

    def succeeds(self, *arguments: str, answer: str | None = None, **environ: str) -> str:
        """What a command that must not fail prints."""
        result = self.run(*arguments, answer=answer, **environ)
        assert result.exit_code == 0, result.output
        return result.output

    def refuses(self, *arguments: str, answer: str | None = None, **environ: str) -> str:
        """The error of a command that must fail and change nothing."""
        before = self.state()
        result = self.run(*arguments, answer=answer, **environ)
        assert result.exit_code == 1, result.output
        assert self.state() == before
        return result.stderr.removeprefix("Error: ").removesuffix("\n")

    def state(self) -> dict[str, tuple[int, bytes]]:
        """Every file with its mode and content."""
        files = (path for path in self.path.rglob("*") if path.is_file())
        return {str(path): (path.lstat().st_mode, path.read_bytes()) for path in files}

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """A file of the project."""
        path = self.path / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def dotenv(self, *keys: Key) -> Path:
        """A `.env` with a ring, and more."""
        older = ",".join(key.text for key in keys[1:])
        text = f"# mine\nexport SECRET_KEY='{keys[0].text}' # newest\nSECRET_KEY_FALLBACKS={older}\nA=1\n"
        return self.write(".env", text)

    def key_file(self, *keys: Key) -> Path:
        """A key file that `.env` names."""
        self.write(".env", "SECRET_KEY_FILE=ring\n")
        return self.write("ring", "".join(f"{key.text}\n" for key in keys))

    def ring(self, **environ: str) -> Keyring:
        """The ring as the app would load it."""
        return load_ring(read_environment(environ, self.path))[1]


Write = Callable[..., Path]
both_places = pytest.mark.parametrize("place", [Project.dotenv, Project.key_file])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project without a key, seen from another folder, at the moment NOW."""
    path = tmp_path / "project"
    for folder in (path, tmp_path / "elsewhere"):
        folder.mkdir()
    (path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(cli, "__file__", str(path / "package" / "secret_key" / "cli.py"))
    monkeypatch.setattr(time, "time", lambda: NOW + 0.9)
    return Project(path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# init


def test_init_makes_a_dotenv_that_its_owner_alone_can_read(project: Project) -> None:
    output = project.succeeds("init")
    dotenv = project.path / ".env"

    assert output == f"Made {dotenv} with a new key. Nobody else has it; keep it out of git.\n"
    assert [key.signs_from for key in project.ring().keys] == [NOW]
    assert mode(dotenv) == 0o600


def test_init_gives_a_dotenv_that_has_no_key_one_and_keeps_the_rest(project: Project) -> None:
    dotenv = project.write(".env", "A=1\nSECRET_KEY=\n# the end\n", mode=0o640)

    told = project.succeeds("init")
    assert told == (
        f"Made {dotenv} with a new key. Others can read it, run: chmod 600 {dotenv}; keep it out of git.\n"
    )
    assert dotenv.read_text() == f"A=1\nSECRET_KEY={project.ring().keys[0].text}\n# the end\n"
    assert mode(dotenv) == 0o640


def test_init_makes_the_key_file_that_is_named(project: Project) -> None:
    project.write(".env", "SECRET_KEY_FILE=ring\n")

    assert project.succeeds("init").startswith(f"Made {project.path / 'ring'} with a new key.")
    assert [key.signs_from for key in project.ring().keys] == [NOW]
    assert mode(project.path / "ring") == 0o600


@both_places
def test_init_never_changes_a_key(project: Project, place: Write) -> None:
    path = place(project, KEY, OLDER)
    before = project.state()
    where = ".env" if path.name == ".env" else str(path)

    assert project.succeeds("init") == f"There is a key already (from {where}): nothing was changed.\n"
    assert project.state() == before


def test_init_leaves_a_key_of_the_process_alone_and_tells_where_one_is_missing(project: Project) -> None:
    assert "from environment" in project.succeeds("init", SECRET_KEY=KEY.text)
    assert project.refuses("init", APP_ENV="production") == f"SECRET_KEY is missing or empty; {GENERATE}"
    assert project.refuses("init", SECRET_KEY_FALLBACKS=KEY.text).startswith("SECRET_KEY is missing")
    assert not (project.path / ".env").exists()


def test_init_tells_of_a_bad_key_and_leaves_it(project: Project) -> None:
    project.write(".env", "SECRET_KEY=changeme\n")

    assert project.refuses("init") == (
        "SECRET_KEY is too short: 8 of at least 32 characters; replace it: flask secret-key revoke"
    )


def test_init_does_not_write_through_a_dangling_link(project: Project) -> None:
    (project.path / ".env").symlink_to("nowhere")

    assert "cannot be read: no such file or directory" in project.refuses("init")


def test_init_loses_against_another_one_without_harm(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one makes `.env` after this one has seen that there is no key in it."""
    project.write(".env", "SECRET_KEY=\n")
    locked = store.locked

    def the_other_one_first(path: str) -> AbstractContextManager[None]:
        project.dotenv(KEY)
        return locked(path)

    monkeypatch.setattr(store, "locked", the_other_one_first)

    assert "There is a key already" in project.succeeds("init")
    assert project.ring().keys == (KEY,)


# generate


def test_generate_prints_one_key_and_nothing_else(project: Project) -> None:
    before = project.state()
    first, second = project.succeeds("generate"), project.succeeds("generate")

    assert judge(first.removesuffix("\n"), store.leaked_hashes()).signs_from == NOW
    assert first != second
    assert project.state() == before


# status


def test_status_is_a_table(project: Project) -> None:
    new, foreign = mint(NOW + 1800), Key(FOREIGN)
    project.dotenv(new, KEY, OLDER, foreign)
    *rows, change = project.succeeds("status").splitlines()

    assert [re.split(" {2,}", row) for row in rows] == [
        ["FINGERPRINT", "STATE", "SIGNS FROM", "VERIFIES UNTIL", "SOURCE"],
        [new.fingerprint, "upcoming", "2027-01-15 08:30:00 UTC", "replaced", ".env"],
        [KEY.fingerprint, "signing", "2027-01-05 08:00:00 UTC", "2027-01-22 08:30:00 UTC", ".env"],
        [OLDER.fingerprint, "expired", "2027-01-04 08:00:00 UTC", ".env"],
        [foreign.fingerprint, "expired", "unknown (made elsewhere)", ".env"],
    ]
    assert len({row.index(".env") for row in rows[1:]}) == 1
    assert change == "Next change: 2027-01-15 08:30:00 UTC (in 30 min)."


def test_status_tells_no_change_where_none_comes(project: Project) -> None:
    path = project.key_file(KEY)

    assert project.succeeds("status").splitlines()[1:] == [
        f"{KEY.fingerprint}     signing  2027-01-05 08:00:00 UTC  replaced        {path}"
    ]


def test_status_is_json_for_a_monitor(project: Project) -> None:
    project.dotenv(KEY, Key(FOREIGN))

    output = project.succeeds("status", "--json", SECRET_KEY_RETENTION="14d")
    assert output.startswith('{\n  "keys": ['), "people read it as well"
    assert json.loads(output) == {
        "retention_seconds": 14 * DAY,
        "keys": [
            {
                "fingerprint": KEY.fingerprint,
                "state": "signing",
                "signs_from": NOW - 10 * DAY,
                "verifies_until": None,
                "source": ".env",
            },
            {
                "fingerprint": Key(FOREIGN).fingerprint,
                "state": "retired",
                "signs_from": None,
                "verifies_until": NOW + 4 * DAY,
                "source": ".env",
            },
        ],
    }


def test_status_fails_where_the_signing_key_is_too_old(project: Project) -> None:
    project.dotenv(KEY)
    project.succeeds("status", "--max-age", "10d")
    error = "the signing key is 10 d old; run: flask secret-key rotate"

    assert project.refuses("status", "--max-age", "239h") == error
    assert json.loads(project.run("status", "--json", "--max-age", "9d").stdout)["keys"]
    assert project.refuses("status", "--max-age", "9d", SECRET_KEY=FOREIGN) == (
        "the signing key is of unknown age; run: flask secret-key rotate"
    )


def test_status_fails_where_the_app_would_not_start(project: Project) -> None:
    project.write(".env", f"SECRET_KEY={KEY.text[:-1]}\nSECRET_KEY_FALLBACKS=a,\n")

    assert project.refuses("status").splitlines() == [
        "SECRET_KEY is damaged: its checksum does not match; copy the whole key again",
        "SECRET_KEY_FALLBACKS entry 1 is too short: 1 of at least 32 characters; take it out of the ring",
        "SECRET_KEY_FALLBACKS entry 2 is missing or empty; take it out of the ring",
    ]


# rotate


@both_places
@pytest.mark.parametrize(("options", "lead"), [([], 3600), (["--in", "2h"], 7200), (["--now"], 0)])
def test_rotate_adds_a_key_that_signs_from_the_lead_ahead(
    project: Project, place: Write, options: list[str], lead: int
) -> None:
    path = place(project, KEY)
    path.chmod(0o640)
    output = project.succeeds("rotate", *options)
    new, old = project.ring().keys

    assert (new.signs_from, old) == (NOW + lead, KEY)
    assert mode(path) == 0o640
    start = {
        0: "2027-01-15 08:00:00 UTC (now)",
        3600: "2027-01-15 09:00:00 UTC (in 1 h)",
        7200: "2027-01-15 10:00:00 UTC (in 2 h)",
    }[lead]
    assert output.splitlines()[:2] == [
        f"Added a key to {path}.",
        f"The new key {new.fingerprint} verifies now and signs from {start}.",
    ]
    assert f"The old key {KEY.fingerprint} signs until then and verifies until 2027-01-22" in output


def test_rotate_leaves_the_rest_of_a_dotenv_as_it_is(project: Project) -> None:
    dotenv = project.dotenv(KEY)
    project.succeeds("rotate")
    new = project.ring().keys[0].text

    assert dotenv.read_text() == (
        f"# mine\nexport SECRET_KEY={new} # newest\nSECRET_KEY_FALLBACKS={KEY.text}\nA=1\n"
    )


def test_rotate_keeps_every_key_that_still_verifies(project: Project) -> None:
    young, younger = mint(NOW - 2 * DAY), mint(NOW - DAY)
    project.dotenv(younger, young)
    output = project.succeeds("rotate")

    assert project.ring().keys[1:] == (younger, young)
    assert f"The old key {younger.fingerprint} signs until then" in output


@both_places
def test_rotate_drops_what_has_expired_and_says_so(project: Project, place: Write) -> None:
    place(project, KEY, OLDER, OLDEST)
    output = project.succeeds("rotate")

    assert project.ring().keys[1:] == (KEY,)
    assert f"Dropped, expired: {OLDER.fingerprint}, {OLDEST.fingerprint}.\n" in output


@both_places
def test_rotate_refuses_while_a_rotation_is_under_way_and_says_until_when(
    project: Project, place: Write
) -> None:
    place(project, KEY)
    project.succeeds("rotate")

    end = "2027-01-15 09:00:00 UTC (in 1 h)"
    assert project.refuses("rotate") == (
        f"a rotation is under way: its key signs from {end}; rotate again after that"
    )
    assert project.refuses("rotate", "--now").startswith("a rotation is under way")
    assert project.refuses("rotate", "--print").startswith("a rotation is under way")


def test_rotate_at_once_twice_in_one_second_is_refused(project: Project) -> None:
    project.dotenv(KEY)
    project.succeeds("rotate", "--now")

    assert "2027-01-15 08:00:00 UTC (now); rotate again after that" in project.refuses("rotate", "--now")


def test_rotate_takes_a_ring_of_foreign_keys_on(project: Project) -> None:
    project.dotenv(Key(FOREIGN))
    project.succeeds("rotate")

    assert [key.signs_from for key in project.ring().keys] == [NOW + 3600, None]


def test_rotate_refuses_what_fallbacks_cannot_hold(project: Project) -> None:
    project.dotenv(Key(FOREIGN.replace("_", ",")))

    assert project.refuses("rotate").startswith("a key has a comma, which SECRET_KEY_FALLBACKS cannot hold")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--now", "--in", "1h"], "--in and --now exclude each other"),
        (["--in", "1"], "Invalid value for '--in': must be a number with a unit"),
    ],
)
def test_rotate_refuses_options_that_make_no_sense(project: Project, options: list[str], error: str) -> None:
    project.dotenv(KEY)
    before = project.state()
    result = project.run("rotate", *options)

    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"Error: {error}")
    assert project.state() == before


@both_places
def test_rotate_prints_the_variables_to_set_and_changes_nothing(project: Project, place: Write) -> None:
    place(project, KEY)
    before = project.state()
    result = project.run("rotate", "--print")
    names, values = zip(*(line.split("=") for line in result.stdout.splitlines()), strict=True)

    assert names == ("SECRET_KEY", "SECRET_KEY_FALLBACKS")
    assert values[1] == KEY.text
    assert judge(values[0], store.leaked_hashes()).signs_from == NOW + 3600
    assert "There is nothing more to do" in result.stderr
    assert project.state() == before


# revoke


@both_places
def test_revoke_leaves_one_new_key_that_signs_now(project: Project, place: Write) -> None:
    path = place(project, KEY, OLDER)
    path.chmod(0o640)
    output = project.succeeds("revoke", "--yes")
    (new,) = project.ring().keys

    assert new.signs_from == NOW
    assert mode(path) == 0o640
    assert output.splitlines() == [
        f"{path} has one new key, {new.fingerprint}, and no other.",
        "Running apps that follow the file refuse all that was signed before, in seconds.",
    ]
    assert KEY.text not in path.read_text()


@pytest.mark.parametrize(
    "bad", ["SECRET_KEY=changeme\n", f"SECRET_KEY={KEY.text[:-1]}\n", "SECRET_KEY=a,b\n"]
)
def test_revoke_mends_a_ring_that_is_refused(project: Project, bad: str) -> None:
    project.write(".env", bad)
    project.succeeds("revoke", "--yes")

    assert [key.signs_from for key in project.ring().keys] == [NOW]


def test_revoke_asks_first(project: Project) -> None:
    dotenv = project.dotenv(KEY)

    assert "Aborted!" in project.refuses("revoke", answer="n\n")
    assert "Aborted!" in project.refuses("revoke", answer="\n")
    assert "Aborted!" in project.refuses("revoke", answer="")
    assert f"All keys in {dotenv} go, and everybody is logged out. Go on?" in project.succeeds(
        "revoke", answer="y\n"
    )
    assert KEY not in project.ring().keys


def test_revoke_needs_something_to_revoke(project: Project) -> None:
    assert project.refuses("revoke", "--yes").startswith(f"{project.path / '.env'} is not there; run: flask")
    assert project.refuses("revoke", "--yes", SECRET_KEY_FILE="ring") == (
        f"{project.path / 'ring'} is not there; run: flask secret-key init"
    )


def test_revoke_prints_the_variables_to_set_and_changes_nothing(project: Project) -> None:
    project.dotenv(KEY, OLDER)
    before = project.state()
    key, fallbacks = project.succeeds("revoke", "--print").splitlines()

    assert judge(key.removeprefix("SECRET_KEY="), store.leaked_hashes()).signs_from == NOW
    assert fallbacks == "SECRET_KEY_FALLBACKS="
    assert project.state() == before


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_revoke_tells_where_apps_would_refuse_the_file_and_serve_on_with_the_leaked_key(
    project: Project,
) -> None:
    path = project.key_file(KEY)
    path.chmod(0o666)
    result = project.run("revoke", "--yes")

    assert result.exit_code == 1
    assert "has one new key" in result.stdout
    assert "Running apps" not in result.stdout
    assert result.stderr == f"Error: {path} can be written by others: run chmod go-w {path}\n"


# What holds for all that change a ring

changing = pytest.mark.parametrize("command", [["rotate"], ["revoke", "--yes"]], ids=["rotate", "revoke"])


@changing
def test_a_ring_in_variables_is_not_changed_but_printed(project: Project, command: list[str]) -> None:
    assert project.refuses(*command, SECRET_KEY=KEY.text) == (
        "the ring is in the process environment, which a command cannot change;"
        f" set both variables that this prints: flask secret-key {command[0]} --print"
    )
    printed = project.run(*command, "--print", SECRET_KEY=KEY.text)
    variables = dict(line.split("=") for line in printed.stdout.splitlines())

    assert printed.exit_code == 0
    assert project.ring(**variables).keys[1:] == ((KEY,) if command == ["rotate"] else ())


@changing
def test_two_places_at_once_are_refused(project: Project, command: list[str]) -> None:
    error = "SECRET_KEY_FILE and SECRET_KEY are both set; keep one of them"

    assert project.refuses(*command, SECRET_KEY=KEY.text, SECRET_KEY_FILE="ring") == error


@changing
def test_a_link_to_another_folder_is_followed_and_said(project: Project, command: list[str]) -> None:
    (project.path / "vault").mkdir()
    target = project.write("vault/env", f"SECRET_KEY={KEY.text}\n")
    (project.path / ".env").symlink_to("vault/env")
    result = project.run(*command)

    assert result.stderr == f"{project.path / '.env'} is a link: {target} is what changes.\n"
    assert (project.path / ".env").readlink() == Path("vault/env")
    assert read_dotenv(str(target))["SECRET_KEY"] != KEY.text


@changing
def test_a_link_within_the_folder_is_followed_without_a_word(project: Project, command: list[str]) -> None:
    project.write("env", f"SECRET_KEY={KEY.text}\n")
    (project.path / ".env").symlink_to("env")

    assert project.run(*command).stderr == ""
    assert (project.path / ".env").is_symlink()
    assert project.ring().keys[0] != KEY


@changing
@both_places
def test_a_locked_folder_is_left_alone(project: Project, command: list[str], place: Write) -> None:
    path = place(project, KEY)
    with store.locked(str(path)):
        assert project.refuses(*command) == f"{project.path} is locked by another command: try again"


@pytest.mark.parametrize("command", [["init"], ["rotate"], ["revoke", "--yes"]], ids=" ".join)
def test_a_retention_that_apps_would_refuse_is_told(project: Project, command: list[str]) -> None:
    project.dotenv(KEY)
    result = project.run(*command, SECRET_KEY_RETENTION="a week")

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: SECRET_KEY_RETENTION must be a number with a unit")


@pytest.mark.usefixtures("far_from_utc")
def test_status_tells_times_in_utc_wherever_the_machine_is(project: Project) -> None:
    project.dotenv(KEY)

    assert " 2027-01-05 08:00:00 UTC " in project.succeeds("status")


def test_no_command_but_generate_and_print_shows_a_key(project: Project) -> None:
    project.dotenv(KEY, OLDER)
    outputs = [
        project.succeeds(*command)
        for command in (["init"], ["status"], ["status", "--json"], ["rotate"], ["revoke", "--yes"], ["init"])
    ]

    assert len(outputs) == 6
    assert not MINTED.search("".join(outputs))


# scan


def test_scan_tells_what_it_found_and_what_to_do(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.path)
    subprocess.run(["git", "init", "--quiet"], check=True)
    assert project.succeeds("scan") == ""

    project.write("settings.py", f"KEY = '{KEY.text}'\n")
    subprocess.run(["git", "add", "settings.py"], check=True)
    result = project.run("scan")
    assert result.exit_code == 1
    assert result.stdout == f"settings.py:1: the secret key {KEY.fingerprint}\n"
    assert result.stderr == "Error: a key in git has leaked; replace it: flask secret-key revoke\n"


def test_scan_tells_that_there_is_no_repository(project: Project) -> None:
    assert project.refuses("scan").startswith("git says: fatal: not a git repository")


# The real program, in a process of its own, by the real clock

PAST = mint(0)


class Checkout:
    """A project's folder with a copy of the package, and the flask program run in it."""

    def __init__(self, path: Path) -> None:
        package = Path(cli.__file__).parents[1]
        self.path = path
        self.dotenv = path / ".env"
        shutil.copytree(package, path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        (path / "pyproject.toml").touch()
        (path / ".flaskenv").write_text(f"FLASK_APP={package.name}\n")

    def start(self, *arguments: str, before: tuple[str, ...] = (), **environ: str) -> "subprocess.Popen[str]":
        """Start `flask secret-key` with `arguments`."""
        return subprocess.Popen(
            [*before, sys.executable, "-m", "flask", "secret-key", *arguments],
            cwd=self.path,
            env={**os.environ, "PYTHONPATH": str(self.path), **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *arguments: str, answer: str = "", before: tuple[str, ...] = (), **environ: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run `flask secret-key` with `arguments` to its end."""
        process = self.start(*arguments, before=before, **environ)
        stdout, stderr = process.communicate(answer, timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A fresh clone: it has no `.env`."""
    path = tmp_path / "checkout"
    path.mkdir()
    return Checkout(path)


def test_a_fresh_clone_is_told_to_run_init_and_works_after_it(checkout: Checkout) -> None:
    status = checkout.run("status")
    assert (status.returncode, status.stdout) == (1, "")
    assert status.stderr.startswith("Error: SECRET_KEY is missing or empty; run: flask secret-key init")
    assert len(status.stderr.splitlines()) == 1

    init = checkout.run("init")
    assert (init.returncode, init.stderr) == (0, "")
    assert mode(checkout.dotenv) == 0o600
    content = checkout.dotenv.read_bytes()
    assert "nothing was changed" in checkout.run("init").stdout
    assert checkout.dotenv.read_bytes() == content
    assert "signing" in checkout.run("status").stdout


def test_rotate_edits_the_dotenv_that_the_flask_program_has_copied_into_its_environment(
    checkout: Checkout,
) -> None:
    checkout.dotenv.write_text(f"SECRET_KEY={PAST.text}\n")
    rotate = checkout.run("rotate")

    assert (rotate.returncode, rotate.stderr) == (0, "")
    assert rotate.stdout.startswith(f"Added a key to {checkout.dotenv}.")
    assert read_dotenv(str(checkout.dotenv))["SECRET_KEY_FALLBACKS"] == PAST.text


def test_production_takes_no_key_from_a_stray_dotenv_that_the_flask_program_has_copied(
    checkout: Checkout,
) -> None:
    checkout.dotenv.write_text(f"SECRET_KEY={PAST.text}\n")
    status = checkout.run("status", APP_ENV="production")

    assert status.returncode == 1
    assert status.stderr == f"Error: SECRET_KEY is missing or empty; {GENERATE}\n"


def test_what_rotate_prints_goes_through_a_pipe_into_the_next_start(checkout: Checkout) -> None:
    generated = checkout.run("generate")
    assert (generated.stderr, len(generated.stdout.splitlines())) == ("", 1)

    rotate = checkout.run("rotate", "--print", APP_ENV="production", SECRET_KEY=generated.stdout.strip())
    assert rotate.returncode == 0
    assert len(rotate.stdout.splitlines()) == 2
    key, fallbacks = (line.partition("=")[2] for line in rotate.stdout.splitlines())
    status = checkout.run(
        "status", "--json", APP_ENV="production", SECRET_KEY=key, SECRET_KEY_FALLBACKS=fallbacks
    )
    assert [key["state"] for key in json.loads(status.stdout)["keys"]] == ["upcoming", "signing"]


def test_two_rotations_at_once_have_one_winner(checkout: Checkout) -> None:
    for _ in range(3):
        checkout.dotenv.write_text(f"SECRET_KEY={PAST.text}\n")
        both = [checkout.start("rotate") for _ in range(2)]
        errors = {process.communicate(timeout=60)[1]: process.returncode for process in both}

        assert sorted(errors.values()) == [0, 1]
        lost = next(error for error, code in errors.items() if code)
        assert "is locked by another command" in lost or "a rotation is under way" in lost
        assert len(load_ring(read_environment({}, checkout.path))[1].keys) == 2
        assert {path.name for path in checkout.path.glob(".env*")} == {".env"}


def without_the_rights_of_root() -> tuple[str, ...]:
    """What to put before a command so that modes hold for it."""
    if os.geteuid() != 0:
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("root passes over modes")
    return ("setpriv", "--bounding-set=-dac_override", "--")


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("command", [["rotate"], ["revoke", "--yes"], ["init"]], ids=" ".join)
def test_a_folder_that_cannot_be_written_is_told_in_one_line(checkout: Checkout, command: list[str]) -> None:
    before = without_the_rights_of_root()
    if command != ["init"]:
        checkout.dotenv.write_text(f"SECRET_KEY={PAST.text}\n")
    files = {path: path.read_bytes() for path in checkout.path.iterdir() if path.is_file()}
    checkout.path.chmod(0o500)
    try:
        result = checkout.run(*command, before=before)
    finally:
        checkout.path.chmod(0o700)

    assert result.returncode == 1
    assert result.stderr == (
        f"Error: {checkout.dotenv} cannot be changed: permission denied; it is as it was\n"
    )
    assert {path: path.read_bytes() for path in checkout.path.iterdir() if path.is_file()} == files


def test_revoke_that_is_not_answered_changes_nothing(checkout: Checkout) -> None:
    checkout.dotenv.write_text(f"SECRET_KEY={PAST.text}\n")

    assert checkout.run("revoke", answer="").returncode == 1
    assert read_dotenv(str(checkout.dotenv)) == {"SECRET_KEY": PAST.text}
