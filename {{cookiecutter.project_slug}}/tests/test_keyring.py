"""The ring: which key signs and which verify, from the keys and a moment alone."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import FrozenInstanceError, dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from package import LEAD, RETENTION, Key, Keyring, RingRefused, RotationUnderWay, State, judge_ring, mint

END = 200
"""After this moment nothing changes in any of the random rings."""


def ring_of(starts: Sequence[int | None], retention: int = RETENTION) -> Keyring:
    return Keyring(tuple(Key(f"key {n}", start) for n, start in enumerate(starts)), retention)


RINGS = st.builds(
    ring_of, st.lists(st.none() | st.integers(0, 100), min_size=1, max_size=6), st.integers(1, 60)
)
MOMENTS = st.integers(-80, 8 * END).map(lambda eighths: eighths / 8)


def states(ring: Keyring, now: float) -> list[State]:
    return [ring.state(key, now) for key in ring.keys]


@given(RINGS, MOMENTS)
def test_exactly_one_key_signs(ring: Keyring, now: float) -> None:
    assert [key for key in ring.keys if ring.state(key, now) is State.SIGNING] == [ring.signing(now)]


@given(RINGS, MOMENTS)
def test_every_key_but_the_expired_verifies(ring: Keyring, now: float) -> None:
    expected = [key for key in ring.keys if ring.state(key, now) is not State.EXPIRED]

    assert list(ring.verifying(now)) == expected
    assert ring.signing(now) in expected


@given(RINGS, MOMENTS, st.sampled_from([0, 0.25, 0.5, 1]))
def test_a_key_verifies_until_the_last_thing_it_signed_is_dead(
    ring: Keyring, signed: float, part: float
) -> None:
    assert ring.signing(signed) in ring.verifying(signed + part * ring.retention)


@given(RINGS, MOMENTS)
def test_a_key_is_dead_once_a_newer_one_has_signed_for_the_retention(ring: Keyring, now: float) -> None:
    for place, key in enumerate(ring.keys):
        starts = [newer.signs_from for newer in ring.keys[:place] if newer.signs_from is not None]
        replaced = any(start + ring.retention <= now for start in starts)
        assert not (replaced and key in ring.verifying(now))


@given(RINGS, MOMENTS)
def test_a_key_that_will_sign_verifies_already(ring: Keyring, now: float) -> None:
    to_come = {ring.signing(later) for later in range(int(now) + 1, END)} | {ring.signing(now)}

    assert to_come <= set(ring.verifying(now))


@given(RINGS, MOMENTS, MOMENTS)
def test_a_state_only_moves_forward(ring: Keyring, one: float, other: float) -> None:
    order = list(State)
    for key in ring.keys:
        before, after = (order.index(ring.state(key, now)) for now in sorted((one, other)))
        assert before <= after


@given(RINGS, MOMENTS)
def test_the_next_change_is_the_next_moment_at_which_a_state_changes(ring: Keyring, now: float) -> None:
    current = states(ring, now)
    later = (at for at in range(-10, END + 1) if at > now and states(ring, at) != current)

    assert ring.next_change(now) == next(later, None)


@given(RINGS, MOMENTS)
def test_nothing_changes_before_the_next_change(ring: Keyring, now: float) -> None:
    change = ring.next_change(now)
    just_before = END if change is None else max(now, change - 1 / 16)

    assert states(ring, just_before) == states(ring, now)


def test_the_states_of_a_rotation() -> None:
    old, new = Key("old", 0), Key("new", 5000)
    ring = Keyring((old, new), retention=1000)

    assert [states(ring, now) for now in (0, 4999, 5000, 5999, 6000)] == [
        [State.UPCOMING, State.SIGNING],
        [State.UPCOMING, State.SIGNING],
        [State.SIGNING, State.RETIRED],
        [State.SIGNING, State.RETIRED],
        [State.SIGNING, State.EXPIRED],
    ]


def test_the_oldest_key_signs_where_no_key_s_time_has_come() -> None:
    ring = ring_of([300, 200, 100])

    assert ring.signing(0) == ring.keys[-1]
    assert states(ring, 0) == [State.UPCOMING, State.UPCOMING, State.SIGNING]


def test_a_foreign_key_counts_as_older_than_every_minted_one() -> None:
    assert [key.signs_from for key in ring_of([None, 100, None, 200]).keys] == [200, 100, None, None]


def test_a_key_replaced_by_a_foreign_one_verifies_until_it_is_taken_out() -> None:
    ring = ring_of([None, None])

    assert ring.verifies_until(ring.keys[1]) is None
    assert states(ring, 10**12) == [State.SIGNING, State.RETIRED]


def test_a_ring_has_a_key_and_is_never_changed() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        Keyring(())
    with pytest.raises(FrozenInstanceError):
        ring_of([0]).retention = 1  # type: ignore[misc]


def test_a_rotation_adds_a_key_and_drops_those_that_expired_a_lead_ago() -> None:
    ring = ring_of([5000, 0], retention=1000)
    new = Key("new", 100_000)

    assert ring.rotated(new, now=6000 + LEAD).keys == (new, ring.keys[0])
    assert ring.rotated(new, now=6000 + LEAD - 1).keys == (new, *ring.keys)


def test_a_rotation_keeps_the_retention() -> None:
    assert ring_of([0], retention=1000).rotated(Key("new", 5000), now=0).retention == 1000


@pytest.mark.parametrize("now", [4000, 4999.9, 5000])
def test_a_rotation_under_way_refuses_another_and_says_until_when(now: float) -> None:
    with pytest.raises(RotationUnderWay, match=r"^a rotation is under way$") as caught:
        ring_of([5000, 0]).rotated(Key("new", 5000), now)

    assert caught.value.signs_from == 5000


def test_a_rotation_is_over_in_the_second_in_which_its_key_signs() -> None:
    assert ring_of([5000, 0]).rotated(Key("new", 5001), now=5000).keys[0] == Key("new", 5001)


def judged(*texts: str) -> Keyring:
    return judge_ring([(f"place {n}", text) for n, text in enumerate(texts, 1)], b"", "mend it")


def problems(*texts: str) -> tuple[str, ...]:
    with pytest.raises(RingRefused) as caught:
        judged(*texts)
    assert str(caught.value) == "; ".join(caught.value.problems)
    return caught.value.problems


FOREIGN = "kIx3v9_Qm7-aZ0yR2tW5uB8cD1eF4gH6jL"
OLD, NEW, NEWEST = (mint(start).text for start in (1_700_000_000, 1_800_000_000, 1_900_000_000))


def test_a_ring_newest_first_is_accepted_with_foreign_keys_anywhere_but_before_a_minted_first_key() -> None:
    assert [key.text for key in judged(NEW).keys] == [NEW]
    assert [key.text for key in judged(NEW, OLD, FOREIGN).keys] == [NEW, OLD, FOREIGN]
    assert [key.text for key in judged(NEWEST, FOREIGN, OLD, NEW).keys] == [NEWEST, NEW, OLD, FOREIGN]
    assert [key.text for key in judged(FOREIGN, FOREIGN[::-1]).keys] == [FOREIGN, FOREIGN[::-1]]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([""], ["place 1 is missing or empty; mend it"]),
        ([NEW, ""], ["place 2 is missing or empty; take it out of the ring"]),
        ([NEW, OLD, NEW], ["place 3 repeats an earlier key; take it out of the ring"]),
        ([NEW, NEWEST], ["place 2 is newer than the first key; put the newest first"]),
        ([FOREIGN, NEW], ["place 2 is newer than the first key; put the newest first"]),
        ([f" {NEW}"], ["place 1 begins or ends with white space; take that away"]),
        (
            ["short", NEW, "short", OLD[:-1]],
            [
                "place 1 is too short: 5 of at least 32 characters; mend it",
                "place 3 is too short: 5 of at least 32 characters; take it out of the ring",
                "place 4 is damaged: its checksum does not match; copy the whole key again",
            ],
        ),
    ],
)
def test_a_ring_is_refused_with_every_problem_and_its_remedy(texts: list[str], expected: list[str]) -> None:
    assert list(problems(*texts)) == expected


@dataclass(frozen=True)
class Instance:
    """One process of a fleet: how far its clock is off, how long it takes to get a new ring (seconds)."""

    skew: int
    delay: int


class Fleet:
    """Instances that share a ring, each with its own clock and its own moment of seeing a change."""

    def __init__(self, instances: Sequence[Instance], ring: Keyring) -> None:
        self.instances = instances
        self.history = [(-(10**9), ring)]

    def rotate(self, at: int, by: Instance, lead: int) -> None:
        """One rotation at the moment `at`, by the clock of `by`."""
        now = at + by.skew
        ring = self.history[-1][1].rotated(Key(f"key {len(self.history)}", now + lead), now)
        self.history.append((at, ring))

    def seen(self, by: Instance, at: int) -> Keyring:
        """The ring as `by` has it."""
        return next(ring for since, ring in reversed(self.history) if since + by.delay <= at)

    def turning_points(self, member: Instance) -> set[int]:
        """The moments at which something changes for `member`, and the second before each."""
        starts = {key.signs_from or 0 for _, ring in self.history for key in ring.keys}
        retention = self.history[0][1].retention
        points = {since + member.delay for since, _ in self.history[1:]}
        points |= {start + later - member.skew for start in starts for later in (0, retention)}
        return points | {point - 1 for point in points}

    def losses(self, signer: Instance, verifier: Instance) -> Iterator[tuple[int, int]]:
        """When `signer` signed, and when `verifier` refused it, although by its clock it was still alive."""
        for signed in self.turning_points(signer):
            key = self.seen(signer, signed).signing(signed + signer.skew)
            dies = signed + signer.skew + self.history[0][1].retention - verifier.skew
            for at in self.turning_points(verifier) | {signed, dies}:
                alive = signed <= at <= dies
                if alive and key not in self.seen(verifier, at).verifying(at + verifier.skew):
                    yield signed, at


@st.composite
def fleets_in_time(draw: st.DrawFn) -> list[Instance]:
    """Instances of which clocks and delays together differ by less than the lead."""
    spread = draw(st.integers(0, LEAD - 1))
    member = st.builds(Instance, st.integers(0, spread), st.integers(0, LEAD - 1 - spread))
    return draw(st.lists(member, min_size=2, max_size=3))


def all_losses(fleet: Fleet) -> list[tuple[int, int]]:
    return [
        loss
        for signer in fleet.instances
        for verifier in fleet.instances
        for loss in fleet.losses(signer, verifier)
    ]


@given(fleets_in_time(), st.data())
def test_a_key_added_in_time_never_invalidates_what_any_instance_has_signed(
    instances: list[Instance], data: st.DataObject
) -> None:
    fleet = Fleet(instances, ring_of([0], retention=3 * LEAD))
    gaps = st.sampled_from([LEAD, 4 * LEAD]) | st.integers(LEAD, 5 * LEAD)
    at = 0
    for gap in data.draw(st.lists(gaps, min_size=1, max_size=3)):
        at += gap
        with suppress(RotationUnderWay):
            fleet.rotate(at, data.draw(st.sampled_from(instances)), LEAD)

    assert all_losses(fleet) == []


@pytest.mark.parametrize(
    ("instances", "lead"),
    [
        ([Instance(skew=0, delay=0), Instance(skew=0, delay=10)], 0),
        ([Instance(skew=0, delay=0), Instance(skew=0, delay=LEAD + 1)], LEAD),
        ([Instance(skew=0, delay=LEAD // 2), Instance(skew=LEAD, delay=LEAD // 2)], LEAD),
    ],
    ids=["a swap at once", "a ring that comes too late", "clocks too far apart"],
)
def test_a_key_that_signs_before_every_instance_has_it_does_lose_sessions(
    instances: list[Instance], lead: int
) -> None:
    fleet = Fleet(instances, ring_of([0]))
    fleet.rotate(10 * LEAD, instances[0], lead)

    assert all_losses(fleet)
