"""The policy for a rotation under load: two real instances whose clocks differ, 50 clients, no session lost.

Each client counts its requests in two cookies, one signed by the session and one by what reads the keys
from `app.config` as stock Flask does; a refused cookie shows as a counter that starts again.
`pytest -rP` shows the figures.
"""

import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice, permutations, product
from pathlib import Path

import pytest
from conftest import Bake, run
from fleet import Fleet, Load, ask
from serving import wait_until

INTERVAL = 1
"""Seconds between two looks at the key file."""
LEAD = 120
"""Seconds from a rotation until the new key signs. The clocks are put ahead to shortly before that."""
CHANGES = 300
"""Changes of the ring that the threads of one worker are to see."""

StartFleet = Callable[..., Fleet]


@pytest.fixture
def fleet(shared: Bake, tmp_path: Path) -> Iterator[StartFleet]:
    """A function that makes a fleet; the test leaves none of it behind, and no key in its log."""
    fleets: list[Fleet] = []

    def make(app: str, kind: str, workers: Sequence[int] = (2, 2)) -> Fleet:
        fleets.append(Fleet(shared, tmp_path, app, kind, workers))
        return fleets[-1]

    yield make
    for fleet in fleets:
        assert not re.search("[0-9a-f]{32}", fleet.log()), "a key is in the log"
        for port in fleet.ports:
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", port)), f"port {port} is still served"


@pytest.fixture
def ring(shared: Bake, tmp_path: Path) -> dict[str, str]:
    """The variables of an instance that follows a new key file."""
    variables = {
        "APP_ENV": "production",
        "SECRET_KEY_FILE": str(tmp_path / "ring"),
        "SECRET_KEY_INTERVAL": f"{INTERVAL}s",
    }
    secret_key(shared, variables, "init")
    return variables


kinds = pytest.mark.parametrize("kind", ["sync", "gthread"])


@kinds
def test_a_rotation_of_a_key_file_loses_no_session(
    shared: Bake, fleet: StartFleet, ring: dict[str, str], kind: str
) -> None:
    with fleet("baked", kind) as two:
        two.start(ring)
        with Load(two) as load:
            began = time.time()
            secret_key(shared, ring, "rotate", "--in", f"{LEAD}s")
            wait_until(lambda: changes(two) == two.workers, "a change of the ring in each worker")
            switch(two, load, began)
        show(f"rotate, key file, {kind}", load)
        assert_no_restart(two)
        assert load.figures().refused == 0


@kinds
def test_a_rotation_of_variables_loses_no_session(shared: Bake, fleet: StartFleet, kind: str) -> None:
    first = {"APP_ENV": "production", "SECRET_KEY": secret_key(shared, {}, "generate").strip()}
    with fleet("baked", kind) as two:
        two.start(first)
        with Load(two) as load:
            began = time.time()
            printed = secret_key(shared, first, "rotate", "--print", "--in", f"{LEAD}s")
            rotated = dict(line.split("=", 1) for line in printed.splitlines())
            for instance in two.instances:
                instance.replace(rotated)
                load.round()
            switch(two, load, began)
        show(f"rotate, variables, {kind}", load)
        assert load.figures().refused == 0


@kinds
def test_todays_practice_loses_sessions(fleet: StartFleet, tmp_path: Path, kind: str) -> None:
    keys = tmp_path / "keys"
    old, new = secrets.token_hex(32), secrets.token_hex(32)
    keys.write_text(f"SECRET_KEY={old}\n")
    with fleet("stock", kind) as two:
        two.start({"FLEET_KEYS": str(keys)})
        with Load(two) as load:
            load.round()
            keys.write_text(f"SECRET_KEY={new}\nSECRET_KEY_FALLBACKS={old}\n")
            two.instances[0].reload()
            wait_until(lambda: len(load.signers()) == 2, "an instance with the new key")
            time.sleep(2)  # what a rollout waits from one instance to the next
            two.instances[1].reload()
            wait_until(lambda: len(load.signers()) == 1, "the new key everywhere")
        show(f"swap both at once, {kind}", load)
        assert load.figures().refused > 0


@kinds
def test_a_revoked_key_is_refused_within_one_interval_and_for_good(
    shared: Bake, fleet: StartFleet, ring: dict[str, str], kind: str
) -> None:
    with fleet("baked", kind) as two:
        two.start(ring)
        with Load(two) as load:
            load.round()
            old = [dict(client.cookies) for client in load.clients]
            secret_key(shared, ring, "revoke", "--yes")
            time.sleep(INTERVAL)  # the promise: from here on none is accepted
            with ThreadPoolExecutor(len(old)) as pool:
                answers = list(pool.map(lambda pair: ask(pair[0], cookies=pair[1]), product(two.ports, old)))
            load.round()
        show(f"revoke, {kind}", load)
        assert_no_restart(two)
        assert [answer.counts for answer in answers] == [[1, 1]] * len(answers)
        assert load.figures().clients_hit == load.figures().clients


def test_a_bad_key_file_is_logged_once_by_each_worker_and_loses_no_session(
    shared: Bake, fleet: StartFleet, ring: dict[str, str]
) -> None:
    path = Path(ring["SECRET_KEY_FILE"])
    good = path.read_text()

    with fleet("baked", "gthread") as two:

        def complaints() -> int:
            return two.log().count("The last good secret key serves on")

        two.start(ring)
        with Load(two) as load:
            put(path, good[:-2])  # a paste that lost its last character
            wait_until(lambda: complaints() == two.workers, "an error from each worker")
            time.sleep(2 * INTERVAL)
            load.round()
            assert complaints() == two.workers
            put(path, good)
            began = time.time()
            secret_key(shared, ring, "rotate", "--in", f"{LEAD}s")
            wait_until(lambda: changes(two) == two.workers, "a change of the ring in each worker")
            switch(two, load, began)
        show("bad key file, then rotate", load)
        assert load.figures().refused == 0


def test_no_thread_sees_a_half_changed_ring(fleet: StartFleet, ring: dict[str, str]) -> None:
    path = Path(ring["SECRET_KEY_FILE"])
    keys = [secrets.token_hex(32) for _ in range(3)]
    rings = cycle("\n".join(order) for order in permutations(keys))  # made elsewhere: the first of them signs
    put(path, next(rings))
    with fleet("restless", "gthread", workers=[1]) as one:

        def changed_often() -> bool:
            for text in islice(rings, 50):
                put(path, text)
            return changes(one) >= CHANGES

        one.start(ring)
        with Load(one, pause=0) as load:
            wait_until(changed_often, f"{CHANGES} changes of the ring")
        show(f"{CHANGES} changes of the ring", load)
        assert load.figures().refused == 0


def secret_key(bake: Bake, variables: Mapping[str, str], *arguments: str) -> str:
    """What a secret-key command prints where an instance's variables are set."""
    command = (bake.program("flask"), "secret-key", *arguments)
    return run(*command, cwd=bake.path, environment={**bake.environment, **variables}).stdout


def put(path: Path, text: str) -> None:
    """Put a file in the place of another, in one step."""
    new = path.with_suffix(".new")
    new.touch(0o600)
    new.write_text(text)
    new.replace(path)


def changes(fleet: Fleet) -> int:
    """How often a worker has followed a change of the ring."""
    return fleet.log().count("The ring has changed")


def switch(fleet: Fleet, load: Load, began: float) -> None:
    """Have the clocks pass the moment at which the key of the rotation that `began` then signs."""
    before = load.signers()
    assert len(before) == 1, "the new key signs before its time"
    fleet.advance(began + LEAD - time.time() - 3)
    wait_until(lambda: len(now := load.signers()) == 1 and now != before, "one new key that signs everywhere")
    load.round()


def assert_no_restart(fleet: Fleet) -> None:
    assert fleet.log().count("Booting worker") == fleet.workers


def show(mode: str, load: Load) -> None:
    """Print what a load met."""
    print(f"{mode}: {load.figures()}")
