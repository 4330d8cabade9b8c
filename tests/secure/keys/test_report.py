"""What the commands show of a keyring."""

import pytest
from secure.keys import report
from secure.keys.key import Key, generate_key
from secure.keys.keyring import Keyring

NOW = 1_800_000_000
DAY = 86400
OLD, NEW, FAR, FARTHER = (generate_key(NOW + days * DAY) for days in (-3, 1, 1000, 2000))


@pytest.mark.parametrize(
    ("keys", "hint"),
    [
        ((NEW, OLD), ""),
        ((FAR, OLD), "from 2027-01-19 08:00:00 UTC on: flask secret-key cancel"),
        ((FAR, generate_key(NOW - 7 * DAY)), "flask secret-key cancel"),
        ((FAR, generate_key(NOW - 7 * DAY + 1)), "from 2027-01-15 08:00:01 UTC on: flask secret-key cancel"),
        ((FAR, Key("foreign")), "flask secret-key cancel"),
        ((FARTHER, FAR, Key("foreign")), "flask secret-key cancel"),
        ((FAR,), "flask secret-key rotate --now"),
        ((FARTHER, FAR), "flask secret-key rotate --now"),
    ],
)
def test_far_future(keys: tuple[Key, ...], hint: str) -> None:
    """A key that may have signed alone is kept until everything that it signed has expired."""
    reason, told = report.far_future(Keyring(keys), NOW)

    assert told == (f"check the clock of this machine, then run: {hint}" if hint else "")
    assert reason.startswith("it signs only from 20" if hint else "")
    assert bool(reason) is bool(hint)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0, "1970-01-01 00:00:00 UTC"),
        (NOW, "2027-01-15 08:00:00 UTC"),
        (253402300799, "9999-12-31 23:59:59 UTC"),
        (253402300800, "after the year 9999"),
    ],
)
def test_time(at: int, text: str) -> None:
    assert report.time(at) == text


def test_time_and_wait() -> None:
    assert report.time_and_wait(NOW + 90, NOW) == "2027-01-15 08:01:30 UTC (in 1 min 30 s)"
    for at in (NOW, NOW - 5):
        assert report.time_and_wait(at, NOW).endswith("(now)")


def test_rotation_that_keeps_a_far_future_key() -> None:
    """The new key is not the newest."""
    before = Keyring((FAR,))
    new = generate_key(NOW)
    told = report.rotation(before, Keyring((FAR, new)), NOW, redeploy=False)

    assert told.startswith(f"The new key {new.fingerprint} verifies now")
    assert f"The old key {FAR.fingerprint} verifies until" in told
