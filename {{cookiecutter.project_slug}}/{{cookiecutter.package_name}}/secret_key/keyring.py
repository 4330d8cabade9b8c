"""The ring: which key signs and which verify, computed from the keys and a moment alone.

    upcoming   verifies, does not sign yet      t < signs_from
    signing    signs and verifies               the newest key whose time has come, else the oldest
    retired    verifies                         until what it last signed is dead
    expired    neither

(NIST SP 800-57 part 1, section 7 calls them pre-activation, active, deactivated, destroyed.)
A rotation adds one key that signs from LEAD seconds ahead; time does the rest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from .key import Key, KeyRefused, judge

LEAD = 3600
"""Seconds from a rotation until the new key signs: by then every instance has the new ring."""

RETENTION = 7 * 86400
"""Seconds for which a retired key verifies by default: the longest life of anything signed."""


TAKE_OUT = "take it out of the ring"


class State(StrEnum):
    """What a key does at a moment; a key's state only ever moves down this list."""

    UPCOMING = "upcoming"
    SIGNING = "signing"
    RETIRED = "retired"
    EXPIRED = "expired"


class RingRefused(ValueError):
    """A ring that must not be used; `problems` has a line for each thing that is wrong with it."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class RotationUnderWay(ValueError):
    """The ring already has a key that does not sign yet; `signs_from` says when it will."""

    def __init__(self, signs_from: int) -> None:
        self.signs_from = signs_from
        super().__init__("a rotation is under way")


@dataclass(frozen=True, slots=True)
class Keyring:
    """One or more keys, newest first, and the retention in seconds.

    All moments are seconds since the epoch, as `time.time()` gives them. At every moment exactly
    one key signs. Raises ValueError for a ring with no key.
    """

    keys: tuple[Key, ...]
    retention: int = RETENTION

    def __post_init__(self) -> None:
        if not self.keys:
            raise ValueError("a ring has at least one key")
        object.__setattr__(self, "keys", tuple(sorted(self.keys, key=_age, reverse=True)))

    def signing(self, now: float) -> Key:
        """The newest key whose time has come; the oldest, where none has."""
        return next((key for key in self.keys if _age(key) <= now), self.keys[-1])

    def verifying(self, now: float) -> tuple[Key, ...]:
        """All keys that verify, the signing key among them, newest first."""
        return tuple(key for key in self.keys if self.state(key, now) is not State.EXPIRED)

    def state(self, key: Key, now: float) -> State:
        """The one state of `key`, a key of this ring."""
        signing = self.signing(now)
        if key == signing:
            return State.SIGNING
        if self.keys.index(key) < self.keys.index(signing):
            return State.UPCOMING
        until = self.verifies_until(key)
        return State.RETIRED if until is None or now < until else State.EXPIRED

    def verifies_until(self, key: Key) -> int | None:
        """When `key` expires: the start of the key that took over from it, plus the retention.

        None where nobody knows when that was: `key` is the newest, or all newer keys are foreign.
        """
        newer = self.keys[: self.keys.index(key)]
        starts = [other.signs_from for other in newer if other.signs_from is not None]
        return min(starts) + self.retention if starts else None

    def next_change(self, now: float) -> int | None:
        """The next moment at which any key's state changes; None where none ever will."""
        starts = [key.signs_from for key in self.keys[:-1]]
        ends = [self.verifies_until(key) for key in self.keys]
        return min((at for at in starts + ends if at is not None and at > now), default=None)

    def described(self, now: float) -> str:
        """Each key's fingerprint and state, newest first."""
        return ", ".join(f"{key.fingerprint} {self.state(key, now)}" for key in self.keys)

    def rotated(self, new: Key, now: float) -> "Keyring":
        """The ring with `new` as its newest key and without those that expired a LEAD ago.

        Before that an instance whose clock is behind may still need them.
        Raises RotationUnderWay where the newest key does not sign yet, or signs from the same second.
        """
        newest = self.keys[0].signs_from
        if newest is not None and (newest > now or newest >= _age(new)):
            raise RotationUnderWay(newest)
        return Keyring((new, *self.verifying(now - LEAD)), self.retention)


def judge_ring(
    entries: Iterable[tuple[str, str]], leaked: bytes, remedy: str, retention: int = RETENTION
) -> Keyring:
    """The ring that `entries` describe: pairs of a place ("SECRET_KEY") and a text, newest first.

    `remedy` says how to put another key in the first one's place. Raises RingRefused with every
    problem of every key: its place, what is wrong, what mends it; none shows a key.
    """
    problems: list[str] = []
    keys: list[Key] = []
    for place, text in entries:
        first = not keys and not problems
        try:
            key = judge(text, leaked)
        except KeyRefused as refusal:
            problems.append(f"{place} {refusal}; {refusal.remedy or (remedy if first else TAKE_OUT)}")
            continue
        if key in keys:
            problems.append(f"{place} repeats an earlier key; {TAKE_OUT}")
        elif keys and _age(key) > _age(keys[0]):
            problems.append(f"{place} is newer than the first key; put the newest first")
        keys.append(key)
    if problems:
        raise RingRefused(problems)
    return Keyring(tuple(keys), retention)


def _age(key: Key) -> float:
    return float("-inf") if key.signs_from is None else key.signs_from
