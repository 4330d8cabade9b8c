"""Sessions on a Redis server that two instances share, while that server fails in every way it can.

`pytest -rP` shows what each fault cost.
"""

import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import UV, Bake, run
from redis_server import RedisServer
from running import Server
from serving import LIMIT, free_port, wait_until

CLIENTS = 24
PAUSE = 0.05
"""Seconds that a client waits between two requests."""
CALM = 1.5
"""Seconds without a refusal that end a fault: a worker asks its server anew one second after it failed."""
LONGEST_LOAD = 120.0
"""Seconds after which a client ends by itself."""
ERROR_PAGE = "It is not lost; try again in a moment."


class Client(threading.Thread):
    """A browser with a counter in its session, whose every request goes to the other instance."""

    def __init__(self, instances: list[Server], number: int, stop: threading.Event) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.outcomes: Counter[str] = Counter()
        self.slowest = 0.0
        self.failure: Exception | None = None
        self._instances = instances
        self._turn = number
        self._told_to_stop = stop
        self._count = 0
        self._cookies: dict[str, str] = {}

    def run(self) -> None:
        """Ask one request after the other until told to stop."""
        end = time.monotonic() + LONGEST_LOAD
        try:
            while not self._told_to_stop.wait(PAUSE) and time.monotonic() < end:
                began = time.monotonic()
                self.outcomes[self._ask()] += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
        except Exception as failure:
            self.failure = failure

    def _ask(self) -> str:
        self._turn += 1
        cookie = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        body, headers = self._instances[self._turn % len(self._instances)].get("/count", Cookie=cookie)
        if ERROR_PAGE in body:
            assert "Set-Cookie" not in headers or "session" not in headers["Set-Cookie"]
            return "503"
        count = int(body.split()[0])
        lost = count <= self._count
        self._count = count
        self._cookies |= dict(line.split(";")[0].split("=", 1) for line in headers.get_all("Set-Cookie", []))
        return "lost" if lost else "good"


class Load:
    """Clients that ask as long as the block runs; probes ask as well."""

    def __init__(self, instances: list[Server]) -> None:
        self.instances = instances
        self._stop = threading.Event()
        self.clients = [Client(instances, number, self._stop) for number in range(CLIENTS)]

    def __enter__(self) -> "Load":
        for client in self.clients:
            client.start()
        self.until_each_has("good")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for client in self.clients:
            client.join(LIMIT)

    def until_each_has(self, outcome: str) -> None:
        """Go on until every client has had that outcome twice from now on."""
        goals = [client.outcomes[outcome] + 2 for client in self.clients]

        def done() -> bool:
            for client in self.clients:
                if client.failure:
                    raise client.failure
                assert client.is_alive()
            return all(
                client.outcomes[outcome] >= goal for client, goal in zip(self.clients, goals, strict=True)
            )

        wait_until(done, f"a round of requests that are {outcome}")

    def until_calm(self) -> None:
        """Go on until no worker refuses any more."""
        refused, since = -1, 0.0

        def done() -> bool:
            nonlocal refused, since
            now = self.figures()["503"]
            if now != refused:
                refused, since = now, time.monotonic()
            return time.monotonic() - since > CALM

        wait_until(done, "the last refusal")

    def probes(self) -> set[tuple[str, str]]:
        """What every instance says of itself: alive, and ready."""
        return {
            (server.get("/healthz")[0].strip(), server.get("/readyz")[0].strip()) for server in self.instances
        }

    def figures(self) -> Counter[str]:
        """All that the clients have met."""
        return sum((client.outcomes for client in self.clients), Counter())


READY = {("ok", "ok")}
GONE = {("ok", "the session store does not answer")}


@pytest.fixture(scope="module")
def lasting_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all faults."""
    server = RedisServer(tmp_path_factory.mktemp("lasting") / "redis")
    yield server
    server.remove()


@pytest.fixture
def redis(lasting_redis: RedisServer) -> RedisServer:
    """An empty server."""
    lasting_redis.tell("FLUSHALL")
    return lasting_redis


@pytest.fixture(scope="module")
def instances(
    shared: Bake, tmp_path_factory: pytest.TempPathFactory, lasting_redis: RedisServer
) -> Iterator[list[Server]]:
    """Two instances that share a ring and a session store, through all faults."""
    folder = tmp_path_factory.mktemp("instances")
    keys = folder / "keys"
    keys.write_text(shared.flask("secret-key", "generate").stdout)
    variables = {
        "SECRET_KEY_FILE": str(keys),
        "SECRET_KEY_INTERVAL": "1s",
        "SESSION_STORE": lasting_redis.address,
        "TRUSTED_HOSTS": "127.0.0.1",
    }
    servers: list[Server] = []
    try:
        for number in range(2):
            log = folder / f"gunicorn-{number}.log"
            servers.append(Server(shared, log, variables, app="visited:app()"))
        yield servers
    finally:
        for server in servers:
            server.stop()


def stopped(load: Load, redis: RedisServer) -> None:
    redis.stop()
    load.until_each_has("503")
    assert load.probes() == GONE
    redis.start()


def killed(load: Load, redis: RedisServer) -> None:
    redis.stop(signal.SIGKILL)
    load.until_each_has("503")
    assert load.probes() == GONE
    redis.start()


def restarted_at_once(load: Load, redis: RedisServer) -> None:
    redis.stop()
    redis.start()


def paused(load: Load, redis: RedisServer) -> None:
    redis.pause()
    load.until_each_has("503")
    assert load.probes() == GONE
    redis.resume()


def stopped_while_workers_are_replaced(load: Load, redis: RedisServer) -> None:
    redis.stop()
    load.until_each_has("503")
    for server in load.instances:
        old = workers(server)
        server.reload()
        wait_until(lambda server=server, old=old: replaced(server, old), "new workers")  # type: ignore[misc]
    load.until_each_has("503")
    redis.start()


def workers(server: Server) -> set[str]:
    """The processes that serve."""
    return set(Path(f"/proc/{server.master}/task/{server.master}/children").read_text().split())


def replaced(server: Server, old: set[str]) -> bool:
    now = workers(server)
    return len(now) == len(old) and not now & old


FAULTS = [stopped, killed, restarted_at_once, paused, stopped_while_workers_are_replaced]


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_of_the_server_loses_a_session_or_needs_a_restart(
    instances: list[Server], redis: RedisServer, fault: Callable[[Load, RedisServer], None]
) -> None:
    with Load(instances) as load:
        fault(load, redis)
        load.until_calm()
        load.until_each_has("good")
        wait_until(lambda: load.probes() == READY, "readiness")
    figures = load.figures()

    show(fault.__name__, load, redis)
    assert figures["lost"] == 0
    assert redis.sessions() == CLIENTS


def test_a_flush_costs_each_visitor_one_session_and_no_error(
    instances: list[Server], redis: RedisServer
) -> None:
    with Load(instances) as load:
        assert redis.tell("FLUSHALL") == "+OK"
        load.until_each_has("good")
    figures = load.figures()

    show("flushed", load, redis)
    assert (figures["lost"], figures["503"]) == (CLIENTS, 0)
    assert redis.sessions() == CLIENTS


def test_a_rotation_logs_nobody_out_and_a_revocation_everybody(
    instances: list[Server], redis: RedisServer
) -> None:
    with Load(instances) as load:
        old = signers(instances)
        instances[0].flask("rotate", "--in", "5s")
        wait_until(lambda: not signers(instances) & old, "the new key signs")
        load.until_each_has("good")
        assert load.figures()["lost"] == 0
        instances[0].flask("revoke", "--yes")
        wait_until(lambda: all(client.outcomes["lost"] for client in load.clients), "everybody's logout")
        load.until_each_has("good")

    show("rotated, then revoked", load, redis)
    assert load.figures()["503"] == 0


def signers(instances: list[Server]) -> set[str]:
    """The keys that sign, as a few answers of every instance tell."""
    return {server.get("/count")[1]["Signer"] for server in instances for _ in range(8)}


def show(what: str, load: Load, redis: RedisServer) -> None:
    """A row of the table: what happened, and what the clients met."""
    figures = load.figures()
    slowest = max(client.slowest for client in load.clients)
    print(
        f"| {what.replace('_', ' ')} | {figures.total()} | {figures['503']} | {CLIENTS} | {figures['lost']}"
        f" | {redis.sessions()} | {slowest:.1f} s |"
    )


# The start


def test_a_start_without_its_server_ends_at_once_and_names_it(shared: Bake, redis: RedisServer) -> None:
    redis.stop()
    variables = {
        "APP_ENV": "production",
        "SECRET_KEY": secrets.token_hex(32),
        "SESSION_STORE": redis.address.replace("//", "//ann:hunter2@"),
    }
    shown = f"redis://***@127.0.0.1:{redis.port}/0"
    for program, *arguments in [("gunicorn", "--bind", "127.0.0.1:0"), ("flask", "routes")]:
        result = shared.run(shared.program(program), *arguments, check=False, **variables)
        assert result.returncode == 1
        assert f"SESSION_STORE names {shown}, which does not answer" in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert "hunter2" not in result.stderr
    redis.start()


def test_a_server_with_tls_and_a_password(shared: Bake, tmp_path: Path, environment: dict[str, str]) -> None:
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    new = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    files = ("-keyout", str(key), "-out", str(certificate), "-days", "2")
    run(*new, *files, *subject, cwd=tmp_path, environment=environment)
    tls_port = str(free_port())
    options = ("--tls-port", tls_port, "--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    redis = RedisServer(
        tmp_path / "redis", *options, "--tls-auth-clients", "no", "--requirepass", "hunter2/@:#"
    )
    address = f"rediss://:hunter2%2F%40%3A%23@127.0.0.1:{tls_port}/0?ssl_ca_certs={certificate}"
    variables = {"SECRET_KEY": secrets.token_hex(32), "SESSION_STORE": address}
    try:
        server = Server(shared, tmp_path / "log", variables, app="visited:app()")
        try:
            _, headers = server.get("/count")
            cookies = "; ".join(line.split(";")[0] for line in headers.get_all("Set-Cookie", []))
            assert server.get("/count", Cookie=cookies)[0] == "2 2"
            assert "hunter2" not in server.log.read_text()
        finally:
            server.stop()
    finally:
        redis.remove()


# The extras


@pytest.mark.parametrize(
    ("store", "extra", "then"),
    [("encrypted", "encrypted", ""), ("redis://127.0.0.1:9", "redis", "does not answer")],
)
def test_a_store_whose_extra_is_missing_names_the_command_that_brings_it(
    bake: Callable[..., Bake], store: str, extra: str, then: str
) -> None:
    project = bake()
    project.run(UV, "sync", "--quiet", "--no-dev")
    start = (UV, "run", "--no-sync", "flask", "routes")
    refused = project.run(*start, check=False, SESSION_STORE=store)
    line = f"run: uv sync --extra {extra} (or: pip install -e '.[{extra}]')"
    assert line in refused.stderr

    command = line.partition(": ")[2].partition(" (")[0]
    project.run(*command.split(), "--quiet", "--no-dev")
    after = project.run(*start, check=False, SESSION_STORE=store)
    assert (after.returncode == 0) is (not then)
    assert then in after.stderr
    assert "uv sync" not in after.stderr
