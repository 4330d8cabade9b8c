"""The log: one line a request, with its id; readable in development, JSON in production."""

import io
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from apps import KEY, make_app
from flask import Response
from flask.testing import FlaskClient
from secure import inherited
from secure import logging as secure_logging
from secure.keys.key import generate_key, validate_key
from secure.keys.watcher import get_watcher

Printed = Callable[[], list[str]]

PATHS = ["/count", "/healthz", "/no/such/page", "/fail/403", "/moved", "/folder"]
BREAKS = "\n\r\v\f\x1c\x85\u2028\u2029"


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Iterator[Printed]:
    """A function that tells what was printed to standard error since it was last asked."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def lines() -> list[str]:
        return capsys.readouterr().err.splitlines()

    yield lines
    root.handlers[:] = handlers
    root.setLevel(level)


def start(**variables: str) -> FlaskClient:
    """A client of an app that has its process to itself: no test runner listens at the root logger."""
    logging.getLogger().handlers[:] = []
    return make_app(**{"TRUSTED_HOSTS": "localhost", **variables}).test_client()


def started(printed: Printed, **variables: str) -> FlaskClient:
    """A client of an app that has said all it says at the start."""
    client = start(**variables)
    printed()
    return client


@pytest.mark.parametrize("environment", ["production", "development"])
def test_one_line(environment: str, printed: Printed) -> None:
    client = started(printed, APP_ENV=environment)

    for path in PATHS:
        client.get(path)

    assert len(printed()) == len(PATHS)


def test_line_turned_off(printed: Printed) -> None:
    client = started(printed)
    log = logging.getLogger(secure_logging.__name__)
    log.setLevel(logging.WARNING)

    answer = client.get("/crash")
    log.setLevel(logging.NOTSET)

    (line,) = map(json.loads, printed())
    assert line["level"] == "ERROR"
    assert line["request_id"] == answer.headers["X-Request-ID"]


def test_json(printed: Printed) -> None:
    client = started(printed)

    answer = client.get("/fail/403?token=of-a-link")

    line = json.loads(printed()[0])
    moment = datetime.fromisoformat(line.pop("time"))
    milliseconds = line.pop("milliseconds")
    assert abs(moment.timestamp() - time.time()) < 60
    assert moment.utcoffset() is not None
    assert 0 <= milliseconds < 60_000
    assert line == {
        "level": "INFO",
        "logger": secure_logging.__name__,
        "message": f"GET /fail/403 403 in {milliseconds} ms for 127.0.0.1",
        "request_id": answer.headers["X-Request-ID"],
        "method": "GET",
        "path": "/fail/403",
        "status": 403,
        "client": "127.0.0.1",
    }


class Unbuffered(io.RawIOBase):
    """A raw stream into `file`, in which what was flushed can be seen."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__()
        self.file = file

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Write to the file."""
        return self.file.write(data)


class Collector(logging.Handler):
    """A handler of a team."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record as JSON."""
        self.lines.append(json.loads(secure_logging.JsonFormatter().format(record)))


@pytest.mark.parametrize("name", ["", "secure", secure_logging.__name__])
def test_line_as_a_record(name: str, printed: Printed) -> None:
    """A handler of a team gets a record with the same fields as the line that is written without one."""
    client, log, handler = started(printed), logging.getLogger(name), Collector()
    client.get("/count")
    (without,) = map(json.loads, printed())
    log.addHandler(handler)

    client.get("/count")

    log.removeHandler(handler)
    (line,), (seen,) = map(json.loads, printed()), handler.lines
    assert seen == line
    assert {field: type(value) for field, value in seen.items()} == {field: type(without[field]) for field in without}
    assert seen["path"] == without["path"] == "/count"


@pytest.mark.parametrize("sign", '"\\ {}%~\x7f\xff')
def test_line_with_a_special_sign(sign: str, printed: Printed) -> None:
    """JSON escapes some signs of a path or a method; a client sends them as it likes."""
    client = started(printed)

    client.get("/", environ_overrides={"PATH_INFO": f"/a{sign}b", "REQUEST_METHOD": f"GE{sign}T"})

    (line,) = map(json.loads, printed())
    assert line["path"] == f"/a{secure_logging.printable(sign)}b"
    assert line["message"].startswith(f"{line['method']} {line['path']} {line['status']} in ")


@pytest.mark.parametrize("environment", ["production", "development"])
@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "0.0"), (0.00004, "0.0"), (0.00006, "0.1"), (0.01234, "12.3"), (75.0, "75000.0")]
)
def test_milliseconds(
    environment: str, seconds: float, shown: str, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = started(printed, APP_ENV=environment)
    readings = iter([100.0, 100.0 + seconds])
    clocks = SimpleNamespace(**{**vars(time), "perf_counter": lambda: next(readings)})
    monkeypatch.setattr(secure_logging, "time", clocks)

    client.get("/healthz")

    assert f"200 in {shown} ms for " in printed()[0]


def test_line_for_a_stream_with_a_buffer(printed: Printed) -> None:
    """What is not a terminal's standard error may keep a line back; nothing of it may be missing after a crash."""
    client, (handler,) = started(printed), logging.getLogger().handlers
    file = io.BytesIO()
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(io.TextIOWrapper(io.BufferedWriter(Unbuffered(file)), "utf-8"))

    client.get("/healthz")

    assert json.loads(file.getvalue())["path"] == "/healthz"


def test_line_through_a_filter(printed: Printed) -> None:
    client, log = started(printed), logging.getLogger(secure_logging.__name__)

    def drop_probes(record: logging.LogRecord) -> bool:
        return getattr(record, "path", "") != "/healthz"

    log.addFilter(drop_probes)
    client.get("/healthz")
    client.get("/count")
    log.removeFilter(drop_probes)

    assert [json.loads(line)["path"] for line in printed()] == ["/count"]


def test_line_through_a_level_of_the_handler(printed: Printed) -> None:
    client, (handler,) = started(printed), logging.getLogger().handlers
    handler.setLevel(logging.WARNING)

    client.get("/count")

    assert printed() == []


def test_line_through_a_filter_of_the_handler(printed: Printed) -> None:
    client, (handler,) = started(printed), logging.getLogger().handlers
    handler.addFilter(lambda record: getattr(record, "path", "") != "/healthz")

    client.get("/healthz")
    client.get("/count")

    assert [json.loads(line)["path"] for line in printed()] == ["/count"]


def test_line_with_another_formatter(printed: Printed) -> None:
    client, (handler,) = started(printed), logging.getLogger().handlers
    handler.setFormatter(logging.Formatter("%(status)s %(path)s %(process)d %(threadName)s"))

    client.get("/count")

    assert re.fullmatch(r"200 /count \d+ MainThread", printed()[0])


PLACES = ["/healthz", '/a"b', "/a b", "/\u00e4"]
"""A path that JSON writes as it is, and others."""


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("environment", ["production", "development"])
@pytest.mark.parametrize("broken", ["closed", "missing", "closed for all", "full"])
def test_closed_standard_error(
    broken: str, environment: str, path: str, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, (handler,) = started(printed, APP_ENV=environment), logging.getLogger().handlers
    stream = open("/dev/full" if broken == "full" else os.devnull, "w")  # noqa: SIM115
    if broken != "full":
        stream.close()
    assert isinstance(handler, logging.StreamHandler)
    handler.stream = None if broken == "missing" else stream
    if broken == "closed for all":
        monkeypatch.setattr(sys, "stderr", stream)

    assert client.get(path).status_code == (200 if path == "/healthz" else 404)

    handler.stream = None
    with suppress(OSError):
        stream.close()


@pytest.mark.parametrize("environment", ["production", "development"])
def test_key_in_a_record_that_cannot_be_written(environment: str, printed: Printed) -> None:
    """`logging` would print the record and its arguments on standard error."""
    client, (handler,) = started(printed, APP_ENV=environment), logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.stream = open(os.devnull)  # noqa: SIM115

    client.get(f'/{KEY}"')
    logging.getLogger("team").error("the key is %s", KEY)

    handler.stream.close()
    lines = printed()
    assert "cannot write a log record (team, test_logging.py:" in lines[-1]
    assert lines[-1].endswith("): UnsupportedOperation")
    assert KEY not in "".join(lines)


def test_failure_that_nobody_wants_to_see(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    _, (handler,) = started(printed), logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.stream = None
    monkeypatch.setattr(logging, "raiseExceptions", False)

    logging.getLogger("team").error("lost")

    assert printed() == []


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("environment", ["production", "development"])
def test_record_factory(environment: str, path: str, printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library such as OpenTelemetry adds fields to every record; one may have the name of ours."""

    class Record(logging.LogRecord):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.trace, self.request_id, self.path = "of-a-library", "of-a-library", "of-a-library"

    client = started(printed, APP_ENV=environment)
    logging.setLogRecordFactory(Record)
    try:
        answer = client.get(path)
    finally:
        logging.setLogRecordFactory(logging.LogRecord)

    assert answer.status_code == (200 if path == "/healthz" else 404)
    (line,) = printed()
    assert answer.headers["X-Request-ID"] in line
    if environment == "production":
        fields = json.loads(line)
        assert fields["trace"] == "of-a-library"
        assert fields["path"] == secure_logging.printable(path.encode().decode("latin-1"))


def test_disabled_loggers(printed: Printed) -> None:
    """`dictConfig`, as in Flask's documentation, and alembic's `fileConfig` disable all loggers that exist."""
    loggers = [logging.getLogger(f"secure.{name}") for name in ("logging", "errors", "keys.watcher")]
    for logger in loggers:
        logger.disabled = True

    client = started(printed)
    client.get("/healthz")

    assert [json.loads(line)["path"] for line in printed()] == ["/healthz"]
    assert not any(logger.disabled for logger in loggers)


def test_handler_moved_to_the_package(printed: Printed) -> None:
    """The root logger's other handler sees the line as well."""
    client, root, package = started(printed), logging.getLogger(), logging.getLogger("secure")
    (handler,), collector = root.handlers, Collector()
    root.handlers[:], package.handlers[:] = [collector], [handler]

    client.get("/healthz")

    package.handlers[:] = []
    (line,) = map(json.loads, printed())
    assert collector.lines == [line]


def test_readable(printed: Printed) -> None:
    client = started(printed, APP_ENV="development")

    answer = client.get("/count?token=of-a-link")

    expected = r"\d\d:\d\d:\d\d INFO    GET /count 200 in \d+\.\d ms for 127\.0\.0\.1  \[([0-9a-f]{16})\]"
    match = re.fullmatch(expected, printed()[0])
    assert match
    assert match[1] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize("logger", ["site", "site.jobs", "another"])
def test_id_in_a_format(logger: str, printed: Printed) -> None:
    """A format of the team's own, configured first, may show the ID of the request."""
    printed()
    logging.getLogger().handlers[:] = []
    logging.basicConfig(format="%(request_id)s %(message)s", level=logging.INFO)
    app = make_app(TRUSTED_HOSTS="localhost")

    @app.get("/logs")
    def logs() -> str:
        logging.getLogger(logger).warning("hello")
        return ""

    logging.getLogger(logger).warning("outside")

    answer = app.test_client().get("/logs")

    lines = printed()
    assert "- outside" in lines
    assert f"{answer.headers['X-Request-ID']} hello" in lines


def test_id_in_a_later_format(printed: Printed) -> None:
    """A format that is set after `init_app` finds the ID, too."""
    started(printed)
    logging.getLogger().handlers[0].setFormatter(logging.Formatter("%(request_id)s %(message)s"))

    logging.getLogger("site").warning("hello")

    assert printed() == ["- hello"]


def test_fields_that_exist(printed: Printed) -> None:
    """A field of the team's own does not replace the level, by which a monitor finds an error."""
    started(printed)

    logging.getLogger("site").error("hello", extra={"level": "gold", "time": "noon", "logger": "me", "size": 1})

    line = json.loads(printed()[0])
    assert (line["level"], line["logger"], line["message"]) == ("ERROR", "site", "hello")
    assert datetime.fromisoformat(line["time"])
    assert (line["extra_level"], line["extra_time"], line["extra_logger"], line["size"]) == ("gold", "noon", "me", 1)


def test_fields_of_any_type(printed: Printed) -> None:
    """What JSON does not have is written as text, and the stack is a field too."""
    started(printed)

    logging.getLogger("site").warning("paid", extra={"amount": 1j}, stack_info=True)

    (line,) = map(json.loads, printed())
    assert (line["message"], line["amount"]) == ("paid", "1j")
    assert "test_fields_of_any_type" in line["stack_info"]


def test_id_of_all_lines(printed: Printed) -> None:
    client = started(printed)

    first, second = client.get("/crash"), client.get("/crash")

    ids = [json.loads(line)["request_id"] for line in printed()]
    assert ids == [first.headers["X-Request-ID"]] * 2 + [second.headers["X-Request-ID"]] * 2
    assert ids[0] != ids[2]


def test_traceback(printed: Printed) -> None:
    started(printed).get("/crash")

    failure, request = map(json.loads, printed())
    assert "RuntimeError: the cause" in failure["exc_info"]
    assert failure["level"] == "ERROR"
    assert request["status"] == 500


def test_failure_for_the_debugger(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    client = started(printed, APP_ENV="development")

    with pytest.raises(Exception, match="the cause"):
        client.get("/crash")

    (line,) = printed()
    assert re.search(r"GET /crash 500 in \d+\.\d ms for 127\.0\.0\.1  \[[0-9a-f]{16}\]$", line)


def test_websocket(printed: Printed) -> None:
    """Flask-Sock under gunicorn hands the connection over with StopIteration: that is no failure."""

    class Handover(Response):
        def __call__(self, *_: object) -> NoReturn:
            raise StopIteration

    client = started(printed)
    client.application.add_url_rule("/socket", view_func=Handover)

    with pytest.raises(StopIteration):
        client.get("/socket")

    (line,) = map(json.loads, printed())
    assert (line["status"], line["level"]) == (101, "INFO")


def test_path_with_prefix(printed: Printed) -> None:
    started(printed).get("/count", environ_overrides={"SCRIPT_NAME": "/shop"})

    assert json.loads(printed()[0])["path"] == "/shop/count"


def test_no_key_in_fields(printed: Printed) -> None:
    client = started(printed)
    config, keyring = client.application.config, get_watcher(client.application).keyring
    log = client.application.logger

    log.warning({"config": config["SECRET_KEY"]})
    for field in (dict(config), [config["SECRET_KEY_FALLBACKS"]], keyring, keyring.keys[0]):
        log.warning("a field", extra={"field": field})

    lines = printed()
    assert len([json.loads(line) for line in lines]) == 5
    assert KEY not in "".join(lines)


def test_id_of_a_client(printed: Printed) -> None:
    answer = started(printed).get("/count", headers={"X-Request-ID": "given-by-client"})

    assert re.fullmatch("[0-9a-f]{16}", answer.headers["X-Request-ID"])


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("0123456789abcdef", True),
        ("9b2c1e4e-5f6a-4c0e-8a53-7f3d2b1c0a9e", True),
        ("short", False),
        ("x" * 65, False),
        ("with a space in it", False),
        ("<script>alert(1)</script>", False),
        ("12345678\x85", False),
    ],
)
def test_id_of_a_proxy(given: str, taken: bool, printed: Printed) -> None:
    client = started(printed, TRUSTED_PROXIES="1")

    answer = client.get("/count", headers={"X-Request-ID": given})

    assert (answer.headers["X-Request-ID"] == given) == taken
    assert json.loads(printed()[0])["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize("environment", ["production", "development"])
def test_line_breaks(environment: str, printed: Printed) -> None:
    client = started(printed, APP_ENV=environment, TRUSTED_PROXIES="1")

    for character in BREAKS:
        raw = character.encode().decode("latin-1")
        client.get(
            "/plain",
            environ_overrides={
                "PATH_INFO": f"/a{raw}b",
                "QUERY_STRING": f"c={raw}",
                "REQUEST_METHOD": f"GE{raw}T",
                "HTTP_X_FORWARDED_FOR": f"1.1.1.1{raw}2",
                "HTTP_X_FORWARDED_PROTO": "https",
                "HTTP_X_REQUEST_ID": f"12345678{raw}",
                "HTTP_REFERER": raw,
                "HTTP_USER_AGENT": raw,
            },
        )

    lines = printed()
    assert len(lines) == len(BREAKS)
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("environment", ["production", "development"])
def test_start(environment: str, printed: Printed) -> None:
    older, upcoming = generate_key(1_700_000_000).text, generate_key(int(time.time()) + 1800).text
    names = [validate_key(text, b"").fingerprint for text in (upcoming, KEY, older)]

    start(APP_ENV=environment, SECRET_KEY=upcoming, SECRET_KEY_FALLBACKS=f"{KEY},{older}")

    (line,) = printed()
    expected = f"Secret key: {names[0]} upcoming, {names[1]} signing, {names[2]} retired (from the process environment)"
    assert expected in line


def test_start_of_the_reloader(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WERKZEUG_RUN_MAIN", "true")

    start(APP_ENV="development")

    assert printed() == []


def test_start_of_a_worker(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The master has logged it for all workers."""
    monkeypatch.setattr(inherited, "last_valid", (None, (KEY,)))

    start(TRUSTED_HOSTS="")

    assert printed() == []


def test_development_server(printed: Printed) -> None:
    started(printed, APP_ENV="development")
    server = logging.getLogger("werkzeug")

    server.info('127.0.0.1 - - [22/Nov/2026 19:30:00] "GET / HTTP/1.1" 200 -')
    server.error("127.0.0.1 - - [22/Nov/2026 19:30:00] code 400, message Bad request syntax")
    server.warning(" * Debugger is active!")

    assert [line.split()[1] for line in printed()] == ["ERROR", "WARNING"]


def test_app_in_tests() -> None:
    before = logging.getLogger().handlers[:]

    make_app(APP_ENV="testing")

    assert logging.getLogger().handlers == before


@pytest.mark.parametrize(
    ("sent", "seen"), [("::ffff:192.0.2.1", "192.0.2.1"), ("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::1")]
)
def test_mapped_address(sent: str, seen: str) -> None:
    """A server that listens on IPv6 for both families shows IPv4 clients in IPv6 form."""
    client = make_app().test_client()
    assert client.get("/seen", environ_base={"REMOTE_ADDR": sent}).get_json()["address"] == seen
