"""The keyring: which key signs and which verify, computed from the keys and a moment alone.

    upcoming   verifies, does not sign yet      t < activation
    signing    signs and verifies               the newest activated key; the oldest if none is activated
    retired    verifies                         until everything that it signed has expired
    expired    neither

A rotation adds one key that signs ACTIVATION_DELAY seconds later, when every instance has it; time does the rest.
Prior art: ASP.NET Core Data Protection (a new key waits two days), guardian/play-secret-rotation, and Werkzeug issue 31
of 2011. NIST SP 800-57 part 1 has no state that verifies before it signs.

A clock that is wrong for a while can leave a key dated far in the future. It must not block rotations for decades: a
rotation removes it. If it is the only key, it signs. Then a rotation adds a key that signs at once and keeps the other
as an upcoming key: what it signed stays valid. `cancel` removes it, once that has expired.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from .key import InvalidKeyError, Key, validate_key
from .text import message

ACTIVATION_DELAY = 3600
"""Seconds from a rotation until the new key signs: by then every instance has the new keyring."""

RETENTION = 7 * 86400
"""Seconds for which a retired key verifies by default: the longest life of anything signed."""

MAX_KEYS, MAX_PROBLEMS = 100, 10
_REMOVE = "remove it from the keyring"


class State(StrEnum):
    """What a key does at a moment; a key's state only ever moves down this list."""

    UPCOMING = "upcoming"
    SIGNING = "signing"
    RETIRED = "retired"
    EXPIRED = "expired"


class InvalidKeyringError(ValueError):
    """A keyring that must not be used; `problems` has a message for each thing that is wrong with it."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class RotationInProgressError(ValueError):
    """The keyring already has a key that does not sign yet; `activation` says when it will."""

    def __init__(self, activation: int) -> None:
        self.activation = activation
        super().__init__("a rotation is in progress")


class NothingToCancelError(ValueError):
    """Every key of the keyring has signed."""


@dataclass(frozen=True, slots=True)
class Keyring:
    """One or more keys, newest first, and the retention in seconds. At every moment exactly one key signs.

    All moments are in seconds since the epoch. Raises ValueError for a keyring with no key.
    """

    keys: tuple[Key, ...]
    retention: int = RETENTION

    def __post_init__(self) -> None:
        if not self.keys:
            raise ValueError("a keyring has at least one key")
        object.__setattr__(self, "keys", tuple(sorted(self.keys, key=_age, reverse=True)))

    def signing(self, now: float) -> Key:
        """Return the newest activated key; the oldest if none is activated."""
        return next((key for key in self.keys if _age(key) <= now), self.keys[-1])

    def verifying(self, now: float) -> tuple[Key, ...]:
        """Return all keys that verify, the signing key among them, newest first."""
        return tuple(key for key in self.keys if self.state(key, now) is not State.EXPIRED)

    def state(self, key: Key, now: float) -> State:
        """Return the one state of `key`, a key of this keyring."""
        signing = self.signing(now)
        if key == signing:
            return State.SIGNING
        if self.keys.index(key) < self.keys.index(signing):
            return State.UPCOMING
        until = self.verifies_until(key)
        return State.RETIRED if until is None or now < until else State.EXPIRED

    def verifies_until(self, key: Key) -> int | None:
        """Return when `key` expires; None where it is the newest or all newer keys are foreign."""
        newer = self.keys[: self.keys.index(key)]
        starts = [other.activation for other in newer if other.activation is not None]
        return min(starts) + self.retention if starts else None

    def next_change(self, now: float) -> int | None:
        """Return the next moment at which the state of a key changes, if there is one."""
        changes = [key.activation for key in self.keys[:-1]] + [self.verifies_until(key) for key in self.keys]
        return min((at for at in changes if at is not None and at > now), default=None)

    def summary(self, now: float) -> str:
        """Return the fingerprint and the state of each key, newest first."""
        return ", ".join(f"{key.fingerprint} {self.state(key, now)}" for key in self.keys)

    def far_future(self, now: float) -> tuple[Key, ...]:
        """Return the keys that a wrong clock has dated: no rotation waits longer than the retention."""
        return tuple(key for key in self.keys if _age(key) > now + self.retention)

    def with_new_key(self, new: Key, now: float) -> "Keyring":
        """Return the keyring with `new`, without the keys of the far future that do not sign now, and the expired ones.

        An instance whose clock is behind may need an expired key for another ACTIVATION_DELAY seconds. Raises
        RotationInProgressError if another key does not sign yet, or signs only from the activation of `new` on.
        """
        wrong = self.far_future(now)
        newest = max((_age(key) for key in self.keys if key not in wrong), default=float("-inf"))
        if newest > now or newest >= _age(new):
            raise RotationInProgressError(int(newest))
        unused = {key for key in wrong if key != self.signing(now)}
        kept = (key for key in self.verifying(now - ACTIVATION_DELAY) if key not in unused)
        return Keyring((new, *kept), self.retention)

    def without_upcoming(self, now: float) -> "Keyring":
        """Return the keyring without the keys that do not sign yet. Raises NothingToCancelError if none is."""
        kept = tuple(key for key in self.keys if self.state(key, now) is not State.UPCOMING)
        if kept == self.keys:
            raise NothingToCancelError("no key is waiting to sign")
        return Keyring(kept, self.retention)


def validate_keyring(
    entries: Sequence[tuple[str, str]], leaked: bytes, hint: str, retention: int = RETENTION
) -> Keyring:
    """Return the keyring of `entries`: pairs of a place ("SECRET_KEY") and a text, newest first.

    `hint` says how to replace the first key. Raises InvalidKeyringError with the first MAX_PROBLEMS problems; none
    shows a key. At most MAX_KEYS entries are read, so that a wrong file costs neither time nor memory.
    """
    if len(entries) > MAX_KEYS:
        reason = f"has {len(entries)} entries; the limit is {MAX_KEYS}"
        raise InvalidKeyringError([message("keyring", reason, "check that it has one key per line, and no other text")])
    problems, keys = list[str](), list[Key]()
    for number, (place, text) in enumerate(entries):
        if len(problems) == MAX_PROBLEMS:
            problems.append(f"{len(entries) - number} more entries are not checked")
            break
        try:
            key = validate_key(text, leaked)
        except InvalidKeyError as error:
            problems.append(message(place, str(error), error.hint or (hint if number == 0 else _REMOVE)))
            continue
        if key in keys:
            problems.append(message(place, "repeats an earlier key", _REMOVE))
        elif keys and _age(key) > _age(keys[0]):
            problems.append(message(place, "is newer than the first key", "put the newest key first"))
        keys.append(key)
    if problems:
        raise InvalidKeyringError(problems)
    return Keyring(tuple(keys), retention)


def _age(key: Key) -> float:
    return float("-inf") if key.activation is None else key.activation
