"""The environment becomes settings; whatever is wrong with it is told at once, and the start stops."""

import logging
import os
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import pytest
from package import ConfigError, Settings, handover, load, mint

KEY, OLDER = mint(1_700_000_000).text, mint(1_600_000_000).text
DAY = 86400


def loaded(**environ: str) -> Settings:
    return load({"SECRET_KEY": KEY, **environ}, Path.cwd())


def problems(**environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(**environ)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("process", "dotenv", "expected"),
    [
        (None, None, "production"),
        ("", None, "production"),
        ("production", None, "production"),
        ("development", None, "development"),
        ("testing", None, "testing"),
        (" development ", None, "development"),
        (None, "development", "development"),
        (None, "testing", "testing"),
        (None, "", "production"),
        ("testing", "development", "testing"),
        ("production", "development", "production"),
        ("", "development", "production"),
        ("development", "production", "development"),
        (None, "production", "production"),
    ],
)
def test_the_environment_is_production_unless_told_otherwise(
    tmp_path: Path, process: str | None, dotenv: str | None, expected: str
) -> None:
    if dotenv is not None:
        (tmp_path / ".env").write_text(f"APP_ENV={dotenv}\n")
    settings = loaded() if process is None else loaded(APP_ENV=process)

    assert settings.environment == expected
    assert settings.production == (expected == "production")


@pytest.mark.parametrize("word", ["prod", "Production", "dev", "DEVELOPMENT", "test", "staging", "1", "on"])
def test_any_other_word_is_refused(tmp_path: Path, word: str) -> None:
    expected = ["APP_ENV must be one of production, development, testing"]

    assert problems(APP_ENV=word) == expected
    (tmp_path / ".env").write_text(f"APP_ENV={word}\n")
    assert problems() == expected


@pytest.mark.parametrize(
    ("attribute", "default", "name", "value", "meant"),
    [
        ("ring_interval", 5, "SECRET_KEY_INTERVAL", "1m", 60),
        ("session_store", "signed", "SESSION_STORE", "encrypted", "encrypted"),
        ("session_lifetime", 7 * DAY, "SESSION_LIFETIME", "1d", DAY),
        ("session_absolute_lifetime", 30 * DAY, "SESSION_ABSOLUTE_LIFETIME", "90d", 90 * DAY),
        ("session_read_sha1", False, "SESSION_READ_SHA1", "1", True),
        ("session_read_sha1", False, "SESSION_READ_SHA1", "0", False),
        ("trusted_hosts", (), "TRUSTED_HOSTS", "a.example, .B.example", ("a.example", ".b.example")),
        ("trusted_proxies", 0, "TRUSTED_PROXIES", "2", 2),
        ("max_content_length", 1 << 20, "MAX_CONTENT_LENGTH", "5000", 5000),
    ],
)
def test_a_setting_has_a_safe_default_and_means_what_it_says(
    attribute: str, default: object, name: str, value: str, meant: object
) -> None:
    assert getattr(loaded(), attribute) == default
    assert getattr(loaded(**{name: value}), attribute) == meant


def test_production_refuses_the_debugger_that_flask_run_got() -> None:
    with click.Context(click.Command("run")) as command:
        assert loaded().production
        command.params["debugger"] = True
        assert loaded(APP_ENV="development").environment == "development"
        assert problems() == ["FLASK_DEBUG must be off in production; unset it, and run without --debug"]


@pytest.mark.usefixtures("own_server")
def test_a_server_is_asked_at_the_start_but_not_by_a_worker_that_begins_later() -> None:
    gone = "redis://127.0.0.1:1"
    (problem,) = problems(SESSION_STORE=gone)
    assert "does not answer" in problem

    handover.share()
    loaded()
    assert loaded(SESSION_STORE=gone).session_store == gone


WRONG = {
    "APP_ENV": "prod",
    "SECRET_KEY": f"{OLDER[:-1]}x",
    "SECRET_KEY_FALLBACKS": f"hunter2-hunter2,,{KEY}",
    "SECRET_KEY_INTERVAL": "hunter2",
    "SESSION_LIFETIME": "0d",
    "SESSION_ABSOLUTE_LIFETIME": "a hunter2",
    "SESSION_READ_SHA1": "hunter2",
    "MAX_CONTENT_LENGTH": "hunter2",
    "TRUSTED_HOSTS": "https://hunter2",
    "TRUSTED_PROXIES": "hunter2",
}
"""Every one of them is wrong."""


def test_every_problem_is_told_at_once() -> None:
    told = problems(**WRONG)

    assert {problem.split()[0] for problem in told} == set(WRONG)
    assert len(told) == len(WRONG) + 1
    assert "SECRET_KEY is damaged: its checksum does not match; copy the whole key again" in told
    assert "SECRET_KEY_FALLBACKS entry 2 is missing or empty; take it out of the ring" in told


def test_each_problem_is_a_line_of_its_own() -> None:
    assert str(ConfigError(["one is wrong", "two is wrong"])) == "one is wrong\ntwo is wrong"


def test_a_problem_comes_with_its_remedy_or_with_what_would_be_right() -> None:
    right = ("; ", " for example ", " such as ", " must be one of ")

    assert [problem for problem in problems(**WRONG) if not any(words in problem for words in right)] == []


def test_no_value_is_shown_not_even_in_a_traceback() -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(**WRONG)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)

    assert "hunter2" not in shown
    assert KEY not in shown
    assert OLDER[:-1] not in shown


def test_settings_show_no_key() -> None:
    settings = loaded(SECRET_KEY_FALLBACKS=OLDER)

    assert KEY not in repr(settings)
    assert OLDER not in repr(settings)
    assert KEY not in repr(settings.flask_config())


def test_a_dotenv_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe")

    assert problems() == [f"{tmp_path / '.env'} is not UTF-8 text: save it as UTF-8"]
    assert loaded(APP_ENV="production").production


def test_a_retired_key_verifies_as_long_as_a_session_lives() -> None:
    assert loaded(SESSION_LIFETIME="7d").ring.retention == 7 * 86400
    assert loaded(SESSION_LIFETIME="30d", SECRET_KEY_RETENTION="30d").session_lifetime == 30 * 86400
    assert problems(SESSION_LIFETIME="8d") == [
        "SECRET_KEY_RETENTION is shorter than SESSION_LIFETIME; raise it to that"
    ]


def test_reading_the_settings_leaves_the_process_environment_alone(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("APP_ENV=development\nOTHER=1\n")
    before = dict(os.environ)
    loaded()

    assert dict(os.environ) == before


# A running server


GONE = "{} is gone or says nothing; restart, if that is meant"
NO_KEY = "SECRET_KEY is missing or empty; "
GOOD = f"SECRET_KEY={KEY}\nSESSION_LIFETIME=3d\n"


def gone(dotenv: Path) -> None:
    dotenv.unlink()


def made_a_folder(dotenv: Path) -> None:
    dotenv.unlink()
    dotenv.mkdir()


def emptied(dotenv: Path) -> None:
    dotenv.write_text("# nothing\n")


def without_a_key(dotenv: Path) -> None:
    dotenv.write_text("SESSION_LIFETIME=3d\n")


def misspelt(dotenv: Path) -> None:
    dotenv.write_text(f"{GOOD}TRUSTED_PROXIES=one\n")


@pytest.mark.usefixtures("own_server")
@pytest.mark.parametrize(
    ("edit", "refused"),
    [
        (gone, GONE),
        (emptied, GONE),
        (without_a_key, NO_KEY),
        (made_a_folder, "{} cannot be read: is a directory"),
        (misspelt, "TRUSTED_PROXIES must be a whole number, such as 0"),
    ],
)
def test_at_a_reload_the_last_good_dotenv_stands_in_for_a_bad_one(
    edit: Callable[[Path], None], refused: str, tmp_path: Path
) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(GOOD)
    handover.share()
    before = load({}, tmp_path)
    edit(dotenv)

    after = load({}, tmp_path, reload=True)

    assert replace(after, refused="") == before
    assert after.refused.startswith(refused.format(dotenv))
    level, line = after.notices(0)[-1]
    assert level == logging.ERROR
    assert line.startswith("The last good settings serve on, for: " + refused.format(dotenv))


@pytest.mark.usefixtures("own_server")
def test_each_problem_of_a_bad_dotenv_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(GOOD)
    handover.share()
    load({}, tmp_path)
    (tmp_path / ".env").write_text(f"{GOOD}TRUSTED_PROXIES=one\nMAX_CONTENT_LENGTH=much\n")

    assert load({}, tmp_path, reload=True).notices(0)[-1][1] == (
        "The last good settings serve on, for: TRUSTED_PROXIES must be a whole number, such as 0; "
        "MAX_CONTENT_LENGTH must be a whole number, such as 1048576"
    )


@pytest.mark.usefixtures("own_server")
def test_a_dotenv_that_is_good_again_counts_again(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(GOOD)
    handover.share()
    load({}, tmp_path)
    misspelt(dotenv)
    load({}, tmp_path, reload=True)
    dotenv.write_text(GOOD.replace("=3d", "=4d"))

    mended = load({}, tmp_path, reload=True)
    assert mended.session_lifetime == 4 * 86400
    assert mended.refused == ""


@pytest.mark.usefixtures("own_server")
def test_a_worker_that_starts_later_serves_as_the_others_do_until_a_reload(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(GOOD)
    handover.share()
    load({}, tmp_path)
    dotenv.write_text(GOOD.replace("=3d", "=4d"))

    assert load({}, tmp_path).session_lifetime == 3 * 86400
    assert load({}, tmp_path, reload=True).session_lifetime == 4 * 86400
    assert load({}, tmp_path).session_lifetime == 4 * 86400


@pytest.mark.usefixtures("own_server")
def test_a_server_that_has_the_variables_of_dotenv_in_its_environment_too_follows_the_file(
    tmp_path: Path,
) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"APP_ENV=production\n{GOOD}")
    environ = {"APP_ENV": "production", "SECRET_KEY": KEY, "SESSION_LIFETIME": "3d", "TRUSTED_PROXIES": "1"}
    new = mint(1_700_000_001).text
    handover.share()
    for reload in (True, False):
        assert repr(load(environ, tmp_path, reload=reload).ring_source) == ".env"

    dotenv.write_text(f"APP_ENV=production\nSECRET_KEY={new}\nSESSION_LIFETIME=4d\n")
    for reload in (False, True, False, True):
        settings = load(environ, tmp_path, reload=reload)
        assert repr(settings.ring_source) == ".env"
        assert settings.trusted_proxies == 1
    assert settings.ring.keys[0].text == new
    assert settings.session_lifetime == 4 * 86400


@pytest.mark.usefixtures("own_server")
def test_a_dotenv_that_is_refused_changes_no_key(tmp_path: Path) -> None:
    dotenv, ring = tmp_path / ".env", tmp_path / "ring"
    dotenv.write_text(GOOD)
    ring.write_text(f"{mint(1_700_000_001).text}\n")
    ring.chmod(0o600)
    handover.share()
    before = load({}, tmp_path)
    dotenv.write_text(f"SECRET_KEY_FILE={ring}\nTRUSTED_PROXIES=one\n")

    assert load({}, tmp_path, reload=True).ring == before.ring
    assert load({}, tmp_path).ring == before.ring


@pytest.mark.usefixtures("own_server")
def test_another_session_server_is_asked_at_a_reload(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(GOOD)
    handover.share()
    load({}, tmp_path)
    dotenv.write_text(f"{GOOD}SESSION_STORE=redis://127.0.0.1:1\n")

    after = load({}, tmp_path, reload=True)

    assert after.session_store == "signed"
    assert "does not answer" in after.refused


@pytest.mark.usefixtures("own_server")
def test_a_worker_begins_also_while_the_session_server_is_gone(tmp_path: Path) -> None:
    store = "redis://127.0.0.1:1"
    (tmp_path / ".env").write_text(f"{GOOD}SESSION_STORE={store}\n")
    handover.share()
    handover.keep_variables({"SECRET_KEY": KEY, "SESSION_STORE": store}, [])

    assert load({}, tmp_path).session_store == store


@pytest.mark.usefixtures("own_server")
def test_where_the_last_good_dotenv_is_refused_too_the_present_one_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{GOOD}MAX_CONTENT_LENGTH=much\n")
    handover.share()
    handover.keep_variables({"SECRET_KEY": KEY, "TRUSTED_PROXIES": "one"}, [])

    with pytest.raises(ConfigError, match="MAX_CONTENT_LENGTH must be a whole number"):
        load({}, tmp_path, reload=True)


def test_what_is_wrong_with_the_key_and_with_its_retention_is_told_at_once() -> None:
    told = problems(SECRET_KEY="short", SECRET_KEY_RETENTION="x", TRUSTED_PROXIES="z")

    assert [problem.partition(" ")[0] for problem in told] == [
        "SECRET_KEY",
        "SECRET_KEY_RETENTION",
        "TRUSTED_PROXIES",
    ]
    assert len(problems(SECRET_KEY=KEY, SECRET_KEY_RETENTION="x")) == 1


def test_a_ring_is_looked_at_more_often_than_a_rotation_takes() -> None:
    assert loaded(SECRET_KEY_INTERVAL="59m").ring_interval == 59 * 60
    assert problems(SECRET_KEY_INTERVAL="1h") == ["SECRET_KEY_INTERVAL must be shorter than 1 h"]
