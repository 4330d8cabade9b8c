"""The last good ring, in memory that the processes of one server share."""

import importlib.util
import sys
from itertools import groupby
from pathlib import Path

import pytest
from package import RETENTION, Key, Keyring, RingRefused, handover, load_ring, mint, read_environment

pytestmark = pytest.mark.usefixtures("own_server")

FOREIGN = Key("schlüssel, made elsewhere, 1234567890")
RINGS = [Keyring((mint(start), mint(0), FOREIGN)) for start in range(1, 6)]


def share(ring: Keyring) -> None:
    """Begin a server with this ring."""
    handover.share()
    handover.keep(ring)


def test_nothing_is_kept_where_nothing_is_shared() -> None:
    handover.keep(RINGS[0])

    assert handover.last_good(RETENTION) is None


def test_every_good_ring_is_the_last_one() -> None:
    share(RINGS[0])
    assert handover.last_good(RETENTION) == RINGS[0]

    for ring in [*RINGS, RINGS[-1], *RINGS]:
        handover.keep(ring)
        assert handover.last_good(RETENTION) == ring


def test_sharing_again_keeps_the_memory_that_others_look_at() -> None:
    share(RINGS[0])
    shared = sys.modules[handover.PLACE]
    share(RINGS[1])

    assert sys.modules[handover.PLACE] is shared
    assert handover.last_good(RETENTION) == RINGS[1]


def test_the_retention_is_the_askers() -> None:
    share(RINGS[0])

    assert handover.last_good(60) == Keyring(RINGS[0].keys, 60)


def test_a_copy_of_the_module_under_another_name_finds_the_ring() -> None:
    share(RINGS[0])
    spec = importlib.util.spec_from_file_location("secret_key.handover", handover.__file__)
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    sys.modules["secret_key"] = sys.modules[handover.__package__ or ""]
    spec.loader.exec_module(copy)

    assert repr(copy.last_good(RETENTION)) == repr(RINGS[0])


def test_a_record_that_was_half_written_is_passed_over_for_the_one_before() -> None:
    share(RINGS[0])
    handover.keep(RINGS[1])
    memory = sys.modules[handover.PLACE].memory
    before = bytes(memory)
    handover.keep(RINGS[2])
    after = bytes(memory)
    start = after.index(RINGS[2].keys[0].text.encode()) - 64
    handed_over = []
    for end in range(start, start + 512):
        memory[start : start + 512] = after[start:end] + before[end : start + 512]
        handed_over.append(handover.last_good(RETENTION))

    assert [ring for ring, _ in groupby(handed_over)] == [RINGS[1], RINGS[2]]


class Contended(bytearray):
    """Memory in which another process writes into the first record that is written."""

    disturbed = False

    def __setitem__(self, place: slice, record: bytes) -> None:  # type: ignore[override]
        super().__setitem__(place, record)
        if not self.disturbed:
            self.disturbed = True
            super().__setitem__(place.stop - 1, 0)


def test_a_record_torn_by_another_writer_is_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    share(RINGS[0])
    shared = sys.modules[handover.PLACE]
    memory = Contended(shared.memory[:])
    monkeypatch.setattr(shared, "memory", memory)
    handover.keep(RINGS[1])

    assert memory.disturbed
    assert handover.last_good(RETENTION) == RINGS[1]


def test_the_variables_of_dotenv_are_kept_beside_the_ring() -> None:
    share(RINGS[0])
    assert handover.last_variables() is None

    for variables in ({"A": "1"}, {"A": "ü\n" * 500}, {}, {"A": "1", "B": "2"}):
        handover.keep_variables(variables, variables.keys())
        handover.keep(RINGS[1])
        assert handover.last_variables() == (variables, sorted(variables))
        assert handover.last_good(RETENTION) == RINGS[1]


def test_a_dotenv_of_any_characters_fits() -> None:
    share(RINGS[0])
    names = ["\x01" * (1 << 20)]
    handover.keep_variables({"A": "\0" * (1 << 20)}, names)
    handover.keep_variables({"A": "\0" * (1 << 20), "B": ""}, names)

    assert handover.last_variables() == ({"A": "\0" * (1 << 20), "B": ""}, names)
    assert handover.last_good(RETENTION) == RINGS[0]


def test_a_ring_that_is_refused_gives_way_to_the_last_good_one(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    path.write_text("damaged\n")
    path.chmod(0o600)
    environment = read_environment({"SECRET_KEY_FILE": str(path)}, tmp_path)
    with pytest.raises(RingRefused):
        load_ring(environment)

    share(RINGS[0])
    assert load_ring(environment)[1] == RINGS[0]
