"""No key can be seen: not in a log, not in a repr, not in an error, not in the debugger."""

import json
import logging
import runpy
import time
import traceback
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import pytest
from apps import make_app
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from package import ConfigError, Key, live_ring, load, mint, read_environment, redacted
from werkzeug.debug import DebuggedApplication

NEW, OLD, STRANGER = (mint(int(time.time()) - ago).text for ago in (1000, 2000, 3000))
QUOTED = """it's "quoted" and \\ back with ünïcode €"""
PLAIN = "kIx3v9_Qm7-aZ0yR2tW5uB8cD1eF4gH6jL"
FOREIGN = f"{QUOTED},{PLAIN}"
RING = {"newest": NEW, "fallback": OLD, "foreign": PLAIN, "foreign, quoted": QUOTED}
KEYS = {**RING, "of another ring": STRANGER}

LOGGERS = ["app", "below the app", "root", "any library", "werkzeug", "gunicorn.error", "gunicorn.access"]


def ring_of_all() -> Flask:
    return make_app(SECRET_KEY=NEW, SECRET_KEY_FALLBACKS=f"{OLD},{FOREIGN}", TRUSTED_HOSTS="localhost")


def in_message(log: logging.Logger, key: str) -> None:
    log.error(f"a key: {key}!")


def in_an_argument(log: logging.Logger, key: str) -> None:
    log.error("a key: %s and %d", key, 7)


def in_a_repr(log: logging.Logger, key: str) -> None:
    log.error("a key: %r", {"key": [key]})


def in_named_arguments(log: logging.Logger, key: str) -> None:
    log.error("a key: %(key)s", {"key": key})


def in_bytes(log: logging.Logger, key: str) -> None:
    log.error("a key: %s", key.encode())


def in_json(log: logging.Logger, key: str) -> None:
    log.error("a key: %s", json.dumps({"key": key}))


def in_an_address(log: logging.Logger, key: str) -> None:
    log.error("GET /login?key=%s", quote(key))


def in_a_message_that_is_no_text(log: logging.Logger, key: str) -> None:
    log.error({"key": key})


def in_arguments_that_do_not_fit(log: logging.Logger, key: str) -> None:
    log.error("a key: %d %s", *(key, "more", "than wanted"))


def in_an_exception(log: logging.Logger, key: str) -> None:
    try:
        raise ValueError(f"a key: {key}")
    except ValueError:
        log.exception("it failed")


def in_a_chain_of_exceptions(log: logging.Logger, key: str) -> None:
    try:
        try:
            raise KeyError(key)
        except KeyError as error:
            error.add_note(f"note: {key}")
            raise RuntimeError from error
    except RuntimeError:
        log.exception("it failed")


def in_a_group_of_exceptions(log: logging.Logger, key: str) -> None:
    log.error("it failed", exc_info=ExceptionGroup("all", [ValueError(key), OSError(2, "no", key)]))


def in_an_extra_field(log: logging.Logger, key: str) -> None:
    log.error("it failed", extra={"key": key, "settings": {"key": [key]}})


def in_the_stack(log: logging.Logger, key: str) -> None:
    log.handle(log.makeRecord(log.name, logging.ERROR, "", 1, "here", (), None, sinfo=f"Stack: {key}"))


WAYS = [
    in_message,
    in_an_argument,
    in_a_repr,
    in_named_arguments,
    in_bytes,
    in_json,
    in_an_address,
    in_a_message_that_is_no_text,
    in_arguments_that_do_not_fit,
    in_an_exception,
    in_a_chain_of_exceptions,
    in_a_group_of_exceptions,
    in_an_extra_field,
    in_the_stack,
]


class EveryField(logging.Formatter):
    """Writes each field of a record, as a formatter for JSON does, and the text as any formatter."""

    def format(self, record: logging.LogRecord) -> str:
        """All there is."""
        return super().format(record) + "\n".join(map(str, vars(record).values()))


def forms(key: str) -> set[str]:
    """How a key could stand in a text."""
    return {key, repr(key)[1:-1], repr(key.encode())[2:-1], json.dumps(key)[1:-1], quote(key)}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """What all loggers write; the servers' have handlers of their own, as gunicorn gives them."""
    stream = StringIO()
    for name in ("", "gunicorn.error", "gunicorn.access"):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(EveryField())
        monkeypatch.setattr(logging.getLogger(name), "handlers", [handler])
        monkeypatch.setattr(logging.getLogger(name), "propagate", False)
    return stream


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("name", LOGGERS)
def test_no_logger_writes_a_key(name: str, key: str, written: StringIO) -> None:
    app = ring_of_all()
    names = {"app": app.logger.name, "below the app": f"{app.logger.name}.below", "root": ""}
    written.truncate(0)

    for way in WAYS:
        way(logging.getLogger(names.get(name, name)), key)

    text = written.getvalue()
    assert [form for form in forms(key) if form in text] == []
    assert text.count(f"[key {Key(key).fingerprint}]") >= len(WAYS) - 1


def test_a_traceback_that_another_handler_has_written_before_is_redacted(written: StringIO) -> None:
    ring_of_all()
    handler = logging.getLogger().handlers[0]
    record = logging.makeLogRecord({"msg": "it failed", "exc_text": f"ValueError: {NEW}"})

    handler.handle(record)

    assert NEW not in written.getvalue()
    assert "ValueError: [key" in written.getvalue()


@pytest.mark.usefixtures("written")
def test_a_record_without_a_key_stays_as_it_is() -> None:
    app = ring_of_all()
    try:
        raise ValueError("no key")
    except ValueError as error:
        caught = (ValueError, error, None)
    record = logging.makeLogRecord({"msg": "%s: %d", "args": ("a", 1), "exc_info": caught, "more": {"a": 1}})
    before = dict(vars(record))

    assert all(f.filter(record) for f in app.logger.filters if isinstance(f, logging.Filter))

    assert vars(record) == before


def test_a_log_call_that_is_wrong_does_not_fail_the_request(written: StringIO) -> None:
    app = ring_of_all()

    @app.get("/wrong")
    def wrong() -> str:
        app.logger.error("%d of %d", *["many"])
        return "done"

    assert app.test_client().get("/wrong").text == "done"
    assert "%d of %d (its arguments do not fit)" in written.getvalue()


def test_a_field_that_cannot_be_written_does_not_fail_the_request(written: StringIO) -> None:
    app = ring_of_all()

    @app.get("/wrong")
    def wrong() -> str:
        app.logger.error("here", extra={"field": Unspeakable()})
        app.logger.error(Unspeakable())
        return "done"

    assert app.test_client().get("/wrong").text == "done"
    assert "(a text that cannot be made: ValueError)" in written.getvalue()


def test_an_access_line_shows_no_key_in_any_field(written: StringIO) -> None:
    app = ring_of_all()
    logging.getLogger().setLevel(logging.INFO)

    app.test_client().get(f"/{NEW}", environ_overrides={"REMOTE_ADDR": OLD})

    assert "GET /[key " in written.getvalue()
    assert not any(key in written.getvalue() for key in (NEW, OLD))


@given(st.text(), st.text(), st.sampled_from([*KEYS.values()]))
def test_whatever_stands_around_a_key_it_is_found(before: str, after: str, key: str) -> None:
    ring = [Key(text) for text in RING.values()]

    for form in forms(key):
        assert redacted(f"{before}{form}{after}", ring) == f"{before}[key {Key(key).fingerprint}]{after}"


@given(st.text())
def test_a_text_without_a_key_stays_as_it_is(text: str) -> None:
    assert redacted(text, [Key(NEW), Key(PLAIN)]) == text


# What else can be printed

Show = Callable[[object], str]
SHOWN: list[Show] = [repr, str, ascii, "{}".format, "{!r}".format]


@pytest.mark.parametrize("show", SHOWN)
def test_no_object_shows_a_key(show: Show, tmp_path: Path) -> None:
    environ = {"SECRET_KEY": NEW, "SECRET_KEY_FALLBACKS": f"{OLD},{FOREIGN}"}
    settings = load(environ, tmp_path)
    app = ring_of_all()
    live = live_ring(app)
    objects = [
        settings,
        settings.ring,
        settings.ring.keys,
        settings.ring.keys[0],
        settings.ring_source,
        read_environment(environ, tmp_path),
        live,
        live.current(),
        settings.notices(live.now),
        app,
        app.config,
        dict(app.config),
        app.config["SECRET_KEY_FALLBACKS"],
        app.config["WTF_CSRF_SECRET_KEY"],
        app.extensions,
        app.session_interface,
        vars(app.session_interface),
        settings.flask_config(),
    ]

    text = "\n".join(map(show, objects))

    assert [form for key in KEYS.values() for form in forms(key) if form in text] == []
    assert Key(NEW).fingerprint in text


def test_the_config_that_hides_the_key_has_it() -> None:
    config = ring_of_all().config

    assert config["SECRET_KEY"] == NEW
    assert config["SECRET_KEY_FALLBACKS"][-1] == NEW
    assert sorted(config["SECRET_KEY_FALLBACKS"]) == sorted(RING.values())


@pytest.mark.parametrize(
    "variables",
    [
        {"SECRET_KEY": NEW[:-1]},
        {"SECRET_KEY": f"{NEW} "},
        {"SECRET_KEY": f"'{PLAIN}'"},
        {"SECRET_KEY": PLAIN[:31]},
        {"SECRET_KEY": f"changeme-{PLAIN}"},
        {"SECRET_KEY": NEW, "SECRET_KEY_FALLBACKS": f"{PLAIN},,{PLAIN}"},
        {"SECRET_KEY": OLD, "SECRET_KEY_FALLBACKS": NEW},
        {"SECRET_KEY": NEW, "SECRET_KEY_FILE": PLAIN},
        {"SECRET_KEY": NEW, "APP_ENV": PLAIN},
        {"SECRET_KEY": NEW, "SESSION_LIFETIME": PLAIN},
        {"SECRET_KEY": NEW, "SECRET_KEY_RETENTION": PLAIN},
        {"SECRET_KEY": NEW, "TRUSTED_PROXIES": PLAIN},
        {"SECRET_KEY": NEW, "TRUSTED_HOSTS": f"{PLAIN}/"},
        {"SECRET_KEY": NEW, "SESSION_STORE": PLAIN},
    ],
)
def test_no_refusal_shows_a_value(variables: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(variables, tmp_path)

    error = caught.value
    text = "".join(traceback.format_exception(error)) + repr(error) + str(error) + str(vars(error))
    assert [value for value in variables.values() if value.strip() in text] == []
    assert not any(key in text for key in (NEW, OLD, PLAIN))


def an_object(app: Flask) -> NoReturn:
    config, live, key = app.config, live_ring(app), app.config["SECRET_KEY"]
    raise LookupError(config, live, live.ring, [key], app.session_interface)


def a_text(app: Flask) -> NoReturn:
    raise LookupError(f"no {app.config['SECRET_KEY']}")


def a_missing_file(app: Flask) -> NoReturn:
    raise FileNotFoundError(2, "not there", app.config["SECRET_KEY"])


def a_cause(app: Flask) -> NoReturn:
    try:
        a_text(app)
    except LookupError as error:
        raise ValueError("it failed") from error


def a_note(app: Flask) -> NoReturn:
    error = LookupError("it failed")
    error.add_note(app.config["SECRET_KEY"])
    raise error


def a_group(app: Flask) -> NoReturn:
    raise ExceptionGroup(app.config["SECRET_KEY"], [ValueError(app.config["SECRET_KEY"])])


def a_stream(app: Flask) -> Iterator[str]:
    yield "the first part"
    a_text(app)


class Unspeakable(Exception):
    """Cannot be put into words."""

    def __str__(self) -> str:
        raise ValueError("not in words")


def what_cannot_be_said(app: Flask) -> NoReturn:
    try:
        a_text(app)
    except LookupError as error:
        raise Unspeakable from error


@pytest.mark.parametrize(
    "fail", [an_object, a_text, a_missing_file, a_cause, a_note, a_group, a_stream, what_cannot_be_said]
)
def test_the_debugger_shows_no_key(
    fail: Callable[[Flask], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    app = make_app(APP_ENV="development", SECRET_KEY=NEW, SECRET_KEY_FALLBACKS=f"{OLD},{FOREIGN}")
    app.add_url_rule("/fails", view_func=lambda: fail(app))
    app.wsgi_app = DebuggedApplication(app.wsgi_app, evalex=True)  # type: ignore[method-assign]

    page = app.test_client().get("/fails").text
    printed = capsys.readouterr().err

    assert "Traceback" in page
    assert f"in {fail.__name__}" in printed, "the page leads to the line that failed"
    assert not any(form in printed for key in KEYS.values() for form in forms(key))
    assert [form for key in KEYS.values() for form in forms(key) if form in page] == []


def test_the_debugger_shows_no_line_of_code_with_a_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    module = tmp_path / "careless.py"
    module.write_text(f"def fails():\n    raise LookupError('{NEW}')\n")
    fails = runpy.run_path(str(module))["fails"]
    app = make_app(APP_ENV="development", SECRET_KEY=NEW)
    app.add_url_rule("/fails", view_func=fails)

    with pytest.raises(Exception, match="key ") as caught:
        app.test_client().get("/fails")

    assert NEW not in "".join(traceback.format_exception(caught.value))


def test_the_debugger_shows_fingerprints_and_what_has_no_key_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    app = make_app(APP_ENV="development", SECRET_KEY=NEW)
    client = app.test_client()
    app.add_url_rule("/no-key", "no_key", lambda: dict[str, str]()["nothing"])
    app.add_url_rule("/text", "text", lambda: a_text(app))

    with pytest.raises(KeyError, match="nothing"):
        client.get("/no-key")
    with pytest.raises(Exception, match=rf"no \[key {Key(NEW).fingerprint}\]") as caught:
        client.get("/text")

    assert caught.typename == "LookupError"
