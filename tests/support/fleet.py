"""A fleet: instances of an app under gunicorn, and clients that visit them in turn and notice a lost session."""

import http.client
import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from baking import Bake
from serving import LIMIT, end, free_port, wait_until

APPS = Path(__file__).parents[1] / "apps"
CLOCK_AHEAD = 1.0
"""Seconds by which the clock of each further instance is ahead of the one before."""
THREADS = 8
"""Threads of a gthread worker; a sync worker has one."""
CLIENTS = 30
PAUSE = 0.3
"""Seconds that a client waits between two requests."""
SLOW_EVERY = 19
"""One of so many requests is a slow one; odd, so that each of two instances gets some."""
LONGEST_LOAD = 100.0
"""Seconds after which a client ends by itself."""


class Answer(NamedTuple):
    """The answer of an instance."""

    counts: list[int]
    signer: str
    """A name for the key that signs there."""
    cookies: dict[str, str]


class WrongAnswerError(Exception):
    """An answer that no client may get, whatever happens to the keys."""


def ask(port: int, path: str = "/count", cookies: Mapping[str, str] | None = None) -> Answer:
    """One request, on its own connection. Raises WrongAnswerError, and ConnectionError if nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    cookie = "; ".join(f"{name}={value}" for name, value in (cookies or {}).items())
    try:
        connection.request("GET", path, headers={"Cookie": cookie, "Connection": "close"})
        response = connection.getresponse()
        body = response.read().decode()
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise WrongAnswerError(f"{response.status} from port {port}")
    pairs = [line.split(";")[0].split("=", 1) for line in response.headers.get_all("Set-Cookie", [])]
    counts = [int(count) for count in body.split()]
    return Answer(counts, response.headers["Signer"], dict(pairs))


class Instance:
    """One gunicorn, in a process group of its own, on a port of its own; `number` counts from 0."""

    def __init__(self, bake: Bake, folder: Path, number: int, app: str, flags: Sequence[str]) -> None:
        self.port = free_port()
        self.log = folder / f"gunicorn-{number}.log"
        # The stock app is served without the project's gunicorn.conf.py.
        self._folder = folder if app == "stock" else bake.path
        self._environment = {
            **bake.environment,
            "APP_ENV": "production",
            "FLEET_PACKAGE": bake.package.name,
            "FLEET_CLOCK": str(folder / "clock"),
            "FLEET_CLOCK_AHEAD": str(number * CLOCK_AHEAD),
        }
        address = f"127.0.0.1:{self.port}"
        self._command = [bake.program("gunicorn"), "--bind", address, "--pythonpath", str(APPS), *flags]
        self._command.append(f"counter:{app}()")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, variables: Mapping[str, str]) -> None:
        """Start it with `variables` in its environment, and wait until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env={**self._environment, **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, f"an answer from port {self.port}")

    def reload(self) -> None:
        """Tell the master to replace its workers; its environment stays the same."""
        assert self._process
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Stop it as a platform does: it answers the requests that it has taken. Kill it if it does not stop."""
        process, self._process = self._process, None
        if process is None:
            return
        end(process)

    def replace(self, variables: Mapping[str, str]) -> None:
        """Replace the running process by a new one with other variables."""
        self.stop()
        self.start(variables)

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, f"gunicorn ended with {self._process.returncode}"
        try:
            ask(self.port)
        except ConnectionError:
            return False
        return True


class Fleet:
    """Instances of one app of `apps/counter.py`, as a context: leaving it stops them all.

    `kind` is gunicorn's worker class; `workers` has the number of worker processes of each instance.
    If the block fails, it prints their logs, without the lines of answered requests.
    """

    def __init__(self, bake: Bake, folder: Path, app: str, kind: str, workers: Sequence[int] = (2, 2)) -> None:
        threads = THREADS if kind == "gthread" else 1
        flags = ("--no-control-socket", "--worker-class", kind, "--threads", str(threads))
        self.workers = sum(workers)
        self.instances = [
            Instance(bake, folder, number, app, (*flags, "--workers", str(count)))
            for number, count in enumerate(workers)
        ]
        self.ports = [instance.port for instance in self.instances]
        self._clock = folder / "clock"
        self._clock.touch()
        self.advance(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self.stop()
        if failure:
            print("\n".join(line for line in self.log().splitlines() if " 200 in " not in line))

    def start(self, variables: Mapping[str, str]) -> Self:
        """Start every instance with `variables` in its environment."""
        for instance in self.instances:
            instance.start(variables)
        return self

    def stop(self) -> None:
        """Stop every running instance, whatever happens to the others."""
        with ExitStack() as stack:
            for instance in self.instances:
                stack.callback(instance.stop)

    def advance(self, seconds: float) -> None:
        """Put the clocks of all instances ahead by this much."""
        os.utime(self._clock, (seconds, seconds))

    def log(self) -> str:
        """All that the instances have printed."""
        return "".join(instance.log.read_text() for instance in self.instances if instance.log.exists())


@dataclass(frozen=True)
class Figures:
    """The figures of a load."""

    requests: int
    slow: int
    refused: int
    """Requests whose cookies were refused: a session is lost with each."""
    clients: int
    clients_hit: int
    """Clients that lost at least one session."""
    turned_away: int
    """Requests for an instance that was stopped; the client then asked the next one."""

    def __str__(self) -> str:
        return (
            f"{self.requests} requests ({self.slow} slow, {self.turned_away} turned away): "
            f"{self.refused} refused, {self.clients_hit} of {self.clients} clients hit"
        )


class Client(threading.Thread):
    """A browser with two counters in its cookies, whose every request goes to the next instance."""

    def __init__(self, number: int, ports: list[int], pause: float, over: threading.Event) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.cookies: dict[str, str] = {}
        self.requests = self.slow = self.refused = self.turned_away = 0
        self.signers: set[str] = set()
        """The names of the signing keys that it has seen."""
        self.failure: Exception | None = None
        self._counts = [0, 0]
        self._turns = itertools.count(number)
        self._ports = ports
        self._pause = pause
        self._over = over

    def run(self) -> None:
        """Send one request after the other until told to stop."""
        end = time.monotonic() + LONGEST_LOAD
        try:
            while not self._over.wait(self._pause) and time.monotonic() < end:
                self._ask()
        except Exception as failure:
            self.failure = failure

    def _ask(self) -> None:
        turn = next(self._turns)
        slow = turn % SLOW_EVERY == 0
        try:
            answer = ask(self._ports[turn % len(self._ports)], "/slow" if slow else "/count", self.cookies)
        except ConnectionError:
            self.turned_away += 1
            return
        expected = [count + 1 for count in self._counts]
        if any(count not in (1, want) for count, want in zip(answer.counts, expected, strict=True)):
            raise WrongAnswerError(f"counted to {answer.counts} in place of {expected}")
        self.refused += answer.counts != expected
        self._counts = answer.counts
        self.cookies |= answer.cookies
        self.signers.add(answer.signer)
        self.slow += slow
        self.requests += 1


class Load:
    """Clients that send requests to a fleet as long as the block runs; it fails if one of them does."""

    def __init__(self, fleet: Fleet, clients: int = CLIENTS, pause: float = PAUSE) -> None:
        self._over = threading.Event()
        self._instances = len(fleet.ports)
        self.clients = [Client(number, fleet.ports, pause, self._over) for number in range(clients)]

    def __enter__(self) -> Self:
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        for client in self.clients:
            client.join(LIMIT)
        if not failure:
            self._raise_failure()

    def round(self) -> None:
        """Wait until every client has an answer to a request that it began after this moment."""
        goals = [(client, client.requests + 1 + self._instances) for client in self.clients]

        def done() -> bool:
            self._raise_failure()
            assert all(client.is_alive() for client in self.clients), "the load has ended too early"
            return all(client.requests >= goal for client, goal in goals)

        wait_until(done, "a round of requests")

    def signers(self) -> set[str]:
        """The names of the keys that sign in one more round of requests."""
        for client in self.clients:
            client.signers = set()
        self.round()
        return set().union(*(client.signers for client in self.clients))

    def figures(self) -> Figures:
        """What the clients have met, all together."""
        every = self.clients
        return Figures(
            requests=sum(client.requests for client in every),
            slow=sum(client.slow for client in every),
            refused=sum(client.refused for client in every),
            clients=len(every),
            clients_hit=sum(client.refused > 0 for client in every),
            turned_away=sum(client.turned_away for client in every),
        )

    def _raise_failure(self) -> None:
        for client in self.clients:
            if client.failure:
                raise client.failure
