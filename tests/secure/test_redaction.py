"""No key can be seen: not in a log, not in a repr, not in an error."""

import gc
import json
import logging
import time
import traceback
import weakref
from collections.abc import Callable
from io import StringIO
from logging.handlers import BufferingHandler, MemoryHandler
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import pytest
import secure
from apps import load, make_app
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from secure import logging as secure_logging
from secure.keys.environment import read_environment
from secure.keys.key import Key, generate_key
from secure.keys.watcher import get_watcher
from secure.logging import RedactingFormatter, redacted
from secure.settings import Settings, SettingsError

NEW, OLD, STRANGER = (generate_key(int(time.time()) - ago).text for ago in (1000, 2000, 3000))
QUOTED = r"""k'J"x\8;/Qw%2+vB&zR=9#Lm^Tn<Yc>Hf~Ds{Gp}4"""
SPACED = """it's "quoted" and \\ back with ünïcode €"""
PLAIN = "kIx3v9_Qm7-aZ0yR2tW5uB8cD1eF4gH6jL"
FOREIGN = f"{QUOTED},{PLAIN}"
RING = {"newest": NEW, "fallback": OLD, "foreign": PLAIN, "foreign, quoted": QUOTED}
KEYS = {**RING, "of another keyring": STRANGER}

LOGGERS = ["app", "below the app", "root", "any library", "werkzeug", "gunicorn.error", "gunicorn.access", "billing"]


def app_with_all() -> Flask:
    """Return an app with each kind of key."""
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


def in_a_form(log: logging.Logger, key: str) -> None:
    log.error("POST %s", urlencode({"key": key}))


def in_a_part_of_a_path(log: logging.Logger, key: str) -> None:
    log.error("GET /%s", quote(key, safe=""))


def in_json_inside_json(log: logging.Logger, key: str) -> None:
    log.error("a key: %s", json.dumps(json.dumps({"key": key})))


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
    in_a_form,
    in_a_part_of_a_path,
    in_json_inside_json,
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
    """Return how a key could be written in a text."""
    urls = {quote(key), quote(key, safe=""), quote_plus(key)}
    return {key, repr(key)[1:-1], repr(key.encode())[2:-1], json.dumps(key)[1:-1]} | urls


@pytest.fixture(params=[EveryField, secure_logging.JsonFormatter])
def written(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """Return what all loggers write; gunicorn's, and one of the team's, have handlers of their own."""
    stream = StringIO()
    for name in ("", "gunicorn.error", "gunicorn.access", "billing"):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(request.param())
        monkeypatch.setattr(logging.getLogger(name), "handlers", [handler])
        monkeypatch.setattr(logging.getLogger(name), "propagate", False)
    return stream


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("name", LOGGERS)
def test_loggers(name: str, key: str, written: StringIO) -> None:
    app = app_with_all()
    names = {"app": app.logger.name, "below the app": f"{app.logger.name}.below", "root": ""}
    written.truncate(0)

    for way in WAYS:
        way(logging.getLogger(names.get(name, name)), key)

    text = written.getvalue()
    assert [form for form in forms(key) if form in text] == []
    assert text.count(f"[key {Key(key).fingerprint}]") >= len(WAYS) - 1


def test_control(written: StringIO) -> None:
    """Without an app, the same lines show the key."""
    for way in WAYS:
        way(logging.getLogger("a library"), PLAIN)

    assert written.getvalue().count(PLAIN) >= len(WAYS) - 2


class Binary(logging.Formatter):
    """Returns bytes, as for logstash, or an object."""

    def __init__(self, of: type) -> None:
        super().__init__()
        self.of = of

    def format(self, record: logging.LogRecord) -> Any:
        """The message, in that form."""
        text = super().format(record)
        return text.encode() if self.of is bytes else [text]


@pytest.mark.parametrize("of", [bytes, list])
def test_formatter_without_text(of: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are searched, too; nothing is lost of what is neither text nor bytes."""
    handler, log = BufferingHandler(9), logging.getLogger("logstash")
    handler.setFormatter(Binary(of))
    monkeypatch.setattr(log, "handlers", [handler])
    app_with_all()

    log.error("hello %s", NEW)

    written: Any = handler.format(handler.buffer[-1])
    assert written == ([f"hello {NEW}"] if of is list else f"hello [key {Key(NEW).fingerprint}]".encode())


def test_handler_behind_a_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, log = StringIO(), logging.getLogger("buffered")
    to_a_logger: Any = logging.getLogger("a logger")
    buffers = [MemoryHandler(1, target=logging.StreamHandler(stream)), MemoryHandler(1, target=to_a_logger)]
    around, around_it = MemoryHandler(9), MemoryHandler(9)
    around.setTarget(around_it)
    around_it.setTarget(around)
    monkeypatch.setattr(log, "handlers", [*buffers, around])
    app_with_all()

    log.warning("hello %s", NEW)

    assert stream.getvalue() == f"hello [key {Key(NEW).fingerprint}]\n"


def test_traceback_of_another_handler(written: StringIO) -> None:
    """A handler that ran before leaves the text of the traceback in the record."""
    app_with_all()
    record = logging.makeLogRecord(
        {"msg": "it failed", "exc_text": f"ValueError: {NEW}", "exc_info": (None, None, None)}
    )

    logging.getLogger().handlers[0].handle(record)

    assert NEW not in written.getvalue()
    assert "ValueError: [key" in written.getvalue()


class UnspeakableError(Exception):
    """Cannot be put into words."""

    def __str__(self) -> str:
        raise ValueError("not in words")


def test_wrong_log_call(written: StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    """It fails no request, and Python's own report, which shows the arguments, is not printed."""
    app = app_with_all()

    @app.get("/wrong")
    def wrong() -> str:
        app.logger.error("%d of %d", *[NEW])
        app.logger.error("here", extra={"field": UnspeakableError()})
        app.logger.error(UnspeakableError())
        return "done"

    assert app.test_client().get("/wrong").text == "done"
    assert written.getvalue().count("cannot format a log record (site, test_redaction.py:") >= 2
    assert NEW not in written.getvalue() + capsys.readouterr().err


def test_request_line(written: StringIO) -> None:
    app = app_with_all()
    logging.getLogger().setLevel(logging.INFO)

    app.test_client().get(f"/{NEW}", environ_overrides={"REMOTE_ADDR": OLD})

    assert "GET /[key " in written.getvalue()
    assert not any(key in written.getvalue() for key in (NEW, OLD))


@pytest.mark.parametrize("before", ["/", "/é/"])
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_request_line_of_any_key(
    key: str, before: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    client = app_with_all().test_client()
    assert len(logging.getLogger().handlers) == 1

    client.get("/plain", environ_overrides={"PATH_INFO": f"{before}{key}".encode().decode("latin-1")})

    line = capsys.readouterr().err.splitlines()[-1]
    assert json.loads(line)["status"] == 404
    assert [form for form in forms(key) if form in line] == []
    assert f"[key {Key(key).fingerprint}]" in line


@given(st.text(), st.text(), st.sampled_from([*KEYS.values(), SPACED]))
def test_any_context(before: str, after: str, key: str) -> None:
    keyring = [Key(text) for text in (*RING.values(), SPACED)]

    for form in forms(key):
        assert redacted(f"{before}{form}{after}", keyring) == f"{before}[key {Key(key).fingerprint}]{after}"


@given(st.text())
def test_text_without_a_key(text: str) -> None:
    assert redacted(text, [Key(NEW), Key(PLAIN)]) == text


# Apps that share a process


def test_two_apps(written: StringIO) -> None:
    """They share the handlers: both apps' keys are replaced, once."""
    first = make_app(SECRET_KEY=PLAIN)
    second = make_app(SECRET_KEY=NEW)

    for key in (PLAIN, NEW):
        first.logger.error("a key: %s", key)
        second.logger.error("a key: %s", key)

    assert not any(key in written.getvalue() for key in (PLAIN, NEW))
    for handler in logging.getLogger().handlers:
        assert isinstance(handler.formatter, RedactingFormatter)
        assert not isinstance(handler.formatter.inner, RedactingFormatter)


@pytest.mark.slow
def test_thousand_apps() -> None:
    references: list[weakref.ref[object]] = []
    settings = load()
    for _ in range(1000):
        app = Flask("site")
        secure.init_app(app, settings)
        references += [weakref.ref(app), weakref.ref(get_watcher(app))]
    del app
    gc.collect()

    assert [reference for reference in references if reference()] == []
    app = make_app()
    assert [reference() for reference in secure_logging._watchers] == [get_watcher(app)]


# What else can be printed

Show = Callable[[object], str]
SHOWN: list[Show] = [repr, str, ascii, "{}".format, "{!r}".format]


@pytest.mark.parametrize("show", SHOWN)
def test_objects(show: Show, tmp_path: Path) -> None:
    environ = {"SECRET_KEY": NEW, "SECRET_KEY_FALLBACKS": f"{OLD},{FOREIGN}"}
    settings = Settings.load(environ, tmp_path)
    app = app_with_all()
    watcher = get_watcher(app)
    objects = [
        settings,
        settings.keyring,
        settings.keyring.keys,
        settings.keyring.keys[0],
        settings.keyring_source,
        read_environment(environ, tmp_path),
        watcher,
        watcher.current(),
        settings.notices(watcher.now),
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


def test_config_has_the_key() -> None:
    config = app_with_all().config

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
        {"SECRET_KEY": NEW, "SESSION_IDLE_TIMEOUT": PLAIN},
        {"SECRET_KEY": NEW, "SECRET_KEY_RETENTION": PLAIN},
        {"SECRET_KEY": NEW, "TRUSTED_PROXIES": PLAIN},
        {"SECRET_KEY": NEW, "TRUSTED_HOSTS": f"{PLAIN}/"},
        {"SECRET_KEY": NEW, "SESSION_STORE": PLAIN},
    ],
)
def test_refusals(variables: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(variables, tmp_path)

    error = caught.value
    text = "".join(traceback.format_exception(error)) + repr(error) + str(error) + str(vars(error))
    assert [value for value in variables.values() if value.strip() in text] == []
    assert not any(key in text for key in (NEW, OLD, PLAIN))
