"""Sessions on a Redis server: what it holds, what happens while it is gone, and which addresses are accepted."""

import json
import pickle
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import flask_login
import pytest
from flask import Response, redirect, send_file, session
from flask_wtf.csrf import generate_csrf
from itsdangerous.encoding import base64_decode
from redis import Redis, TimeoutError  # noqa: A004
from redis.exceptions import ReadOnlyError, ResponseError
from secure import sessions, web
from secure.sessions import redis_store
from secure.sessions.interface import PAUSE, SessionStoreUnavailableError
from secure.store_address import problem_with
from sites import ABSOLUTE, LIFETIME, NOW, Browser, RedisServer, Site, free_port, wait_until
from test_sign_ins import LoginUser
from werkzeug.wrappers import Response as BaseResponse


@pytest.fixture
def on_server(tmp_path: Path, redis: RedisServer) -> Browser:
    """A browser of an app whose sessions are on a server."""
    return Browser(Site("redis", tmp_path, redis))


def client_of(browser: Browser) -> Any:
    """Return the connection of the browser's app to the server."""
    return browser.app.session_interface.store._client  # type: ignore[attr-defined]


def keys(redis: RedisServer, kind: str = "") -> list[bytes]:
    """Return the names of what the server holds."""
    return list(redis.client.scan_iter(f"site:{kind}*"))


def test_planted_generation(on_server: Browser, redis: RedisServer) -> None:
    """What another program writes in its place ends the user's sessions, and a new sign-in is refused loudly."""
    on_server.sign_in("ann")
    (key,) = keys(redis, "user")
    redis.client.delete(key)
    redis.client.lpush(key, "planted")

    assert on_server.user() is None
    assert on_server.ask(lambda: sessions.sign_in("ann")).status_code == 503
    redis.client.delete(key)
    on_server.sign_in("ann")
    assert on_server.user() == "ann"


def test_no_list_of_cookies(on_server: Browser, redis: RedisServer) -> None:
    """Someone who reads the server can take over no session."""
    on_server.sign_in("ann")
    content = b"".join(key + (redis.client.dump(key) or b"") for key in redis.client.scan_iter())
    name = on_server.cookie.partition(".")[0].encode()
    identifier, _ = json.loads(base64_decode(name))
    assert len(identifier) == 43  # 256 bits
    assert identifier.encode() not in content
    assert name not in content


def test_unknown_id(on_server: Browser, redis: RedisServer) -> None:
    on_server.sign_in("ann")
    before = on_server.cookie
    redis.client.flushall()
    assert on_server.user() is None
    on_server.sign_in("ann")

    assert on_server.cookie.partition(".")[0] != before.partition(".")[0]


def test_keys_expire(on_server: Browser, redis: RedisServer) -> None:
    on_server.put(a=1)
    on_server.sign_in("ann")
    with on_server.app.app_context():
        assert sessions.ready()

    times = sorted(redis.client.ttl(key) for key in redis.client.scan_iter())
    assert [0 < times[0] <= 60, LIFETIME - 60 < times[1] <= LIFETIME, ABSOLUTE - 60 < times[2] <= ABSOLUTE] == [
        True
    ] * 3
    assert len(times) == 3


def test_no_growth_per_user(on_server: Browser, redis: RedisServer) -> None:
    """Signing in again and again leaves one session and one generation."""
    for _ in range(20):
        on_server.sign_in("ann")

    assert (len(keys(redis, "session")), len(keys(redis, "user"))) == (1, 1)


ALLOWED = "get mget set del rename expire multi exec info"


def test_allowed_commands(tmp_path: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = [f"+{name}" for name in ALLOWED.split()]
    redis.client.acl_setuser("dora", enabled=True, passwords=["+hunter2"], commands=commands, keys=["site:*"])
    monkeypatch.setattr(redis, "address", redis.address.replace("//", "//dora:hunter2@"))
    assert problem_with(redis.address, ask=True) is None
    browser = Browser(Site("redis", tmp_path, redis))
    browser.put(a=1)
    browser.sign_in("ann")
    browser.put(a=2)
    browser.ask(sessions.rotate_id)
    browser.site.now += LIFETIME / 2
    assert (browser.user(), browser.record()) == ("ann", {"a": 2})
    with browser.app.app_context():
        assert sessions.ready()
        sessions.revoke_all("ann")
    assert browser.user() is None
    browser.sign_in("ann")
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
    "a pickle of a session": lambda _: pickle.dumps([NOW, {"_user": "ann"}, "x"]),
    "nothing": lambda _: b"",
    "no text": lambda _: b"\xff\xfe\x00",
    "a number": lambda _: b"5",
    "a dict": lambda _: b'{"_user":"ann"}',
    "a list": lambda _: b'["x",{}]',
    "no content": lambda _: b"[1800000000,5]",
    "a tag of the wrong type": lambda _: b'[1800000000,{"a":{" u":5}},"x"]',
    "no generation": lambda _: b'[1800000000,{"_user":"ann"},null]',
    "another generation": lambda _: b'[1800000000,{"_user":"ann"},"x"]',
    "deep": lambda _: b"[" * 100_000,
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_planted_session(
    on_server: Browser, redis: RedisServer, tmp_path: Path, planted: Callable[[Path], bytes]
) -> None:
    """Whatever else is in a session's place is not run and counts as an empty session."""
    on_server.sign_in("ann")
    (key,) = keys(redis, "session")
    redis.client.set(key, planted(tmp_path / "mark"))

    assert (on_server.user(), on_server.record()) == (None, {})
    assert not (tmp_path / "mark").exists()
    on_server.put(b=2)
    assert on_server.record() == {"b": 2}


@pytest.mark.parametrize(("started", "content"), [("x", {}), (NOW, 5), (NOW, ["_user"]), (NOW, None)])
def test_planted_content(on_server: Browser, redis: RedisServer, started: object, content: object) -> None:
    """The same if it has the user's generation, which somebody who can write there can read."""
    on_server.sign_in("ann")
    (key,), (generation,) = keys(redis, "session"), map(redis.client.get, keys(redis, "user"))
    assert isinstance(generation, bytes)
    redis.client.set(key, json.dumps([started, content, generation.decode()]))

    assert (on_server.user(), on_server.record()) == (None, {})


def test_transaction(on_server: Browser, redis: RedisServer) -> None:
    """A session is written as a whole."""
    on_server.sign_in("ann")
    redis.client.config_resetstat()
    on_server.put(a=1)

    calls = redis.client.info("commandstats")
    assert [calls[f"cmdstat_{name}"]["calls"] for name in ("multi", "set", "exec")] == [1, 1, 1]


def test_error_in_a_transaction() -> None:
    """A page is not sent as if its session was saved."""
    assert not redis_store._succeeded([True, ResponseError("no such key"), None])
    with pytest.raises(ResponseError):
        redis_store._succeeded([ResponseError("WRONGTYPE"), True])


# Visitors


def test_visitors_cost_nothing(on_server: Browser, redis: RedisServer) -> None:
    """A visitor's session, with a CSRF token and a basket, is in the cookie; sign-in moves it to the server."""
    for _ in range(200):
        Browser(on_server.site).ask(generate_csrf, lambda: session.update(basket=[1, 2]))
    assert keys(redis) == []

    on_server.put(basket=["tea"])
    on_server.sign_in("ann")
    assert on_server.record() == {"basket": ["tea"]}
    assert len(keys(redis)) == 2
    on_server.ask(lambda: session.pop("_user"))
    assert (on_server.user(), on_server.record()) == (None, {"basket": ["tea"]})
    assert len(keys(redis, "session")) == 0


# A server that is gone


def test_asked_once_while_down(on_server: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs keeps one request waiting, not each of them."""
    monkeypatch.setattr(redis_store, "PAUSE", 60)
    on_server.sign_in("ann")
    asked: list[object] = []

    def hang(keys: object) -> None:
        asked.append(keys)
        raise TimeoutError

    monkeypatch.setattr(client_of(on_server), "mget", hang)
    assert {on_server.ask(lambda: session.get("a")).status_code for _ in range(5)} == {503}

    assert len(asked) == 2, "once, and once more on a new connection"


def test_connections_of_other_threads(on_server: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failover each request closes its own: another one may wait for its answer."""
    on_server.sign_in("ann")
    client, failures = client_of(on_server), iter([ReadOnlyError()])

    def fail_once(keys: Any) -> Any:
        for error in failures:
            raise error
        return Redis.mget(client, keys)

    other = client.connection_pool.get_connection()
    monkeypatch.setattr(client, "mget", fail_once)
    assert on_server.user() == "ann"
    assert next(failures, None) is None
    assert other._sock
    client.connection_pool.release(other)


@pytest.mark.slow
@pytest.mark.parametrize("go", [RedisServer.stop, RedisServer.pause])
def test_outage(
    tmp_path: Path,
    fragile_redis: RedisServer,
    caplog: pytest.LogCaptureFixture,
    go: Callable[[RedisServer], None],
) -> None:
    """Pages that need the server answer 503, at once after the first, and recover by themselves."""
    site = Site("redis", tmp_path, fragile_redis)
    caplog.set_level("INFO")
    reader, writer, visitor = Browser(site), Browser(site), Browser(site)
    reader.sign_in("ann")
    go(fragile_redis)

    response = writer.ask(lambda: sessions.sign_in("bob"))
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert reader.ask(lambda: session.get("a")).status_code == 503
    assert reader.ask(lambda: None).status_code == 200
    assert visitor.put(a=1).status_code == 200
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
    assert sum("answers again" in message for message in messages) == 1


def test_full_server(on_server: Browser, redis: RedisServer) -> None:
    """A server that accepts no writes still serves what it has, and is not ready."""
    on_server.sign_in("ann")
    redis.client.config_set("maxmemory", 1)
    try:
        assert on_server.put(a=2).status_code == 503
        assert on_server.user() == "ann"
        with on_server.app.app_context():
            assert not sessions.ready()
    finally:
        redis.client.config_set("maxmemory", 0)
    with on_server.app.app_context():
        assert sessions.ready()


@pytest.mark.slow
def test_error_page(tmp_path: Path, fragile_redis: RedisServer) -> None:
    """A page that was ready before its session could not be saved becomes the app's own page for 503."""
    site = Site("redis", tmp_path, fragile_redis)
    app = site.app

    @app.route("/sign-in")
    def sign_in() -> BaseResponse:
        sessions.sign_in("ann")
        response = redirect("/welcome")
        response.set_etag("x")
        response.set_cookie("other", "1")
        return response

    @app.route("/file")
    def file() -> Response:
        sessions.sign_in("ann")
        return send_file(__file__)

    @app.after_request
    def add_id(response: Response) -> Response:
        response.headers["X-Request-ID"] = "7"
        return response

    app.register_error_handler(503, lambda error: (f"our page: {error.code}", 503, {"X-Page": "1"}))
    client = app.test_client()
    assert client.get("/sign-in").status_code in (302, 303)  # Werkzeug's next release answers 303
    fragile_redis.stop()
    for path in ("/sign-in", "/file"):
        client.delete_cookie("session")
        response = client.get(path)
        assert (response.status_code, response.text) == (503, "our page: 503")
        assert (response.headers["X-Request-ID"], response.headers["X-Page"]) == ("7", "1")
        assert not {"Location", "ETag", "Last-Modified"} & {*response.headers.keys()}
        assert int(response.headers["Content-Length"]) == len(response.data)
    fragile_redis.start()


@pytest.mark.slow
def test_outage_with_flask_login(tmp_path: Path, fragile_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Flask-Login uses the session after every request: the page is a 503 with one log line, and nothing is lost."""
    site = Site("redis", tmp_path, fragile_redis)
    flask_login.LoginManager(site.app).user_loader(LoginUser)
    site.app.add_url_rule("/page", "page", view_func=lambda: "page")
    site.app.add_url_rule("/whoami", "whoami", view_func=lambda: str(flask_login.current_user.get_id()))
    site.app.register_error_handler(503, lambda error: (f"our page, {len(session)}", 503))
    browser = Browser(site)
    browser.ask(lambda: flask_login.login_user(LoginUser("ann")))
    client = site.app.test_client()
    client.set_cookie("session", browser.cookie)
    assert client.get("/whoami").text == "ann"
    fragile_redis.pause()
    for path in ("/page", "/whoami", "/page"):
        response = client.get(path)
        assert (response.status_code, response.text) == (503, "our page, 0")
        assert "Set-Cookie" not in response.headers
    assert site.app.test_client().get("/page").text == "page"
    assert [record.name for record in caplog.records] == ["secure.sessions.redis_store"]
    fragile_redis.resume()

    wait_until(lambda: client.get("/whoami").text == "ann")


@pytest.mark.slow
def test_lost_session(tmp_path: Path, fragile_redis: RedisServer) -> None:
    """A page that was rendered although its session could not be loaded is not sent."""
    site = Site("redis", tmp_path, fragile_redis)
    browser = Browser(site)
    browser.sign_in("ann")
    fragile_redis.pause()

    def use() -> None:
        with suppress(SessionStoreUnavailableError):
            session.get("a")
        session["basket"] = []

    response = browser.ask(use)
    assert response.status_code == 503
    assert "Set-Cookie" not in response.headers
    fragile_redis.resume()


@pytest.mark.slow
def test_probes(tmp_path: Path, fragile_redis: RedisServer) -> None:
    site = Site("redis", tmp_path, fragile_redis)
    site.app.register_blueprint(web.health)
    client = site.app.test_client()
    assert (client.get("/healthz").status_code, client.get("/readyz").status_code) == (200, 200)
    fragile_redis.stop()

    assert (client.get("/healthz").status_code, client.get("/readyz").status_code) == (200, 503)
    fragile_redis.start()
    wait_until(lambda: client.get("/readyz").status_code == 200)


# SESSION_STORE


MUST_BE = "must be signed, encrypted, or an address"


@pytest.mark.parametrize(
    ("store", "problem"),
    [
        ("Signed", MUST_BE),
        ("filesystem", MUST_BE),
        ("redis", MUST_BE),
        ("signed://hunter2", MUST_BE),
        ("encrypted://hunter2", MUST_BE),
        ("memcached://hunter2@127.0.0.1", MUST_BE),
        ("redis+sentinel://:hunter2@127.0.0.1:26379/mymaster", "Sentinel"),
        ("sentinel://:hunter2@127.0.0.1:26379", "Sentinel"),
        ("redis+cluster://:hunter2@127.0.0.1", "Cluster"),
        ("rediss+cluster://:hunter2@127.0.0.1", "Cluster"),
        ("unix://hunter2/run/redis.sock", "Unix"),
        ("redis://", "is not an address"),
        ("redis://:hunter2@", "is not an address"),
        ("redis://:hunter2@127.0.0.1:1,127.0.0.1:2", "is not an address"),
        ("redis://:hunter2/x@127.0.0.1", "is not an address"),
        ("redis://:hunter2#x@127.0.0.1", "is not an address"),
        ("redis://:hunter2[x@127.0.0.1", "is not an address"),
        ("redis://:[hunter2]@127.0.0.1", "is not an address"),
        ("redis://:hunter2\uff1a@127.0.0.1", "is not an address"),
        ("redis://[::1/0", "is not an address"),
        ("redis://:hunter2@127.0.0.1:port", "is not an address"),
        ("redis://:hunter2@127.0.0.1:70000", "is not an address"),
        ("redis://:hunter2@127.0.0.1:0", "is not an address"),
        ("redis://:hunter2@127.0.0.1/name", "is not an address"),
        ("redis://:hunter2@127.0.0.1:1?socket_timeout=hunter2", "option"),
        ("redis://:hunter2@127.0.0.1:1?no_such=hunter2", "option"),
    ],
)
def test_bad_address(store: str, problem: str) -> None:
    found = problem_with(store, ask=True)

    assert found
    assert problem in found
    assert "hunter2" not in found


@pytest.mark.parametrize("store", ["signed", "encrypted", "redis://127.0.0.1:1", "valkeys://a:b@[::1]:1/2"])
def test_good_address(store: str) -> None:
    """A server that is gone for a moment does not keep a worker from starting."""
    assert problem_with(store, ask=False) is None


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
def test_unreachable_address(scheme: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        found = problem_with(f"{scheme}://ann:hunter2@127.0.0.1:{port}/3?password=hunter2", ask=True)

    assert found
    assert f"{scheme}://***@127.0.0.1:{port}/3 does not answer" in found
    assert "hunter2" not in found


def test_wrong_password(redis: RedisServer) -> None:
    found = problem_with(redis.address.replace("//", "//ann:hunter2@"), ask=True)

    assert found
    assert "does not answer" in found
    assert "hunter2" not in found


@pytest.mark.parametrize(
    ("mode", "options"),
    [("Cluster", ("--cluster-enabled", "yes", "--cluster-port")), ("Sentinel", ("--sentinel",))],
)
def test_sentinel_and_cluster_nodes(tmp_path: Path, mode: str, options: tuple[str, ...]) -> None:
    """They are refused at the start, and the hint names what works."""
    if mode == "Cluster":
        options = (*options, str(free_port()))
    configuration = tmp_path / "redis.conf"
    configuration.write_text("")
    server = RedisServer(tmp_path, str(configuration), *options)
    try:
        found = problem_with(server.address, ask=True)
    finally:
        server.stop()

    assert found
    assert f"is a Redis {mode} node" in found
    assert "\nhint: " in found


@pytest.mark.parametrize(
    ("store", "library", "extra"),
    [("encrypted", "cryptography", "encrypted"), ("redis://127.0.0.1:1", "redis", "redis")],
)
def test_missing_library(monkeypatch: pytest.MonkeyPatch, store: str, library: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    found = problem_with(store, ask=False)

    assert found
    assert f"hint: run: uv sync --extra {extra} (or: pip install -e '.[{extra}]')" in found
