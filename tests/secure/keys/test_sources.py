"""Where a keyring is kept: variables of the process, `.env`, or a key file."""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secure.keys import files
from secure.keys.environment import read_environment
from secure.keys.key import Key, generate_key
from secure.keys.keyring import RETENTION, InvalidKeyringError, Keyring
from secure.keys.sources import (
    DotenvSource,
    EnvironSource,
    FileSource,
    UnreadableKeyringError,
    as_variables,
    find_source,
    identity,
    load_keyring,
    read_keyring,
)

NEW, OLD, OLDEST = (generate_key(start).text for start in (1_800_000_000, 1_700_000_000, 1_600_000_000))
FOREIGN = secrets.token_urlsafe(32)
PRODUCTION = {"APP_ENV": "production"}

Load = Callable[..., tuple[str, list[str]]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """A function that loads the keyring of a process with these variables, and of the `.env` given."""

    def load(dotenv: str | None = None, **environ: str) -> tuple[str, list[str]]:
        if dotenv is not None:
            (tmp_path / ".env").write_text(dotenv)
        source, keyring, seen = load_keyring(read_environment(environ, tmp_path))
        assert seen == identity(source)
        return repr(source), [key.text for key in keyring.keys]

    return load


def problems(load: Load, dotenv: str | None = None, **environ: str) -> list[str]:
    with pytest.raises(InvalidKeyringError) as caught:
        load(dotenv, **environ)
    shown = str(caught.value) + repr(caught.value)
    assert not any(value in shown for value in environ.values() if len(value) > 12 and "/" not in value)
    return list(caught.value.problems)


def key_file(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(0o600)
    return str(path)


# One place


def test_environ(load: Load) -> None:
    for environ in ({}, PRODUCTION):
        variables = {"SECRET_KEY": NEW, "SECRET_KEY_FALLBACKS": f"{OLD}, {OLDEST} ,{FOREIGN}", **environ}
        assert load(**variables) == ("the process environment", [NEW, OLD, OLDEST, FOREIGN])


def test_dotenv(load: Load, tmp_path: Path) -> None:
    expected = (str(tmp_path / ".env"), [NEW, OLD, OLDEST])

    assert load(f"SECRET_KEY={NEW}\nSECRET_KEY_FALLBACKS='{OLD}, {OLDEST}'\n") == expected


@pytest.mark.parametrize(
    ("dotenv", "environ"),
    [
        (None, {"SECRET_KEY_FILE": "ring"}),
        (None, {"SECRET_KEY_FILE": " ring\n", **PRODUCTION}),
        (None, {"SECRET_KEY_FILE": "ring", "SECRET_KEY": "", "SECRET_KEY_FALLBACKS": " "}),
        ("SECRET_KEY_FILE=ring\n", {}),
        ("SECRET_KEY_FILE=ring\n", {"SECRET_KEY": OLD}),
    ],
)
def test_key_file(load: Load, tmp_path: Path, dotenv: str | None, environ: dict[str, str]) -> None:
    """It is named from the project's folder."""
    path = key_file(tmp_path / "ring", "", NEW, "", OLD, "")

    assert load(dotenv, **environ) == (path, [NEW, OLD])


@pytest.mark.parametrize("dotenv", ["SECRET_KEY=%s", "SECRET_KEY_FILE=ring"])
def test_dotenv_wins_whole(load: Load, tmp_path: Path, dotenv: str) -> None:
    key_file(tmp_path / "ring", NEW)
    for environ in ({"SECRET_KEY": OLD}, {"SECRET_KEY_FALLBACKS": OLD}, {"SECRET_KEY_FILE": "nowhere"}):
        assert load(dotenv.replace("%s", NEW), **environ)[1] == [NEW]
    assert load(dotenv.replace("%s", NEW), **PRODUCTION, SECRET_KEY=OLD)[1] == [OLD]


def test_find_source(tmp_path: Path) -> None:
    """An empty variable, or a copy of an empty line of `.env`, is not a place: `init` fills `.env`."""

    def kind(dotenv: str, **environ: str) -> type:
        (tmp_path / ".env").write_text(dotenv)
        return type(find_source(read_environment(environ, tmp_path)))

    assert kind("") is kind("SECRET_KEY=\n", SECRET_KEY="") is kind("", SECRET_KEY=" ") is DotenvSource
    assert kind("SECRET_KEY=\n", SECRET_KEY="x") is kind("", **PRODUCTION) is EnvironSource
    assert kind("", SECRET_KEY_FILE="x") is FileSource


@pytest.mark.parametrize("other", ["SECRET_KEY", "SECRET_KEY_FALLBACKS"])
def test_both_set(load: Load, other: str) -> None:
    expected = [f"SECRET_KEY_FILE and {other}: both are set\nhint: keep one of them"]

    assert problems(load, **{"SECRET_KEY_FILE": "ring", other: NEW}) == expected
    assert problems(load, f"SECRET_KEY_FILE=ring\n{other}={NEW}\n") == expected


@pytest.mark.parametrize("path", ["~/keys/ring", "~ann/ring", "~", "$HOME/ring", "${HOME}/ring"])
def test_unexpanded_path(load: Load, tmp_path: Path, path: str) -> None:
    reason = f"SECRET_KEY_FILE: starts with {path[0]}, which is not expanded here"
    expected = [f"{reason}\nhint: write the full path of the file"]

    assert problems(load, SECRET_KEY_FILE=path) == expected
    assert problems(load, f"SECRET_KEY_FILE='{path}'\n") == expected
    assert load("", SECRET_KEY_FILE=key_file(tmp_path / "a~$b", NEW))[1] == [NEW]


# What is refused, and what fixes it

GENERATE = "set SECRET_KEY to the output of: flask secret-key generate"
INIT = f"flask secret-key init (on a server, {GENERATE})"
RESTORE = "restore the previous key; if there is none: "
REVOKE = f"{RESTORE}flask secret-key revoke"
MOVE = "move the first valid key of SECRET_KEY_FALLBACKS to SECRET_KEY"
REMOVE = "remove it from the keyring"


@pytest.mark.parametrize(
    ("key", "fallbacks", "expected"),
    [
        ("", "", ["SECRET_KEY: is missing or empty\nhint: {missing}"]),
        ("short", "", ["SECRET_KEY: is too short: 5 of at least 32 characters\nhint: {invalid}"]),
        ("", OLD, [f"SECRET_KEY: is missing or empty\nhint: {MOVE}"]),
        ("short", OLD, [f"SECRET_KEY: is too short: 5 of at least 32 characters\nhint: {MOVE}"]),
        (NEW, "a,,b", [
            f"SECRET_KEY_FALLBACKS entry 1: is too short: 1 of at least 32 characters\nhint: {REMOVE}",
            f"SECRET_KEY_FALLBACKS entry 2: is missing or empty\nhint: {REMOVE}",
            f"SECRET_KEY_FALLBACKS entry 3: is too short: 1 of at least 32 characters\nhint: {REMOVE}",
        ]),
        (NEW, f"{OLD},", [f"SECRET_KEY_FALLBACKS entry 2: is missing or empty\nhint: {REMOVE}"]),
        (NEW, NEW, [f"SECRET_KEY_FALLBACKS entry 1: repeats an earlier key\nhint: {REMOVE}"]),
        (OLD, NEW, ["SECRET_KEY_FALLBACKS entry 1: is newer than the first key\nhint: put the newest key first"]),
    ],
    ids=["nothing", "short", "fallbacks alone", "short, with fallbacks", "a,,b", "comma at the end", "twice", "order"],
)  # fmt: skip
def test_problems(load: Load, key: str, fallbacks: str, expected: list[str]) -> None:
    """Every problem is named, with a hint that keeps every key that is there."""
    in_process = {"missing": GENERATE, "invalid": f"{RESTORE}{GENERATE}"}
    in_dotenv = {"missing": INIT, "invalid": REVOKE}

    assert problems(load, SECRET_KEY=key, SECRET_KEY_FALLBACKS=fallbacks, **PRODUCTION) == [
        problem.format_map(in_process) for problem in expected
    ]
    assert problems(load, f"SECRET_KEY='{key}'\nSECRET_KEY_FALLBACKS='{fallbacks}'\n") == [
        problem.format_map(in_dotenv) for problem in expected
    ]


@pytest.mark.parametrize("key", [NEW, secrets.token_hex(32), secrets.token_urlsafe(48)], ids=["new", "hex", "urlsafe"])
def test_key_in_place_of_a_path(load: Load, key: str) -> None:
    """Else every message would name the "file", and `init` would create it."""
    hint = "hint: unset SECRET_KEY_FILE, and set SECRET_KEY to the key"
    expected = [f"SECRET_KEY_FILE: is a key, not the path of a file\n{hint}"]

    assert problems(load, SECRET_KEY_FILE=key) == expected
    assert problems(load, f"SECRET_KEY_FILE={key}\n") == expected


def test_nothing(load: Load) -> None:
    assert problems(load) == [f"SECRET_KEY: is missing or empty\nhint: {INIT}"]
    assert problems(load, f"SECRET_KEY={NEW}", **PRODUCTION) == [f"SECRET_KEY: is missing or empty\nhint: {GENERATE}"]


@pytest.mark.parametrize("form", [" %s", "%s\n", '"%s"', "'%s'"])
def test_surrounded(load: Load, form: str) -> None:
    """The remedy removes what is around the key; another key would log everyone out."""
    (problem,) = problems(load, SECRET_KEY=form % NEW)

    assert "hint: " in problem
    assert "generate" not in problem


def test_no_key_file(load: Load, tmp_path: Path) -> None:
    assert problems(load, SECRET_KEY_FILE="ring") == [
        f"SECRET_KEY_FILE={tmp_path / 'ring'}: no such file\n"
        "hint: restore the file; if this is a new app: flask secret-key init"
    ]


def test_key_file_problems(load: Load, tmp_path: Path) -> None:
    path = key_file(tmp_path / "ring", "short", "", OLD, "b")
    too_short = "is too short: {} of at least 32 characters"

    assert problems(load, SECRET_KEY_FILE=path) == [
        f"{path} line 1: {too_short.format(5)}\nhint: remove this line",
        f"{path} line 4: {too_short.format(1)}\nhint: {REMOVE}",
    ]
    key_file(tmp_path / "ring", "short")
    assert problems(load, SECRET_KEY_FILE=path) == [f"{path} line 1: {too_short.format(5)}\nhint: {REVOKE}"]


def test_unreadable_key_file(load: Load, tmp_path: Path) -> None:
    path = key_file(tmp_path / "ring", NEW)
    os.chmod(path, 0o666)  # noqa: S103
    with pytest.raises(UnreadableKeyringError, match="other users can write to it"):
        read_keyring(FileSource(path), RETENTION)
    (tmp_path / ".env").mkdir()
    with pytest.raises(UnreadableKeyringError, match=r"(directory|regular file)"):
        read_keyring(DotenvSource(str(tmp_path / ".env")), RETENTION)


def test_no_list_of_leaked_keys(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it no keyring is valid."""
    files.leaked_hashes.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(files, "__file__", str(tmp_path / "files.py"))
        (problem,) = problems(load, SECRET_KEY=NEW)
    assert problem.startswith(f"cannot read {tmp_path / 'leaked.bin'}: no such file")
    assert load(SECRET_KEY=NEW)[1] == [NEW]


# The retention


def test_retention(load: Load, tmp_path: Path) -> None:
    def retention(**environ: str) -> int:
        return load_keyring(read_environment({"SECRET_KEY": NEW, **environ}, tmp_path))[1].retention

    assert retention() == RETENTION == 7 * 86400
    assert retention(SECRET_KEY_RETENTION="90d") == 90 * 86400
    (tmp_path / ".env").write_text(f"SECRET_KEY={NEW}\nSECRET_KEY_RETENTION=30d\n")
    assert retention() == 30 * 86400


def test_wrong_retention(load: Load) -> None:
    reason = "SECRET_KEY_RETENTION: must be a number with a unit (s, m, h or d), for example 90s, 1h or 7d"
    expected = f"{reason}\nhint: correct SECRET_KEY_RETENTION"

    assert problems(load, SECRET_KEY=NEW, SECRET_KEY_RETENTION="a week") == [expected]
    first, second = problems(load, SECRET_KEY="short", SECRET_KEY_RETENTION="a week")
    assert first.startswith("SECRET_KEY: is too short")
    assert second == expected


# There and back

KEYS = st.integers(1_000_000_000, 2_000_000_000).map(generate_key) | st.builds(lambda: Key(secrets.token_hex(32)))


@given(st.lists(KEYS, min_size=1, max_size=8))
def test_round_trip(keys: list[Key]) -> None:
    keyring = Keyring(tuple(keys))

    assert read_keyring(EnvironSource(as_variables(keyring.keys)), RETENTION) == keyring


def test_text(tmp_path: Path) -> None:
    """What the commands write reads back, and the rest of `.env` stays."""
    keys = Keyring((generate_key(2), generate_key(1))).keys
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"A=1\nSECRET_KEY={NEW}\n")
    for source in (DotenvSource(str(dotenv)), FileSource(str(tmp_path / "ring"))):
        path = Path(source.path)
        path.write_text(source.text_with(keys))
        path.chmod(0o600)
        assert read_keyring(source, RETENTION).keys == keys
        assert path.name != ".env" or path.read_text().startswith("A=1\n")
        path.unlink()
        path.write_text(source.text_with((generate_key(1_700_000_000),)))
        assert [key.activation for key in read_keyring(source, RETENTION).keys] == [1_700_000_000]


def test_comma(load: Load) -> None:
    """Only the first key can have one, in variables."""
    assert as_variables((Key("a,b"), Key("c"))) == {"SECRET_KEY": "a,b", "SECRET_KEY_FALLBACKS": "c"}
    with pytest.raises(files.FileError) as caught:
        as_variables((Key("a"), Key("b,c")))

    assert str(caught.value) == (
        "SECRET_KEY_FALLBACKS: a key contains a comma, which separates keys\n"
        "hint: keep the keyring in a file: SECRET_KEY_FILE"
    )


def test_repr(tmp_path: Path) -> None:
    source = find_source(read_environment({"SECRET_KEY": NEW}, tmp_path))

    assert f"{source!r} {source}" == "the process environment the process environment"
    assert identity(source) == ()


# What a start reads

READS = """
import sys
opened = []
# the system call alone: open() with an opener reports itself, too
sys.addaudithook(lambda event, about: opened.append(str(about[0])) if event == "open" and about[1] is None else None)
from secure.settings import Settings
for _ in range(int(sys.argv[1])):
    settings = Settings.load()
from flask import Flask
from secure.keys import watcher
app = Flask("app")
watcher.init_app(app, watcher.KeyringWatcher(
    settings.keyring_source, settings.keyring, settings.keyring_interval, seen=settings.keyring_identity))
with app.app_context():
    pass
print(sum(path.endswith(".env") for path in opened), sum("leaked.bin" in path for path in opened),
      sum(path.endswith("ring") for path in opened))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dotenv", "with_file"), [(f"SECRET_KEY={NEW}\n", 0), ("SECRET_KEY_FILE=ring\n", 1)], ids=[".env", "file"]
)
def test_read_once(tmp_path: Path, dotenv: str, with_file: int) -> None:
    """A start parses `.env`, the key file and the list of leaked keys once."""
    (tmp_path / ".env").write_text(dotenv)
    key_file(tmp_path / "ring", NEW)
    places = os.pathsep.join(path for path in sys.path if path)
    environ = {**os.environ, "PYTHONPATH": places}
    for starts in (1, 2):
        command = [sys.executable, "-c", READS, str(starts)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
        counts = [int(count) for count in done.stdout.split()]
        assert (counts, done.stderr) == ([starts, 1, starts * with_file], "")


def test_change_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of the file is taken before it is read: a change in between is seen at the next look."""
    path = Path(key_file(tmp_path / "ring", NEW))
    before = files.identity(str(path))
    read = files.read_key_file

    def change_after(name: str) -> list[str]:
        lines = read(name)
        key_file(path, NEW, OLD)
        return lines

    monkeypatch.setattr(files, "read_key_file", change_after)
    environment = read_environment({"SECRET_KEY_FILE": str(path)}, tmp_path)

    assert load_keyring(environment)[2] == before != files.identity(str(path))
