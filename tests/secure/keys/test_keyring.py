"""The keyring: which key signs and which verify, from the keys and a moment alone."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import FrozenInstanceError, dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secure.keys.key import Key, generate_key
from secure.keys.keyring import (
    ACTIVATION_DELAY,
    MAX_KEYS,
    RETENTION,
    InvalidKeyringError,
    Keyring,
    NothingToCancelError,
    RotationInProgressError,
    State,
    validate_keyring,
)

END = 200
"""After this moment nothing changes in any of the random keyrings."""

NOW = 1_800_000_000
YEAR_9999 = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())


def keyring_of(starts: Sequence[int | None], retention: int = RETENTION) -> Keyring:
    return Keyring(tuple(Key(f"key {n}", start) for n, start in enumerate(starts)), retention)


KEYRINGS = st.builds(keyring_of, st.lists(st.none() | st.integers(0, 100), min_size=1, max_size=6), st.integers(1, 60))
MOMENTS = st.integers(-80, 8 * END).map(lambda eighths: eighths / 8)


def states(keyring: Keyring, now: float) -> list[State]:
    return [keyring.state(key, now) for key in keyring.keys]


@given(KEYRINGS, MOMENTS)
def test_one_key_signs(keyring: Keyring, now: float) -> None:
    assert [key for key in keyring.keys if keyring.state(key, now) is State.SIGNING] == [keyring.signing(now)]


@given(KEYRINGS, MOMENTS)
def test_all_but_expired_verify(keyring: Keyring, now: float) -> None:
    expected = [key for key in keyring.keys if keyring.state(key, now) is not State.EXPIRED]

    assert list(keyring.verifying(now)) == expected
    assert keyring.signing(now) in expected


@given(KEYRINGS, MOMENTS, st.sampled_from([0, 0.25, 0.5, 1]))
def test_verifies_what_it_signed(keyring: Keyring, signed: float, part: float) -> None:
    assert keyring.signing(signed) in keyring.verifying(signed + part * keyring.retention)


@given(KEYRINGS, MOMENTS)
def test_expires_after_retention(keyring: Keyring, now: float) -> None:
    for place, key in enumerate(keyring.keys):
        starts = [newer.activation for newer in keyring.keys[:place] if newer.activation is not None]
        replaced = any(start + keyring.retention <= now for start in starts)
        assert not (replaced and key in keyring.verifying(now))


@given(KEYRINGS, MOMENTS)
def test_future_signers_verify(keyring: Keyring, now: float) -> None:
    to_come = {keyring.signing(later) for later in range(int(now) + 1, END)} | {keyring.signing(now)}

    assert to_come <= set(keyring.verifying(now))


@given(KEYRINGS, MOMENTS, MOMENTS)
def test_states_move_forward(keyring: Keyring, one: float, other: float) -> None:
    order = list(State)
    for key in keyring.keys:
        before, after = (order.index(keyring.state(key, now)) for now in sorted((one, other)))
        assert before <= after


@given(KEYRINGS, MOMENTS)
def test_next_change(keyring: Keyring, now: float) -> None:
    current = states(keyring, now)
    later = (at for at in range(-10, END + 1) if at > now and states(keyring, at) != current)

    assert keyring.next_change(now) == next(later, None)


@given(KEYRINGS, MOMENTS)
def test_nothing_before_next_change(keyring: Keyring, now: float) -> None:
    change = keyring.next_change(now)
    just_before = END if change is None else max(now, change - 1 / 16)

    assert states(keyring, just_before) == states(keyring, now)


def test_states_of_a_rotation() -> None:
    old, new = Key("old", 0), Key("new", 5000)
    keyring = Keyring((old, new), retention=1000)

    assert [states(keyring, now) for now in (0, 4999, 5000, 5999, 6000)] == [
        [State.UPCOMING, State.SIGNING],
        [State.UPCOMING, State.SIGNING],
        [State.SIGNING, State.RETIRED],
        [State.SIGNING, State.RETIRED],
        [State.SIGNING, State.EXPIRED],
    ]


def test_oldest_signs_if_none_is_activated() -> None:
    keyring = keyring_of([300, 200, 100])

    assert keyring.signing(0) == keyring.keys[-1]
    assert states(keyring, 0) == [State.UPCOMING, State.UPCOMING, State.SIGNING]


def test_foreign_key_is_oldest() -> None:
    assert [key.activation for key in keyring_of([None, 100, None, 200]).keys] == [200, 100, None, None]


def test_replaced_by_foreign_key() -> None:
    keyring = keyring_of([None, None])

    assert keyring.verifies_until(keyring.keys[1]) is None
    assert states(keyring, 10**12) == [State.SIGNING, State.RETIRED]


def test_immutable_and_not_empty() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        Keyring(())
    with pytest.raises(FrozenInstanceError):
        keyring_of([0]).retention = 1  # type: ignore[misc]


def test_rotation_drops_expired() -> None:
    keyring = keyring_of([5000, 0], retention=1000)
    new = Key("new", 100_000)

    assert keyring.with_new_key(new, now=6000 + ACTIVATION_DELAY).keys == (new, keyring.keys[0])
    assert keyring.with_new_key(new, now=6000 + ACTIVATION_DELAY - 1).keys == (new, *keyring.keys)


def test_rotation_keeps_retention() -> None:
    assert keyring_of([0], retention=1000).with_new_key(Key("new", 5000), now=0).retention == 1000


@pytest.mark.parametrize("now", [4000, 4999.9, 5000])
def test_rotation_in_progress(now: float) -> None:
    with pytest.raises(RotationInProgressError, match=r"^a rotation is in progress$") as caught:
        keyring_of([5000, 0]).with_new_key(Key("new", 5000), now)

    assert caught.value.activation == 5000


def test_rotation_is_over_when_key_signs() -> None:
    assert keyring_of([5000, 0]).with_new_key(Key("new", 5001), now=5000).keys[0] == Key("new", 5001)


def test_without_upcoming() -> None:
    """`cancel` removes the keys that have not signed, and never the signing key."""
    keyring = keyring_of([9000, 5000, 1000, 0], retention=10_000)

    assert keyring.without_upcoming(5000).keys == keyring.keys[1:]
    assert keyring.without_upcoming(4999).keys == keyring.keys[2:]
    assert keyring.without_upcoming(4999).retention == 10_000


@pytest.mark.parametrize("starts", [[0], [5000, 0], [None], [YEAR_9999]])
def test_nothing_to_cancel(starts: list[int | None]) -> None:
    with pytest.raises(NothingToCancelError, match=r"^no key is waiting to sign$"):
        keyring_of(starts).without_upcoming(5000)


@given(KEYRINGS, MOMENTS)
def test_cancel_logs_nobody_out(keyring: Keyring, now: float) -> None:
    with suppress(NothingToCancelError):
        after = keyring.without_upcoming(now)
        assert after.signing(now) == keyring.signing(now)
        assert all(key.activation is None or key.activation > now for key in set(keyring.keys) - set(after.keys))


def test_far_future() -> None:
    """Keys that a wrong clock has dated: no rotation waits longer than the retention."""
    keyring = keyring_of([YEAR_9999, 2001, 2000, 0, None], retention=1000)

    assert [key.activation for key in keyring.far_future(1000)] == [YEAR_9999, 2001]
    assert keyring.far_future(YEAR_9999) == ()


def test_rotation_removes_far_future_key() -> None:
    keyring = keyring_of([YEAR_9999, 0])
    now = NOW

    after = keyring.with_new_key(Key("new", now), now)

    assert after.keys == (Key("new", now), keyring.keys[1])
    assert after.signing(now) == Key("new", now)


def test_far_future_key_that_signs_is_kept() -> None:
    """The only key was generated by a wrong clock, and sessions carry its signature."""
    keyring = keyring_of([YEAR_9999])
    (wrong,) = keyring.keys
    assert keyring.signing(NOW) == wrong

    after = keyring.with_new_key(Key("new", NOW), NOW)

    assert states(after, NOW) == [State.UPCOMING, State.SIGNING]
    assert set(after.verifying(NOW)) == {wrong, Key("new", NOW)}
    assert after.far_future(NOW) == (wrong,), "status still fails"
    later = NOW + RETENTION
    assert after.without_upcoming(later).keys == (Key("new", NOW),)
    assert after.with_new_key(Key("newer", later), later).keys == (Key("newer", later), Key("new", NOW))


def test_only_the_signing_far_future_key_is_kept() -> None:
    keyring = keyring_of([YEAR_9999, YEAR_9999 - 1, YEAR_9999 - 2])

    after = keyring.with_new_key(Key("new", NOW), NOW)

    assert after.keys == (keyring.keys[-1], Key("new", NOW))


def test_near_rotation_counts_with_a_far_future_key() -> None:
    with pytest.raises(RotationInProgressError) as caught:
        keyring_of([YEAR_9999, NOW + 60, 0]).with_new_key(Key("new", NOW), NOW)

    assert caught.value.activation == NOW + 60


@given(
    st.builds(keyring_of, st.lists(st.none() | st.integers(0, YEAR_9999), min_size=1, max_size=5), st.integers(1, 60)),
    st.integers(0, YEAR_9999),
)
def test_rotation_now_logs_nobody_out(keyring: Keyring, now: int) -> None:
    """The key that signed until now still verifies, and the new one signs."""
    with suppress(RotationInProgressError):
        after = keyring.with_new_key(Key("new", now), now)
        assert after.signing(now) == Key("new", now)
        assert keyring.signing(now) in after.verifying(now)


@pytest.mark.parametrize("starts", [[YEAR_9999], [YEAR_9999, 0], [YEAR_9999, YEAR_9999 - 1, None]])
@pytest.mark.parametrize("now", [0, NOW, YEAR_9999, YEAR_9999 + 1])
def test_year_9999(starts: list[int | None], now: int) -> None:
    keyring = keyring_of(starts)

    assert len(states(keyring, now)) == len(starts)
    assert keyring.summary(now)
    assert all(until is None or until > YEAR_9999 for until in map(keyring.verifies_until, keyring.keys[1:]))
    change = keyring.next_change(now)
    assert change is None or change > now


def validated(*texts: str) -> Keyring:
    return validate_keyring([(f"place {n}", text) for n, text in enumerate(texts, 1)], b"", "replace it")


def problems(*texts: str) -> tuple[str, ...]:
    with pytest.raises(InvalidKeyringError) as caught:
        validated(*texts)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


FOREIGN = "kIx3v9_Qm7-aZ0yR2tW5uB8cD1eF4gH6jL"
OLD, NEW, NEWEST = (generate_key(start).text for start in (1_700_000_000, 1_800_000_000, 1_900_000_000))
SHORT = "is too short: 5 of at least 32 characters"


def test_valid_keyrings() -> None:
    """Newest first; a foreign key may be anywhere but before a generated first key."""
    assert [key.text for key in validated(NEW).keys] == [NEW]
    assert [key.text for key in validated(NEW, OLD, FOREIGN).keys] == [NEW, OLD, FOREIGN]
    assert [key.text for key in validated(NEWEST, FOREIGN, OLD, NEW).keys] == [NEWEST, NEW, OLD, FOREIGN]
    assert [key.text for key in validated(FOREIGN, FOREIGN[::-1]).keys] == [FOREIGN, FOREIGN[::-1]]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([""], ["place 1: is missing or empty\nhint: replace it"]),
        ([NEW, ""], ["place 2: is missing or empty\nhint: remove it from the keyring"]),
        ([NEW, OLD, NEW], ["place 3: repeats an earlier key\nhint: remove it from the keyring"]),
        ([NEW, NEWEST], ["place 2: is newer than the first key\nhint: put the newest key first"]),
        ([FOREIGN, NEW], ["place 2: is newer than the first key\nhint: put the newest key first"]),
        ([f"{NEW}\n"], ["place 1: ends with a line break\nhint: remove it and keep the rest"]),
        ([f"\ufeff{NEW}"], ["place 1: begins with a byte order mark\nhint: remove it and keep the rest"]),
        (["# newest", NEW], ["place 1: is a comment\nhint: remove the comment line"]),
        (
            ["short", NEW, "short", OLD[:-1]],
            [
                f"place 1: {SHORT}\nhint: replace it",
                f"place 3: {SHORT}\nhint: remove it from the keyring",
                "place 4: is damaged: its checksum does not match\nhint: copy the whole key again",
            ],
        ),
    ],
)
def test_problems(texts: list[str], expected: list[str]) -> None:
    assert list(problems(*texts)) == expected


def test_at_most_ten_problems() -> None:
    found = problems(NEW, *["short"] * 12, OLD)

    assert found[:10] == tuple(f"place {n}: {SHORT}\nhint: remove it from the keyring" for n in range(2, 12))
    assert found[10:] == ("3 more entries are not checked",)


@pytest.mark.parametrize(
    "texts",
    [["x" * 40] * 3000, [generate_key(n).text for n in range(3000)], ["junk"] * 200_000, ["key" * 400_000] * 3],
    ids=["3,000 bad keys", "3,000 good keys", "1 MB of short lines", "3 MB in three lines"],
)
def test_message_of_junk_is_short(texts: list[str]) -> None:
    assert sum(map(len, problems(*texts))) < 2000


def test_too_many_entries() -> None:
    keys = [generate_key(n).text for n in range(MAX_KEYS + 1)][::-1]

    assert len(validated(*keys[1:]).keys) == MAX_KEYS
    assert problems(*keys) == (
        "keyring: has 101 entries; the limit is 100\nhint: check that it has one key per line, and no other text",
    )


@dataclass(frozen=True)
class Instance:
    """One process of a fleet: how far its clock is off, how long it takes to get a new keyring (seconds)."""

    skew: int
    delay: int


class Fleet:
    """Instances that share a keyring, each with its own clock and its own moment of seeing a change."""

    def __init__(self, instances: Sequence[Instance], keyring: Keyring) -> None:
        self.instances = instances
        self.history = [(-(10**9), keyring)]

    def rotate(self, at: int, by: Instance, lead: int) -> None:
        """One rotation at the moment `at`, by the clock of `by`."""
        now = at + by.skew
        keyring = self.history[-1][1].with_new_key(Key(f"key {len(self.history)}", now + lead), now)
        self.history.append((at, keyring))

    def seen(self, by: Instance, at: int) -> Keyring:
        """The keyring as `by` has it."""
        return next(keyring for since, keyring in reversed(self.history) if since + by.delay <= at)

    def turning_points(self, member: Instance) -> set[int]:
        """The moments at which something changes for `member`, and the second before each."""
        starts = {key.activation or 0 for _, keyring in self.history for key in keyring.keys}
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
    spread = draw(st.integers(0, ACTIVATION_DELAY - 1))
    member = st.builds(Instance, st.integers(0, spread), st.integers(0, ACTIVATION_DELAY - 1 - spread))
    return draw(st.lists(member, min_size=2, max_size=3))


def all_losses(fleet: Fleet) -> list[tuple[int, int]]:
    return [
        loss for signer in fleet.instances for verifier in fleet.instances for loss in fleet.losses(signer, verifier)
    ]


@given(fleets_in_time(), st.data())
def test_fleet_loses_nothing(instances: list[Instance], data: st.DataObject) -> None:
    fleet = Fleet(instances, keyring_of([0], retention=3 * ACTIVATION_DELAY))
    gaps = st.sampled_from([ACTIVATION_DELAY, 4 * ACTIVATION_DELAY]) | st.integers(
        ACTIVATION_DELAY, 5 * ACTIVATION_DELAY
    )
    at = 0
    for gap in data.draw(st.lists(gaps, min_size=1, max_size=3)):
        at += gap
        with suppress(RotationInProgressError):
            fleet.rotate(at, data.draw(st.sampled_from(instances)), ACTIVATION_DELAY)

    assert all_losses(fleet) == []


@pytest.mark.parametrize(
    ("instances", "lead"),
    [
        ([Instance(skew=0, delay=0), Instance(skew=0, delay=10)], 0),
        ([Instance(skew=0, delay=0), Instance(skew=0, delay=ACTIVATION_DELAY + 1)], ACTIVATION_DELAY),
        (
            [
                Instance(skew=0, delay=ACTIVATION_DELAY // 2),
                Instance(skew=ACTIVATION_DELAY, delay=ACTIVATION_DELAY // 2),
            ],
            ACTIVATION_DELAY,
        ),
    ],
    ids=["a swap at once", "a keyring that comes too late", "clocks too far apart"],
)
def test_fleet_loses_sessions(instances: list[Instance], lead: int) -> None:
    fleet = Fleet(instances, keyring_of([0]))
    fleet.rotate(10 * ACTIVATION_DELAY, instances[0], lead)

    assert all_losses(fleet)
