"""The log: one line a request, with its id; readable in development, JSON in production."""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest
from apps import KEY, make_app
from flask.testing import FlaskClient
from package import handover, judge, live_ring, logs, mint

Printed = Callable[[], list[str]]

PATHS = ["/count", "/healthz", "/no/such/page", "/fail/403", "/moved", "//count"]
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
def test_a_request_is_one_line(environment: str, printed: Printed) -> None:
    client = started(printed, APP_ENV=environment)

    for path in PATHS:
        client.get(path)

    assert len(printed()) == len(PATHS)


def test_a_team_may_turn_that_line_off_and_keep_the_others(printed: Printed) -> None:
    client = started(printed)
    log = logging.getLogger(logs.__name__)
    log.setLevel(logging.WARNING)

    answer = client.get("/crash")
    log.setLevel(logging.NOTSET)

    (line,) = map(json.loads, printed())
    assert line["level"] == "ERROR"
    assert line["request_id"] == answer.headers["X-Request-ID"]


def test_in_production_a_line_is_json(printed: Printed) -> None:
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
        "logger": logs.__name__,
        "message": f"GET /fail/403 403 in {milliseconds} ms for 127.0.0.1",
        "request_id": answer.headers["X-Request-ID"],
        "method": "GET",
        "path": "/fail/403",
        "status": 403,
        "client": "127.0.0.1",
    }


def test_in_development_a_line_is_readable(printed: Printed) -> None:
    client = started(printed, APP_ENV="development")

    answer = client.get("/count?token=of-a-link")

    expected = r"\d\d:\d\d:\d\d INFO    GET /count 200 in \d+\.\d ms for 127\.0\.0\.1  \[([0-9a-f]{16})\]"
    match = re.fullmatch(expected, printed()[0])
    assert match
    assert match[1] == answer.headers["X-Request-ID"]


def test_all_that_is_logged_in_a_request_has_its_id(printed: Printed) -> None:
    client = started(printed)

    first, second = client.get("/crash"), client.get("/crash")

    ids = [json.loads(line)["request_id"] for line in printed()]
    assert ids == [first.headers["X-Request-ID"]] * 2 + [second.headers["X-Request-ID"]] * 2
    assert ids[0] != ids[2]


def test_a_traceback_is_inside_its_line_in_production(printed: Printed) -> None:
    started(printed).get("/crash")

    failure, request = map(json.loads, printed())
    assert "RuntimeError: the cause" in failure["exc_info"]
    assert failure["level"] == "ERROR"
    assert request["status"] == 500


def test_a_failure_on_its_way_to_the_debugger_has_its_line(
    printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    client = started(printed, APP_ENV="development")

    with pytest.raises(Exception, match="the cause"):
        client.get("/crash")

    (line,) = printed()
    assert re.search(r"GET /crash 500 in \d+\.\d ms for 127\.0\.0\.1  \[[0-9a-f]{16}\]$", line)


def test_a_path_has_the_prefix_that_the_app_is_mounted_under(printed: Printed) -> None:
    started(printed).get("/count", environ_overrides={"SCRIPT_NAME": "/shop"})

    assert json.loads(printed()[0])["path"] == "/shop/count"


def test_no_structured_field_shows_a_key(printed: Printed) -> None:
    client = started(printed)
    config, ring = client.application.config, live_ring(client.application).ring
    log = client.application.logger

    log.warning({"config": config["SECRET_KEY"]})
    for field in (dict(config), [config["SECRET_KEY_FALLBACKS"]], ring, ring.keys[0]):
        log.warning("a field", extra={"field": field})

    lines = printed()
    assert len([json.loads(line) for line in lines]) == 5
    assert KEY not in "".join(lines)


def test_an_id_of_the_client_is_not_believed(printed: Printed) -> None:
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
def test_an_id_of_the_proxy_is_taken_over_where_it_is_one(given: str, taken: bool, printed: Printed) -> None:
    client = started(printed, TRUSTED_PROXIES="1")

    answer = client.get("/count", headers={"X-Request-ID": given})

    assert (answer.headers["X-Request-ID"] == given) == taken
    assert json.loads(printed()[0])["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize("environment", ["production", "development"])
def test_nothing_a_client_sends_breaks_a_line(environment: str, printed: Printed) -> None:
    client = started(printed, APP_ENV=environment, TRUSTED_PROXIES="1")

    for character in BREAKS:
        raw = character.encode().decode("latin-1")
        client.get(
            "/count",
            environ_overrides={
                "PATH_INFO": f"/a{raw}b",
                "QUERY_STRING": f"c={raw}",
                "REQUEST_METHOD": f"GE{raw}T",
                "HTTP_X_FORWARDED_FOR": f"1.1.1.1{raw}2",
                "HTTP_X_REQUEST_ID": f"12345678{raw}",
                "HTTP_REFERER": raw,
                "HTTP_USER_AGENT": raw,
            },
        )

    lines = printed()
    assert len(lines) == len(BREAKS)
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("environment", ["production", "development"])
def test_at_the_start_one_line_tells_of_each_key_and_its_place(environment: str, printed: Printed) -> None:
    older, upcoming = mint(1_700_000_000).text, mint(int(time.time()) + 1800).text
    names = [judge(text, b"").fingerprint for text in (upcoming, KEY, older)]

    start(APP_ENV=environment, SECRET_KEY=upcoming, SECRET_KEY_FALLBACKS=f"{KEY},{older}")

    (line,) = printed()
    expected = f"Secret key: {names[0]} upcoming, {names[1]} signing, {names[2]} retired (from environment)"
    assert expected in line


def test_the_reloader_does_not_say_it_again(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WERKZEUG_RUN_MAIN", "true")

    start(APP_ENV="development")

    assert printed() == []


@pytest.mark.usefixtures("own_server")
def test_what_the_first_process_of_a_server_has_said_the_others_do_not_say_again(printed: Printed) -> None:
    handover.share()

    start(TRUSTED_HOSTS="")

    assert printed() == []


def test_the_line_of_the_development_server_is_not_said_twice_but_its_errors_are(printed: Printed) -> None:
    started(printed, APP_ENV="development")
    server = logging.getLogger("werkzeug")

    server.info('127.0.0.1 - - [22/Nov/2026 19:30:00] "GET / HTTP/1.1" 200 -')
    server.error("127.0.0.1 - - [22/Nov/2026 19:30:00] code 400, message Bad request syntax")
    server.warning(" * Debugger is active!")

    assert [line.split()[1] for line in printed()] == ["ERROR", "WARNING"]


def test_an_app_in_tests_leaves_the_logging_alone() -> None:
    before = logging.getLogger().handlers[:]

    make_app(APP_ENV="testing")

    assert logging.getLogger().handlers == before
