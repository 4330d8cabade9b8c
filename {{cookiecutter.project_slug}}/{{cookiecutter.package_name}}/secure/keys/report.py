"""What the commands show of a keyring. Pure: no file, no clock; a key is shown as its fingerprint."""

import json
from datetime import UTC, datetime, timedelta

from .keyring import Keyring, State
from .sources import Source
from .text import format_duration


def rotation(before: Keyring, after: Keyring, now: int, redeploy: bool) -> str:
    """Return what a rotation has done, and what is left to do: `redeploy` if the keyring is in variables."""
    new = next(key for key in after.keys if key not in before.keys)
    at = new.activation or now
    return (
        f"The new key {new.fingerprint} verifies now and signs from {time_and_wait(at, now)}.\n"
        f"The old key {before.signing(now).fingerprint} {'signs until then and ' * (at > now)}"
        f"verifies until {time_and_wait(at + after.retention, now)}.\n"
        + ("Redeploy every instance before the new key signs." if redeploy else "Running apps reload the file.")
    )


def table(keyring: Keyring, source: Source, now: int) -> str:
    """Return a line for each key, newest first."""
    rows = [("FINGERPRINT", "STATE", "SIGNS FROM", "VERIFIES UNTIL", "SOURCE")]
    for key in keyring.keys:
        state = keyring.state(key, now)
        since = "unknown (foreign)" if key.activation is None else time(key.activation)
        until = keyring.verifies_until(key)
        end = "" if state is State.EXPIRED else "no end yet" if until is None else time(until)
        rows.append((key.fingerprint, state.value, since, end, repr(source)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if change := keyring.next_change(now):
        lines.append(f"Next change: {time_and_wait(change, now)}.")
    return "\n".join(lines)


def as_json(keyring: Keyring, source: Source, now: int) -> str:
    """Return the same as `table` in JSON; times in epoch seconds, and a null path for the process environment."""
    rows = [
        {
            "fingerprint": key.fingerprint,
            "state": keyring.state(key, now).value,
            "signs_from": key.activation,
            "verifies_until": keyring.verifies_until(key),
        }
        for key in keyring.keys
    ]
    return json.dumps({"path": source.path, "retention_seconds": keyring.retention, "keys": rows}, indent=2)


def far_future(keyring: Keyring, now: int) -> tuple[str, str]:
    """Return what is wrong with a key that a wrong clock has dated, and how to remove it; ("", "") if there is none."""
    wrong = keyring.far_future(now)
    if not wrong:
        return "", ""
    hint, oldest = "flask secret-key cancel", keyring.keys[-1]
    if keyring.signing(now) in wrong:
        hint = "flask secret-key rotate --now"
    elif oldest.activation is not None and oldest.activation + keyring.retention > now:
        # It may have signed alone until then. `rotate` keeps such a key, for the sessions that it signed.
        hint = f"from {time(oldest.activation + keyring.retention)} on: {hint}"
    return f"it signs only from {time(wrong[0].activation)}", f"check the clock of this machine, then run: {hint}"


def too_old(keyring: Keyring, now: int, max_age: int) -> str:
    """Return how old the signing key is if that is more than `max_age` seconds, or unknown; else ""."""
    since = keyring.signing(now).activation
    if since is None:
        return "of unknown age"
    return f"{format_duration(now - since)} old" if now - since > max_age else ""


def time_and_wait(at: int, now: int) -> str:
    """Return a time and how long it is until then."""
    return f"{time(at)} (in {format_duration(at - now)})" if at > now else f"{time(at)} (now)"


def time(at: int | None) -> str:
    """Return a time as people read it; beyond the year 9999 there is no date."""
    try:
        return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at or 0):%Y-%m-%d %H:%M:%S} UTC"
    except OverflowError:
        return "after the year 9999"
