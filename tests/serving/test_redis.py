"""Sessions on a Redis server that two instances share, while that server fails in every way it can.

`pytest -rP` shows what each fault cost, and the other figures.
"""

import http.client
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from baking import UV, Bake, run
from proxy import Proxy
from redis_server import RedisServer
from running import Server
from secure.keys.key_format import generate_text
from serving import LIMIT, free_port, wait_until
from serving import Server as Site
from tls import tls

CLIENTS = 24
VISITORS = 4
PAUSE = 0.2
"""Seconds that a client waits between two requests."""
CALM = 1.5
"""Seconds without a refusal that end a fault: a worker asks its server again one second after it failed."""
RECOVERY = 5.0
"""Seconds after which everyone can write again after a failover."""
FLOOD = 600
"""How many requests without a cookie are a flood."""
LONGEST_LOAD = 120.0
"""Seconds after which a client ends by itself."""
ERROR_PAGE = "The site cannot answer right now. Try again in a moment."


class Client(threading.Thread):
    """A browser with a counter in its session, whose every request goes to the other instance.

    `user` is who signs in, again if the session is lost; a visitor has none.
    """

    def __init__(self, instances: list[Server], number: int, stop: threading.Event, user: str) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.outcomes: Counter[str] = Counter()
        self.slowest = 0.0
        self.failure: Exception | None = None
        self._instances = instances
        self._path = f"/count/{user}" if user else "/count"
        self._turn = number
        self._told_to_stop = stop
        self._count = 0
        self._cookies: dict[str, str] = {}

    def run(self) -> None:
        """Send one request after the other until told to stop."""
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
        body, headers = self._instances[self._turn % len(self._instances)].get(self._path, Cookie=cookie)
        if ERROR_PAGE in body:
            assert "session" not in headers.get("Set-Cookie", "")
            return "503"
        count = int(body)
        lost = count <= self._count
        self._count = count
        self._cookies |= dict(line.split(";")[0].split("=", 1) for line in headers.get_all("Set-Cookie", []))
        return "lost" if lost else "good"


class Load:
    """Signed-in clients and a few visitors that send requests as long as the block runs."""

    def __init__(self, instances: list[Server]) -> None:
        self.instances = instances
        self._stop = threading.Event()
        self.clients = [Client(instances, number, self._stop, f"user{number}") for number in range(CLIENTS)]
        self.visitors = [Client(instances, number, self._stop, "") for number in range(VISITORS)]

    def __enter__(self) -> "Load":
        for client in (*self.clients, *self.visitors):
            client.start()
        self.until_each_has("good")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for client in (*self.clients, *self.visitors):
            client.join(LIMIT)

    def until_each_has(self, outcome: str) -> None:
        """Wait until every client has had that outcome twice from now on."""
        goals = [client.outcomes[outcome] + 2 for client in self.clients]

        def done() -> bool:
            for client in (*self.clients, *self.visitors):
                if client.failure:
                    raise client.failure
                assert client.is_alive()
            return all(client.outcomes[outcome] >= goal for client, goal in zip(self.clients, goals, strict=True))

        wait_until(done, f"a round of requests that are {outcome}")

    def until_calm(self) -> None:
        """Wait until no worker refuses any more."""
        refused, since = -1, 0.0

        def done() -> bool:
            nonlocal refused, since
            now = self.figures()["503"]
            if now != refused:
                refused, since = now, time.monotonic()
            return time.monotonic() - since > CALM

        wait_until(done, "the last refusal")

    def probes(self) -> set[tuple[str, str]]:
        """What every instance reports: alive, and ready."""
        return {(server.get("/healthz")[0].strip(), server.get("/readyz")[0].strip()) for server in self.instances}

    def figures(self) -> Counter[str]:
        """What the clients have met, all together."""
        return sum((client.outcomes for client in self.clients), Counter())

    def visitors_met(self) -> Counter[str]:
        """What the visitors have met, all together."""
        return sum((visitor.outcomes for visitor in self.visitors), Counter())


READY = {("ok", "ok")}
NOT_READY = {("ok", "the session store cannot be written")}


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


@contextmanager
def serving(bake: Bake, folder: Path, address: str, count: int = 2, **variables: str) -> Iterator[list[Server]]:
    """Run instances that share a keyring and a session store."""
    keys = folder / "keys"
    keys.write_text(f"{generate_text(int(time.time()))}\n")
    settings = {
        "SECRET_KEY_FILE": str(keys),
        "SECRET_KEY_INTERVAL": "1s",
        "SESSION_STORE": address,
        "TRUSTED_HOSTS": "127.0.0.1",
        **variables,
    }
    with ExitStack() as stack:
        servers = [
            Server(bake, folder / f"gunicorn-{number}.log", settings, app="users:app()") for number in range(count)
        ]
        for server in servers:
            stack.callback(server.stop)
        yield servers


@pytest.fixture(scope="module")
def instances(
    shared: Bake, tmp_path_factory: pytest.TempPathFactory, lasting_redis: RedisServer
) -> Iterator[list[Server]]:
    """Two instances for all faults."""
    with serving(shared, tmp_path_factory.mktemp("instances"), lasting_redis.address) as servers:
        yield servers


def stopped(load: Load, redis: RedisServer) -> None:
    redis.stop()
    load.until_each_has("503")
    assert load.probes() == NOT_READY
    redis.start()


def killed(load: Load, redis: RedisServer) -> None:
    redis.stop(signal.SIGKILL)
    load.until_each_has("503")
    assert load.probes() == NOT_READY
    redis.start()


def restarted_at_once(load: Load, redis: RedisServer) -> None:
    redis.stop()
    redis.start()


def paused(load: Load, redis: RedisServer) -> None:
    redis.pause()
    load.until_each_has("503")
    assert load.probes() == NOT_READY
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
def test_fault(instances: list[Server], redis: RedisServer, fault: Callable[[Load, RedisServer], None]) -> None:
    """No fault of the server loses a session or needs a restart, and visitors do not notice it."""
    with Load(instances) as load:
        fault(load, redis)
        load.until_calm()
        load.until_each_has("good")
        wait_until(lambda: load.probes() == READY, "readiness")
    figures = load.figures()

    show(fault.__name__, load, redis)
    assert figures["lost"] == 0
    assert redis.sessions() == CLIENTS
    assert set(load.visitors_met()) == {"good"}


def test_flush(instances: list[Server], redis: RedisServer) -> None:
    """A flush of the server costs each user one sign-in, and no error."""
    with Load(instances) as load:
        assert redis.tell("FLUSHALL") == "+OK"
        load.until_each_has("good")
        wait_until(lambda: load.figures()["lost"] >= CLIENTS, "everybody's loss")
        load.until_each_has("good")
    figures = load.figures()

    show("flushed", load, redis)
    assert (figures["lost"], figures["503"]) == (CLIENTS, 0)
    assert redis.sessions() == CLIENTS
    assert set(load.visitors_met()) == {"good"}


def test_rotate_and_revoke(instances: list[Server], redis: RedisServer) -> None:
    """A rotation logs nobody out, a revocation everybody."""
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
    """The keys that sign, according to a few answers of every instance."""
    return {server.get("/count")[1]["Signer"] for server in instances for _ in range(8)}


def show(what: str, load: Load, redis: RedisServer) -> None:
    """Print a row of the table: what happened, and what the clients met."""
    figures = load.figures()
    slowest = max(client.slowest for client in load.clients)
    print(
        f"| {what.replace('_', ' ')} | {figures.total()} | {figures['503']} | {CLIENTS} | {figures['lost']}"
        f" | {redis.sessions()} | {slowest:.1f} s |"
    )


# Failover


def test_failover(shared: Bake, tmp_path: Path) -> None:
    """The primary is demoted, and the name follows a second later: everyone can write within seconds."""
    with ExitStack() as stack:
        primary, replica = (RedisServer(tmp_path / name, "--repl-diskless-sync-delay", "0") for name in ("a", "b"))
        for server in (primary, replica):
            stack.callback(server.remove)
        proxy = stack.enter_context(closing(Proxy(primary.port)))
        instances = stack.enter_context(serving(shared, tmp_path, proxy.address))
        replica.tell(f"REPLICAOF 127.0.0.1 {primary.port}")
        wait_until(lambda: "state=online" in primary.tell("INFO replication"), "the replica")
        with Load(instances) as load:
            assert primary.tell(f"FAILOVER TO 127.0.0.1 {replica.port}") == "+OK"
            wait_until(lambda: "role:slave" in primary.tell("INFO replication"), "the failover")
            load.until_each_has("503")
            assert load.probes() == NOT_READY
            proxy.target = replica.port
            began = time.monotonic()
            load.until_each_has("good")
            writes = time.monotonic() - began
            wait_until(lambda: load.probes() == READY, "readiness")
            ready = time.monotonic() - began
            load.until_calm()

    refused = load.figures()["503"]
    print(f"failover: {refused} requests refused; then writes work within {writes:.1f} s, /readyz within {ready:.1f} s")
    assert load.figures()["lost"] == 0
    assert max(writes, ready) < RECOVERY
    assert set(load.visitors_met()) == {"good"}


# Attacks, on what a browser would reach: production settings, behind TLS


LIBRARIES = {"flask_login": "flask-login==0.6.3", "flask_security": "flask-security==5.9.0"}


@pytest.fixture(scope="module", params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def site(
    shared: Bake, tmp_path_factory: pytest.TempPathFactory, lasting_redis: RedisServer, library: str
) -> Iterator[Site]:
    """An instance behind TLS, with Flask-Login or Flask-Security."""
    folder = tmp_path_factory.mktemp("site")
    target = folder / "library"
    shared.run(UV, "pip", "install", "--quiet", "--target", str(target), LIBRARIES[library])
    path = f"{Path(__file__).parents[1] / 'apps'}:{target}"
    address = lasting_redis.address
    with (
        serving(shared, folder, address, 1, TRUSTED_PROXIES="1", PYTHONPATH=path, WITH=library) as [server],
        tls(server.port, folder) as proxy,
    ):
        yield Site(proxy.port, server.log, proxy.certificate)


@pytest.mark.parametrize("way", ["sign_in", "by_hand", "library"])
def test_fixation(site: Site, redis: RedisServer, library: str, way: str) -> None:
    """A cookie that an attacker has planted in a victim's browser is worth nothing after the victim's sign-in."""

    def sign_in(user: str, **cookies: str) -> dict[str, str]:
        answer = site.get(f"/{library if way == 'library' else way}/{user}", **cookies)
        assert answer.status == 200
        [(name, value)] = answer.cookies.items()
        assert name.startswith("__Host-")
        assert value not in cookies.values()
        return {name: value}

    def who(cookies: dict[str, str]) -> str:
        return site.get("/who", **cookies).body

    planted = site.get("/count").cookies
    victim = sign_in("victim", **planted)
    assert (who(victim), who(planted)) == ("victim", "nobody")
    attacker = sign_in("mallory")
    assert who(attacker) == "mallory"
    victim = sign_in("victim", **attacker)
    assert (who(victim), who(attacker)) == ("victim", "nobody"), "the attacker's session has ended"
    assert site.get("/sign-out", **victim).cookies == dict.fromkeys(victim, "")
    assert who(victim) == "nobody", "a copy of the cookie is worth nothing after the sign-out"


def test_flood(instances: list[Server], redis: RedisServer) -> None:
    """Any number of requests without a cookie leave nothing on the server, and users can sign in."""
    over = threading.Event()
    threads = [Flood(server.port, over) for server in instances for _ in range(2)]
    before = redis.memory()
    for thread in threads:
        thread.start()
    wait_until(lambda: sum(thread.sent for thread in threads) > FLOOD, "the flood")
    over.set()
    for thread in threads:
        thread.join(LIMIT)
    sent = sum(thread.sent for thread in threads)
    keys, grown = redis.keys(), redis.memory() - before
    _, headers = instances[0].get("/sign_in/ann")

    print(f"{sent} requests left {keys} keys; the memory of the server grew by {grown} bytes")
    assert sent > FLOOD
    assert keys == 0
    assert grown < 200_000
    assert instances[1].get("/who", Cookie=headers["Set-Cookie"].split(";")[0])[0] == "ann"
    assert redis.sessions() == 1, "control: a user's session is on the server"


class Flood(threading.Thread):
    """Someone who asks for the home page, and its form, again and again without a cookie."""

    def __init__(self, port: int, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self._port, self._over = port, over

    def run(self) -> None:
        """Send requests on one connection until it is over."""
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=LIMIT)) as connection:
            while not self._over.is_set():
                connection.request("GET", "/")
                response = connection.getresponse()
                assert b"csrf_token" in response.read()
                assert "Set-Cookie" in response.headers
                self.sent += 1


# The start


def test_start_without_server(shared: Bake, redis: RedisServer) -> None:
    """A start without the session server ends at once; the message names the server, not its password."""
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
        problem, hint = result.stderr.splitlines()
        assert f"SESSION_STORE: {shown} does not answer (" in problem
        assert hint.startswith("hint: start the server")
        assert "hunter2" not in result.stderr
    redis.start()


def test_tls_and_password(shared: Bake, tmp_path: Path, environment: dict[str, str]) -> None:
    """The connection to the server can use TLS, and a password with any character."""
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    new = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    files = ("-keyout", str(key), "-out", str(certificate), "-days", "2")
    run(*new, *files, *subject, cwd=tmp_path, environment=environment)
    tls_port = str(free_port())
    options = ("--tls-port", tls_port, "--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    redis = RedisServer(tmp_path / "redis", *options, "--tls-auth-clients", "no", "--requirepass", "hunter2/@:#")
    address = f"rediss://:hunter2%2F%40%3A%23@127.0.0.1:{tls_port}/0?ssl_ca_certs={certificate}"
    variables = {"SECRET_KEY": secrets.token_hex(32), "SESSION_STORE": address}
    try:
        server = Server(shared, tmp_path / "log", variables, app="users:app()")
        try:
            _, headers = server.get("/count/ann")
            cookies = "; ".join(line.split(";")[0] for line in headers.get_all("Set-Cookie", []))
            assert server.get("/count/ann", Cookie=cookies)[0] == "2"
            assert "hunter2" not in server.log.read_text()
        finally:
            server.stop()
    finally:
        redis.remove()


# The extras


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, bake_into: Callable[..., Bake]) -> Bake:
    """A project whose environment a test makes."""
    return bake_into(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    ("store", "extra", "then"),
    [("encrypted", "encrypted", ""), ("redis://127.0.0.1:9", "redis", "does not answer")],
)
def test_missing_extra(plain: Bake, store: str, extra: str, then: str) -> None:
    """A store whose library is not installed names the command that installs it."""
    plain.run(UV, "sync", "--quiet", "--no-dev")
    start = (UV, "run", "--no-sync", "flask", "routes")
    refused = plain.run(*start, check=False, SESSION_STORE=store)
    line = f"hint: run: uv sync --extra {extra} (or: pip install -e '.[{extra}]')"
    assert line in refused.stderr.splitlines()

    command = line.removeprefix("hint: run: ").partition(" (")[0]
    plain.run(*command.split(), "--quiet", "--no-dev")
    after = plain.run(*start, check=False, SESSION_STORE=store)
    assert (after.returncode == 0) is (not then)
    assert then in after.stderr
    assert "uv sync" not in after.stderr
