"""A failover, a restart or a dropped connection of the session server: the app recovers without a restart.

Real servers behind a proxy that can be switched. `pytest -s` shows the timeline.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from proxy import Proxy
from secure import sessions, web
from sites import PROGRAM, Browser, RedisServer, Site, wait_until

pytestmark = pytest.mark.slow

LIMIT = 5.0
"""Seconds within which writes must work again."""


class Scene:
    """An app, a proxy, a primary and its replica."""

    def __init__(self, folder: Path) -> None:
        self.primary = RedisServer(folder, "--repl-diskless-sync-delay", "0")
        self.replica = RedisServer(folder, "--dbfilename", "replica.rdb")
        self.proxy = Proxy(self.primary.port)
        site = Site("redis", folder, self.primary, address=self.proxy.address)
        site.app.register_blueprint(web.health)
        self.site = site
        self.probe: FlaskClient = site.app.test_client()
        self.browser = Browser(site)
        self.browser.sign_in("ann")

    def replicate(self) -> None:
        """Have the replica follow the primary, and wait until it does."""
        self.replica.client.replicaof("127.0.0.1", self.primary.port)
        wait_until(lambda: self.replica.client.info("replication")["master_link_status"] == "up")
        self.browser.put(n=0)
        assert self.primary.client.wait(1, 2000) == 1

    def promote(self) -> None:
        """Make the replica the primary, and the primary its replica."""
        self.replica.client.replicaof("NO", "ONE")
        self.primary.client.replicaof("127.0.0.1", self.replica.port)

    def write(self) -> int:
        """Change the session and return the status."""
        return self.browser.ask(lambda: sessions.rotate_id()).status_code  # noqa: PLW0108

    def ready(self) -> int:
        """Return the status of /readyz."""
        return self.probe.get("/readyz").status_code

    def recovery(self, what: str) -> float:
        """Return the seconds from now until a write succeeds and /readyz follows, and print them."""
        began = time.monotonic()
        refused = 0
        while self.write() != 200:
            refused += 1
            assert time.monotonic() - began < 2 * LIMIT, "no recovery"
            time.sleep(0.05)
        took = time.monotonic() - began
        wait_until(lambda: self.ready() == 200)
        ready = time.monotonic() - began
        print(f"| {what} | {refused} | {took:.2f} s | {ready:.2f} s |")
        assert self.browser.user() == "ann"
        return ready

    def close(self) -> None:
        """End all."""
        self.proxy.close()
        self.primary.leave()
        self.primary.stop()
        self.replica.stop()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """An app whose session server can fail in many ways."""
    if PROGRAM is None:
        pytest.skip("no redis-server or valkey-server on PATH")
    scene = Scene(tmp_path)
    yield scene
    scene.close()


def test_failover(scene: Scene) -> None:
    """The name leads to the new primary at once: the first write after it succeeds."""
    scene.replicate()
    scene.promote()
    scene.proxy.target = scene.replica.port

    assert scene.write() == 200
    assert scene.recovery("failover (READONLY), address follows at once") < LIMIT


def test_failover_that_takes_time(scene: Scene) -> None:
    """While the name leads to a read-only server, writes are refused and reads are answered."""
    scene.replicate()
    scene.promote()
    for _ in range(3):
        assert scene.write() == 503
        assert scene.ready() == 503
        assert scene.browser.user() == "ann"
    scene.proxy.target = scene.replica.port

    assert scene.recovery("failover (READONLY), address follows later") < LIMIT


def test_dead_primary(scene: Scene) -> None:
    scene.replicate()
    scene.primary.pause()
    scene.replica.client.replicaof("NO", "ONE")
    began = time.monotonic()
    assert scene.write() == 503
    assert time.monotonic() - began < 5, "it gives up, and does not wait for the server"
    assert scene.ready() == 503
    scene.proxy.target = scene.replica.port

    assert scene.recovery("primary hangs, replica takes over") < LIMIT


def test_master_down(scene: Scene) -> None:
    """A replica that lost its primary and serves no old data (MASTERDOWN)."""
    scene.replicate()
    scene.primary.client.config_set("replica-serve-stale-data", "no")
    scene.primary.client.replicaof("127.0.0.1", 1)
    assert scene.write() == 503
    assert scene.ready() == 503
    scene.replica.client.replicaof("NO", "ONE")
    scene.proxy.target = scene.replica.port

    assert scene.recovery("MASTERDOWN") < LIMIT


def test_loading(scene: Scene) -> None:
    """A server that reads its file after a restart (LOADING)."""
    for number in range(1500):
        scene.primary.client.set(f"other:{number}", "x")
    scene.primary.client.save()
    scene.primary.stop()
    # 15 s, until the test has seen it; meanwhile the server answers now and then
    slow = ("--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")
    scene.primary.start(*slow, wait=False)
    wait_until(lambda: scene.write() == 503)
    assert scene.ready() == 503
    wait_until(lambda: scene.primary.client.config_set("key-load-delay", 0))
    wait_until(lambda: scene.primary.client.info("persistence")["loading"] == 0)

    assert scene.recovery("restart, LOADING") < LIMIT


def test_no_auth(scene: Scene) -> None:
    """A password that was set by mistake, and taken back (NOAUTH)."""
    scene.primary.client.config_set("requirepass", "hunter2")
    scene.proxy.reset()
    assert scene.write() == 503
    assert scene.ready() == 503
    scene.primary.client.config_set("requirepass", "")

    assert scene.recovery("NOAUTH") < LIMIT


def test_paused(scene: Scene) -> None:
    scene.primary.pause()
    assert scene.write() == 503
    assert scene.ready() == 503
    scene.primary.resume()

    assert scene.recovery("server paused") < LIMIT


def test_killed_and_restarted(scene: Scene) -> None:
    scene.primary.client.save()
    scene.primary.stop()
    assert scene.write() == 503
    scene.primary.start()

    assert scene.recovery("restart") < LIMIT


FAULTS: dict[str, Callable[[Proxy], None]] = {"reset": Proxy.reset, "silently dropped": Proxy.drop}


@pytest.mark.parametrize("fault", FAULTS)
def test_lost_connection(scene: Scene, fault: str) -> None:
    """No visitor gets a 503 because a connection is lost; with a silent drop the first waits for a second."""
    for _ in range(3):
        FAULTS[fault](scene.proxy)
        began = time.monotonic()
        assert scene.write() == 200
        took = time.monotonic() - began
        print(f"| connection {fault} | 0 | {took:.2f} s | |")
        assert scene.ready() == 200
        assert took < (0.9 if fault == "reset" else 1.9), "one second is the limit for an answer"
        assert scene.browser.user() == "ann"


def test_silent_drop_of_many_connections(scene: Scene) -> None:
    """All idle connections of the pool are replaced after the first one fails."""
    clients = [scene.site.app.session_interface.store._client.connection_pool.get_connection() for _ in range(8)]  # type: ignore[attr-defined]
    pool = scene.site.app.session_interface.store._client.connection_pool  # type: ignore[attr-defined]
    for connection in clients:
        connection.connect()
        pool.release(connection)
    scene.proxy.drop()
    began = time.monotonic()
    for _ in range(8):
        assert scene.write() == 200

    assert time.monotonic() - began < 5, "each connection by itself would wait for a second"
