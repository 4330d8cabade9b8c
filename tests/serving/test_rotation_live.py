"""A rotation under load: two real instances whose clocks differ, 30 clients, no session lost.

Each client counts its requests in two cookies: the session, and one that is signed with the keys of `app.config`, as
stock Flask does. A refused cookie shows as a counter that starts again.
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
from baking import Bake, run
from fleet import Fleet, Load, ask
from serving import wait_until

INTERVAL = 1
"""Seconds between two looks at the key file."""
ACTIVATION_DELAY = 120
"""Seconds from a rotation until the new key signs. The tests put the clocks ahead to shortly before that."""
CHANGES = 75
"""Changes of the keyring that the threads of one worker see."""

StartFleet = Callable[..., Fleet]


@pytest.fixture
def fleet(shared: Bake, tmp_path: Path) -> Iterator[StartFleet]:
    """A function that makes a fleet; after the test no process of it is left, and its log has no key."""
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
def keyring(shared: Bake, tmp_path: Path) -> dict[str, str]:
    """The variables of an instance that follows a new key file."""
    variables = {
        "APP_ENV": "production",
        "SECRET_KEY_FILE": str(tmp_path / "keyring"),
        "SECRET_KEY_INTERVAL": f"{INTERVAL}s",
    }
    secret_key(shared, variables, "init")
    return variables


kinds = pytest.mark.parametrize("kind", ["sync", "gthread"])


@kinds
def test_rotate_key_file(shared: Bake, fleet: StartFleet, keyring: dict[str, str], kind: str) -> None:
    """A rotation of a key file loses no session."""
    with fleet("baked", kind) as two:
        two.start(keyring)
        with Load(two) as load:
            began = time.time()
            secret_key(shared, keyring, "rotate", "--in", f"{ACTIVATION_DELAY}s")
            wait_until(lambda: changes(two) == two.workers, "a change of the keyring in each worker")
            switch(two, load, began)
        show(f"rotate, key file, {kind}", load)
        assert_no_restart(two)
        assert load.figures().refused == 0


@kinds
def test_rotate_variables(shared: Bake, fleet: StartFleet, kind: str) -> None:
    """A rotation of variables loses no session: instances are replaced one after the other."""
    first = {"APP_ENV": "production", "SECRET_KEY": secret_key(shared, {}, "generate").strip()}
    with fleet("baked", kind) as two:
        two.start(first)
        with Load(two) as load:
            began = time.time()
            printed = secret_key(shared, first, "rotate", "--print", "--in", f"{ACTIVATION_DELAY}s")
            rotated = dict(line.split("=", 1) for line in printed.splitlines())
            for instance in two.instances:
                instance.replace(rotated)
                load.round()
            switch(two, load, began)
        show(f"rotate, variables, {kind}", load)
        assert load.figures().refused == 0


def test_common_practice(fleet: StartFleet, tmp_path: Path) -> None:
    """Control: both variables changed at once, as is common today, lose sessions."""
    keys = tmp_path / "keys"
    old, new = secrets.token_hex(32), secrets.token_hex(32)
    keys.write_text(f"SECRET_KEY={old}\n")
    with fleet("stock", "gthread") as two:
        two.start({"FLEET_KEYS": str(keys)})
        with Load(two) as load:
            load.round()
            keys.write_text(f"SECRET_KEY={new}\nSECRET_KEY_FALLBACKS={old}\n")
            two.instances[0].reload()
            wait_until(lambda: len(load.signers()) == 2, "an instance with the new key")
            time.sleep(2)  # what a rollout waits from one instance to the next
            two.instances[1].reload()
            wait_until(lambda: len(load.signers()) == 1, "the new key everywhere")
        show("swap both at once", load)
        assert load.figures().refused > 0


def test_revoke(shared: Bake, fleet: StartFleet, keyring: dict[str, str]) -> None:
    """A revoked key is refused within one interval, and from then on."""
    with fleet("baked", "gthread") as two:
        two.start(keyring)
        with Load(two) as load:
            load.round()
            old = [dict(client.cookies) for client in load.clients]
            secret_key(shared, keyring, "revoke", "--yes")
            time.sleep(INTERVAL)  # the promise: from now on it is refused
            with ThreadPoolExecutor(len(old)) as pool:
                answers = list(pool.map(lambda pair: ask(pair[0], cookies=pair[1]), product(two.ports, old)))
            load.round()
        show("revoke", load)
        assert_no_restart(two)
        assert [answer.counts for answer in answers] == [[1, 1]] * len(answers)
        assert load.figures().clients_hit == load.figures().clients


def test_bad_key_file(shared: Bake, fleet: StartFleet, keyring: dict[str, str]) -> None:
    """Each worker logs a bad key file once; no session is lost, and a later rotation works."""
    path = Path(keyring["SECRET_KEY_FILE"])
    good = path.read_text()

    with fleet("baked", "gthread") as two:

        def complaints() -> int:
            return two.log().count("Keeping the last valid secret key: ")

        two.start(keyring)
        with Load(two) as load:
            put(path, good[:-2])  # a paste that lost its last character
            wait_until(lambda: complaints() == two.workers, "an error from each worker")
            time.sleep(2 * INTERVAL)
            load.round()
            assert complaints() == two.workers
            put(path, good)
            began = time.time()
            secret_key(shared, keyring, "rotate", "--in", f"{ACTIVATION_DELAY}s")
            wait_until(lambda: changes(two) == two.workers, "a change of the keyring in each worker")
            switch(two, load, began)
        show("bad key file, then rotate", load)
        assert load.figures().refused == 0


def test_threads(fleet: StartFleet, keyring: dict[str, str]) -> None:
    """No thread sees a half-changed keyring."""
    path = Path(keyring["SECRET_KEY_FILE"])
    keys = [secrets.token_hex(32) for _ in range(3)]
    keyrings = cycle("\n".join(order) for order in permutations(keys))  # foreign keys: the first one signs
    put(path, next(keyrings))
    with fleet("restless", "gthread", workers=[1]) as one:

        def changed_often() -> bool:
            for text in islice(keyrings, 50):
                put(path, text)
            return changes(one) >= CHANGES

        one.start(keyring)
        with Load(one, pause=0) as load:
            wait_until(changed_often, f"{CHANGES} changes of the keyring")
        show(f"{CHANGES} changes of the keyring", load)
        assert load.figures().refused == 0


def secret_key(bake: Bake, variables: Mapping[str, str], *arguments: str) -> str:
    """Return what a secret-key command prints with the variables of an instance."""
    command = (bake.program("flask"), "secret-key", *arguments)
    return run(*command, cwd=bake.path, environment={**bake.environment, **variables}).stdout


def put(path: Path, text: str) -> None:
    """Replace a file in one step."""
    new = path.with_suffix(".new")
    new.touch(0o600)
    new.write_text(text)
    new.replace(path)


def changes(fleet: Fleet) -> int:
    """Return how many changes of the keyring the workers have logged."""
    return fleet.log().count("The keyring has changed")


def switch(fleet: Fleet, load: Load, began: float) -> None:
    """Put the clocks ahead to shortly before the new key signs, and wait until it signs everywhere."""
    before = load.signers()
    assert len(before) == 1, "the new key signs before its time"
    fleet.advance(began + ACTIVATION_DELAY - time.time() - 3)
    wait_until(lambda: len(now := load.signers()) == 1 and now != before, "one new key that signs everywhere")
    load.round()


def assert_no_restart(fleet: Fleet) -> None:
    assert fleet.log().count("Booting worker") == fleet.workers


def show(mode: str, load: Load) -> None:
    """Print the figures of a load."""
    print(f"{mode}: {load.figures()}")
