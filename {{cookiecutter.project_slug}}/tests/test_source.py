"""Where a ring is kept: variables of the process, `.env`, or a key file."""

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from package import (
    RETENTION,
    Key,
    Keyring,
    RingRefused,
    Variables,
    as_variables,
    load_ring,
    locate,
    mint,
    read_environment,
    read_ring,
    store,
)

NEW, OLD, OLDEST = (mint(start).text for start in (1_800_000_000, 1_700_000_000, 1_600_000_000))
FOREIGN = secrets.token_urlsafe(32)

Load = Callable[..., tuple[str, Keyring]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """A function that loads the ring of a process with these variables, and of the `.env` given."""

    def load(dotenv: str | None = None, **environ: str) -> tuple[str, Keyring]:
        if dotenv is not None:
            (tmp_path / ".env").write_text(dotenv)
        source, ring = load_ring(read_environment(environ, tmp_path))
        return repr(source), ring

    return load


def problems(load: Load, dotenv: str | None = None, **environ: str) -> list[str]:
    with pytest.raises(RingRefused) as caught:
        load(dotenv, **environ)
    shown = str(caught.value) + repr(caught.value)
    assert not any(value in shown for value in environ.values() if len(value) > 12 and "/" not in value)
    return list(caught.value.problems)


def key_file(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(0o600)
    return str(path)


def texts(ring: Keyring) -> list[str]:
    return [key.text for key in ring.keys]


# One place


def test_the_ring_is_in_the_variables_of_the_process(load: Load) -> None:
    source, ring = load(SECRET_KEY=NEW, SECRET_KEY_FALLBACKS=f"{OLD}, {OLDEST} ,{FOREIGN}")

    assert (source, texts(ring)) == ("environment", [NEW, OLD, OLDEST, FOREIGN])


def test_the_ring_is_in_the_dotenv_file(load: Load) -> None:
    source, ring = load(f"SECRET_KEY={NEW}\nSECRET_KEY_FALLBACKS='{OLD}, {OLDEST}'\n")

    assert (source, texts(ring)) == (".env", [NEW, OLD, OLDEST])


@pytest.mark.parametrize(
    ("dotenv", "environ"),
    [
        (None, {"SECRET_KEY_FILE": "ring"}),
        (None, {"SECRET_KEY_FILE": "ring", "APP_ENV": "production"}),
        ("SECRET_KEY_FILE=ring\n", {}),
    ],
    ids=["process", "production", ".env"],
)
def test_the_ring_is_in_a_file_of_its_own_named_from_the_project(
    load: Load, tmp_path: Path, dotenv: str | None, environ: dict[str, str]
) -> None:
    path = key_file(tmp_path / "ring", NEW, OLD)
    source, ring = load(dotenv, **environ)

    assert (source, texts(ring)) == (path, [NEW, OLD])


@pytest.mark.parametrize("dotenv", ["SECRET_KEY=%s", "SECRET_KEY_FALLBACKS=%s", "SECRET_KEY_FILE=nowhere/%s"])
def test_the_process_wins_whole(load: Load, tmp_path: Path, dotenv: str) -> None:
    dotenv %= OLD
    assert texts(load(dotenv, SECRET_KEY=NEW)[1]) == [NEW]
    assert texts(load(dotenv, SECRET_KEY_FILE=key_file(tmp_path / "ring", NEW))[1]) == [NEW]


def test_production_takes_no_key_from_a_dotenv_file(load: Load) -> None:
    assert problems(load, f"SECRET_KEY={NEW}", APP_ENV="production", SECRET_KEY=NEW) == [
        "SECRET_KEY is missing or empty; set it in the process environment to what this prints:"
        " flask secret-key generate"
    ]


def test_an_empty_variable_of_the_process_does_not_let_the_dotenv_file_in(load: Load) -> None:
    assert len(problems(load, f"SECRET_KEY={NEW}", SECRET_KEY="")) == 1


def test_the_key_that_flask_copied_from_a_dotenv_before_a_rotation_does_not_hide_the_new_ring(
    load: Load, tmp_path: Path
) -> None:
    rotated = f"SECRET_KEY={NEW}\nSECRET_KEY_FALLBACKS={OLD},{OLDEST}\n"

    for copied in ({"SECRET_KEY": OLD}, {"SECRET_KEY": OLD, "SECRET_KEY_FALLBACKS": OLDEST}):
        source, ring = load(rotated, **copied)
        assert (source, texts(ring)) == (".env", [NEW, OLD, OLDEST])
    assert texts(load(rotated, SECRET_KEY=OLD, APP_ENV="production")[1]) == [OLD]
    assert len(problems(load, rotated, SECRET_KEY=OLD, SECRET_KEY_FILE=key_file(tmp_path / "ring", NEW))) == 1


def test_the_key_that_flask_copied_before_a_revocation_does_not_come_back_with_a_reload(load: Load) -> None:
    revoked = f"SECRET_KEY={NEW}\n"

    for copied in ({"SECRET_KEY": OLD}, {"SECRET_KEY": OLD, "SECRET_KEY_FALLBACKS": OLDEST}):
        source, ring = load(revoked, WERKZEUG_RUN_MAIN="true", **copied)
        assert (source, texts(ring)) == (".env", [NEW])
    assert texts(load(revoked, SECRET_KEY=OLD)[1]) == [OLD]
    assert texts(load(revoked, SECRET_KEY=OLD, WERKZEUG_RUN_MAIN="true", APP_ENV="production")[1]) == [OLD]
    assert texts(load(f"SECRET_KEY={OLD}\n", SECRET_KEY=NEW, WERKZEUG_RUN_MAIN="true")[1]) == [NEW]
    for foreign in (FOREIGN, FOREIGN.upper()):  # before and behind every minted key
        assert texts(load(revoked, SECRET_KEY=foreign, WERKZEUG_RUN_MAIN="true")[1]) == [foreign]


@pytest.mark.parametrize("other", ["SECRET_KEY", "SECRET_KEY_FALLBACKS"])
@pytest.mark.parametrize("value", [NEW, ""], ids=["set", "empty"])
def test_a_variable_and_its_file_together_are_an_error(
    load: Load, tmp_path: Path, other: str, value: str
) -> None:
    path = key_file(tmp_path / "ring", NEW)
    expected = [f"SECRET_KEY_FILE and {other} are both set; keep one of them"]

    assert problems(load, **{"SECRET_KEY_FILE": path, other: value}) == expected
    assert problems(load, f"SECRET_KEY_FILE={path}\n{other}={value}\n") == expected


# What is refused, and what mends it

GENERATE = "set it in the process environment to what this prints: flask secret-key generate"
INIT = f"run: flask secret-key init (on a server, {GENERATE})"
REVOKE = "replace it: flask secret-key revoke"


@pytest.mark.parametrize(
    ("key", "fallbacks", "expected"),
    [
        ("", "", ["SECRET_KEY is missing or empty; {missing}"]),
        ("short", "", ["SECRET_KEY is too short: 5 of at least 32 characters; {bad}"]),
        (NEW, "a,,b", [
            "SECRET_KEY_FALLBACKS entry 1 is too short: 1 of at least 32 characters; take it out of the ring",
            "SECRET_KEY_FALLBACKS entry 2 is missing or empty; take it out of the ring",
            "SECRET_KEY_FALLBACKS entry 3 is too short: 1 of at least 32 characters; take it out of the ring",
        ]),
        (NEW, f"{OLD},", ["SECRET_KEY_FALLBACKS entry 2 is missing or empty; take it out of the ring"]),
        (NEW, ",", [
            "SECRET_KEY_FALLBACKS entry 1 is missing or empty; take it out of the ring",
            "SECRET_KEY_FALLBACKS entry 2 is missing or empty; take it out of the ring",
        ]),
        (NEW, f'["{OLD}"]', [
            "SECRET_KEY_FALLBACKS entry 1 is damaged: its checksum does not match; copy the whole key again"
        ]),
        (NEW, NEW, ["SECRET_KEY_FALLBACKS entry 1 repeats an earlier key; take it out of the ring"]),
        (OLD, NEW, [
            "SECRET_KEY_FALLBACKS entry 1 is newer than the first key; put the newest first"
        ]),
        ("changeme-" * 4 + "!", OLD, ["SECRET_KEY reads like a placeholder; {bad}"]),
        ("", f"{OLD},short", [
            "SECRET_KEY is missing or empty; {missing}",
            "SECRET_KEY_FALLBACKS entry 2 is too short: 5 of at least 32 characters; take it out of the ring",
        ]),
    ],
    ids=[
        "nothing", "short", "a,,b", "a comma at the end", "a comma alone", "JSON", "twice", "oldest first",
        "placeholder", "fallbacks alone",
    ],
)  # fmt: skip
def test_every_problem_of_a_ring_is_told_at_once_with_its_remedy(
    load: Load, key: str, fallbacks: str, expected: list[str]
) -> None:
    in_process = {"missing": GENERATE, "bad": GENERATE}
    in_dotenv = {"missing": INIT, "bad": REVOKE}

    assert problems(load, SECRET_KEY=key, SECRET_KEY_FALLBACKS=fallbacks) == [
        problem.format_map(in_process) for problem in expected
    ]
    assert problems(load, f"SECRET_KEY='{key}'\nSECRET_KEY_FALLBACKS='{fallbacks}'\n") == [
        problem.format_map(in_dotenv) for problem in expected
    ]


@pytest.mark.parametrize("form", [" %s", "%s\n", '"%s"', "'%s'"])
def test_a_key_of_the_process_is_taken_as_it_stands(load: Load, form: str) -> None:
    assert len(problems(load, SECRET_KEY=form % NEW)) == 1


def test_where_there_is_nothing_at_all_the_remedy_is_init(load: Load) -> None:
    assert problems(load) == [f"SECRET_KEY is missing or empty; {INIT}"]


def test_a_key_file_that_is_not_there_is_made_by_init(load: Load, tmp_path: Path) -> None:
    assert problems(load, SECRET_KEY_FILE="ring") == [
        f"SECRET_KEY_FILE names {tmp_path / 'ring'}, which is not there; run: flask secret-key init"
    ]


def test_a_problem_in_a_key_file_is_told_with_its_line(load: Load, tmp_path: Path) -> None:
    path = key_file(tmp_path / "ring", "short", OLD, "")

    assert problems(load, SECRET_KEY_FILE=path) == [
        f"{path} line 1 is too short: 5 of at least 32 characters; {REVOKE}",
        f"{path} line 3 is missing or empty; take it out of the ring",
    ]


def test_a_list_of_leaked_keys_that_is_not_there_refuses_every_ring(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "__file__", str(tmp_path / "store.py"))

    assert problems(load, SECRET_KEY=NEW) == [
        f"{tmp_path / 'leaked.bin'} cannot be read: no such file or directory"
    ]


# The retention


def test_the_retention_is_a_setting(load: Load) -> None:
    assert load(SECRET_KEY=NEW)[1].retention == RETENTION
    assert load(SECRET_KEY=NEW, SECRET_KEY_RETENTION="90d")[1].retention == 90 * 86400


def test_a_retention_that_is_no_length_of_time_is_refused(load: Load) -> None:
    assert problems(load, SECRET_KEY=NEW, SECRET_KEY_RETENTION="a week") == [
        "SECRET_KEY_RETENTION must be a number with a unit (s, m, h or d), for example 90s, 1h or 7d"
    ]


# There and back

KEYS = st.integers(1_000_000_000, 2_000_000_000).map(mint) | st.builds(lambda: Key(secrets.token_hex(32)))


@given(st.lists(KEYS, min_size=1, max_size=8))
def test_a_ring_written_as_variables_reads_back(keys: list[Key]) -> None:
    ring = Keyring(tuple(keys))

    assert read_ring(Variables(as_variables(ring.keys)), RETENTION) == ring


def test_a_comma_may_stand_in_the_first_key_alone(load: Load) -> None:
    comma = f"{FOREIGN},{FOREIGN[::-1]}"
    assert texts(load(SECRET_KEY=comma)[1]) == [comma]

    with pytest.raises(store.StoreError, match="use SECRET_KEY_FILE instead"):
        as_variables((mint(0), Key(comma)))


def test_a_source_shows_no_key(tmp_path: Path) -> None:
    environment = read_environment({"SECRET_KEY": NEW}, tmp_path)

    assert NEW not in f"{locate(environment)!r} {locate(environment)}"
