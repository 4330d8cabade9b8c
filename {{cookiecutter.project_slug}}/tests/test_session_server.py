"""What holds of sessions on a Redis server alone: what it keeps, and what happens while it is gone."""

import json
import pickle
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import session
from itsdangerous.encoding import base64_decode
from package import PAUSE, config, create_app, errors, problem_with, sessions
from sites import ABSOLUTE, FIRST, LIFETIME, NOW, Browser, RedisServer, Site, wait_until


@pytest.fixture
def on_server(tmp_path: Path, redis: RedisServer) -> Browser:
    """A browser of an app whose sessions are on a server."""
    return Browser(Site("redis", tmp_path, redis))


def test_a_list_of_a_users_sessions_that_is_none_is_no_silent_loss(
    on_server: Browser, redis: RedisServer
) -> None:
    on_server.sign_in("ann")
    (index,) = redis.client.scan_iter("*:sessions-of:*")
    redis.client.set(index, "planted")

    assert on_server.ask(lambda: sessions.sign_in("ann")).status_code == 503
    redis.client.delete(index)
    on_server.sign_in("ann")
    assert on_server.user() == "ann"


def test_what_the_server_holds_is_no_list_of_cookies(on_server: Browser, redis: RedisServer) -> None:
    on_server.sign_in("ann")
    held = b"".join(key + (redis.client.dump(key) or b"") for key in redis.client.scan_iter())
    name = on_server.cookie.partition(".")[0].encode()
    identity = json.loads(base64_decode(name))
    assert len(identity) == 43  # 256 bits
    assert identity.encode() not in held
    assert name not in held


def test_an_id_that_the_server_does_not_know_is_not_taken(on_server: Browser, redis: RedisServer) -> None:
    on_server.put(a=1)
    before = on_server.cookie
    redis.client.flushall()
    on_server.put(a=2)

    assert on_server.cookie.partition(".")[0] != before.partition(".")[0]


def test_every_key_on_the_server_ends_by_itself(on_server: Browser, redis: RedisServer) -> None:
    on_server.put(a=1)
    on_server.sign_in("ann")

    times = sorted(redis.client.ttl(key) for key in redis.client.scan_iter())
    assert [LIFETIME - 60 < times[0] <= LIFETIME, ABSOLUTE - 60 < times[1] <= ABSOLUTE] == [True, True]
    assert len(times) == 2


def test_the_list_of_a_users_sessions_forgets_those_that_are_dead(
    on_server: Browser, redis: RedisServer
) -> None:
    for _ in range(5):
        on_server.sign_in("ann")
        on_server.site.now += ABSOLUTE / 2
    (index,) = redis.client.scan_iter(match="*sessions-of*")

    assert redis.client.zcard(index) == 3


ALLOWED = "get set del expire zadd zrem zrange zremrangebyscore multi exec ping"


def test_the_commands_that_the_page_names_are_all_that_it_takes(
    tmp_path: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = [f"+{name}" for name in ALLOWED.split()]
    redis.client.acl_setuser("dora", enabled=True, passwords=["+hunter2"], commands=commands, keys=["site:*"])
    monkeypatch.setattr(redis, "address", redis.address.replace("//", "//dora:hunter2@"))
    browser = Browser(Site("redis", tmp_path, redis))
    browser.put(a=1)
    browser.sign_in("ann")
    browser.put(a=2)
    browser.site.now += LIFETIME / 2
    assert (browser.user(), browser.held()) == ("ann", {"a": 2})
    with browser.app.app_context():
        assert sessions.ready()
        assert sessions.end_all("ann") == 1
    browser.put(a=3)
    browser.ask(lambda: session.clear())  # noqa: PLW0108

    assert browser.cookie == ""


class Bomb:
    """What runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


PLANTED: dict[str, Callable[[Path], bytes]] = {
    "a pickle": lambda mark: pickle.dumps(Bomb(mark)),
    "a pickle of a session": lambda _: pickle.dumps([NOW, {"user": "ann"}]),
    "nothing": lambda _: b"",
    "no text": lambda _: b"\xff\xfe\x00",
    "a number": lambda _: b"5",
    "a dict": lambda _: b'{"user":"ann"}',
    "a list": lambda _: b'["x",{}]',
    "no content": lambda _: b"[1800000000,5]",
    "a tag of the wrong type": lambda _: b'[1800000000,{"a":{" u":5}}]',
    "deep": lambda _: b"[" * 100_000,
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_what_is_planted_on_the_server_is_not_run_and_counts_as_empty(
    on_server: Browser, redis: RedisServer, tmp_path: Path, planted: Callable[[Path], bytes]
) -> None:
    on_server.put(a=1)
    (key,) = redis.client.scan_iter()
    redis.client.set(key, planted(tmp_path / "mark"))

    assert on_server.held() == {}
    assert not (tmp_path / "mark").exists()
    on_server.put(b=2)
    assert on_server.held() == {"b": 2}


# A server that is gone


@pytest.mark.parametrize("go", [RedisServer.stop, RedisServer.pause])
def test_while_the_server_is_gone_pages_say_so_and_then_they_recover(
    tmp_path: Path,
    fragile_redis: RedisServer,
    caplog: pytest.LogCaptureFixture,
    go: Callable[[RedisServer], None],
) -> None:
    site = Site("redis", tmp_path, fragile_redis)
    reader, writer = Browser(site), Browser(site)
    reader.put(a=1)
    go(fragile_redis)

    response = writer.put(a=1)
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert reader.ask(lambda: session.get("a")).status_code == 503
    assert reader.ask(lambda: None).status_code == 200
    end = time.monotonic() + 1.5 * PAUSE
    while time.monotonic() < end:
        assert reader.ask(lambda: session.get("a")).status_code == 503
    with site.app.app_context():
        assert not sessions.ready()
    fragile_redis.stop()
    fragile_redis.start()
    wait_until(lambda: reader.ask(lambda: session.get("a")).status_code == 200)
    with site.app.app_context():
        assert sessions.ready()
    messages = [record.getMessage() for record in caplog.records]
    assert sum("does not answer" in message for message in messages) == 1


def test_a_server_that_refuses_is_gone_for_those_it_refuses(on_server: Browser, redis: RedisServer) -> None:
    on_server.put(a=1)
    redis.client.config_set("maxmemory", 1)
    try:
        assert on_server.put(a=2).status_code == 503
        assert on_server.held() == {"a": 1}
    finally:
        redis.client.config_set("maxmemory", 0)


def test_a_writing_page_that_meets_a_gone_server_has_its_error_page_and_headers(
    fragile_redis: RedisServer,
) -> None:
    environ = {"APP_ENV": "testing", "SECRET_KEY": FIRST.text, "SESSION_STORE": fragile_redis.address}
    app = create_app(config.load(environ))
    app.add_url_rule("/write", view_func=lambda: session.update(a=1) or "written")
    client = app.test_client()
    assert client.get("/write").text == "written"
    fragile_redis.stop()

    response = client.get("/write")
    assert response.status_code == 503
    assert errors.ADVICE[503] in response.text
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "X-Request-ID" in response.headers
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503
    fragile_redis.start()
    wait_until(lambda: client.get("/readyz").status_code == 200)


# SESSION_STORE


def problems(store: str) -> tuple[str, ...]:
    with pytest.raises(config.ConfigError) as refusal:
        config.load({"APP_ENV": "production", "SECRET_KEY": FIRST.text, "SESSION_STORE": store})
    return refusal.value.problems


@pytest.mark.parametrize(
    ("store", "problem"),
    [
        ("Signed", "must be signed, encrypted, or an address"),
        ("filesystem", "must be signed, encrypted, or an address"),
        ("redis", "must be signed, encrypted, or an address"),
        ("signed://hunter2", "must be signed, encrypted, or an address"),
        ("encrypted://hunter2", "must be signed, encrypted, or an address"),
        ("memcached://hunter2@127.0.0.1", "must be signed, encrypted, or an address"),
        ("redis://", "is no address"),
        ("redis://:hunter2@", "is no address"),
        ("redis://:hunter2/x@127.0.0.1", "is no address"),
        ("redis://:hunter2#x@127.0.0.1", "is no address"),
        ("redis://:hunter2[x@127.0.0.1", "is no address"),
        ("redis://:[hunter2]@127.0.0.1", "is no address"),
        ("redis://:hunter2\uff1a@127.0.0.1", "is no address"),
        ("redis://[::1/0", "is no address"),
        ("redis://:hunter2@127.0.0.1:port", "is no address"),
        ("redis://:hunter2@127.0.0.1:70000", "is no address"),
        ("redis://:hunter2@127.0.0.1:0", "is no address"),
        ("redis://:hunter2@127.0.0.1/name", "is no address"),
        ("redis://:hunter2@127.0.0.1:1?socket_timeout=hunter2", "option"),
        ("redis://:hunter2@127.0.0.1:1?no_such=hunter2", "option"),
    ],
)
def test_a_store_that_cannot_be_meant_is_refused_and_not_shown(store: str, problem: str) -> None:
    (found,) = problems(store)

    assert found.startswith("SESSION_STORE ")
    assert problem in found
    assert "hunter2" not in found


def test_a_server_that_is_gone_for_a_moment_does_not_keep_a_worker_from_starting() -> None:
    assert problem_with("redis://127.0.0.1:1", ask=False) is None


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
def test_a_server_that_does_not_answer_is_named_without_its_password(scheme: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        (found,) = problems(f"{scheme}://ann:hunter2@127.0.0.1:{port}/3?password=hunter2")

    assert f"{scheme}://***@127.0.0.1:{port}/3" in found
    assert "does not answer" in found
    assert "hunter2" not in found


def test_a_wrong_password_is_refused_at_the_start(redis: RedisServer) -> None:
    (found,) = problems(redis.address.replace("//", "//ann:hunter2@"))

    assert "does not answer" in found
    assert "hunter2" not in found


def test_settings_with_a_server_show_no_password(redis: RedisServer) -> None:
    redis.client.acl_setuser("carol", enabled=True, passwords=["+hunter2"], commands=["+@all"], keys=["*"])
    address = redis.address.replace("//", "//carol:hunter2@").replace("redis:", "valkey:")
    found = config.load({"APP_ENV": "production", "SECRET_KEY": FIRST.text, "SESSION_STORE": address})

    assert "hunter2" not in repr(found)
    assert "hunter2" not in repr(create_app(found).config)


@pytest.mark.parametrize(
    ("store", "library", "extra"),
    [("encrypted", "cryptography", "encrypted"), ("redis://127.0.0.1:1", "redis", "redis")],
)
def test_a_store_whose_library_is_missing_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, store: str, library: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    (found,) = problems(store)

    assert f"run: uv sync --extra {extra} (or: pip install -e '.[{extra}]')" in found
