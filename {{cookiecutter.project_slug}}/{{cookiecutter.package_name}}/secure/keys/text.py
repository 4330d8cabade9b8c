"""Small texts: messages and their hints, lengths of time, and secrets that are not shown by accident.

The form of every message is `what failed: reason`, then `hint:` and what fixes it, on a line of its own.
"""

import re
from itertools import dropwhile, islice

from .key_format import KEY_PATTERN

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 100 * 365 * UNITS["d"]


def message(subject: str, reason: str, hint: str = "") -> str:
    """Return the text of a problem; a `hint` is a command or an instruction and never loses anything.

    A key that is there by mistake, as a file's name for example, is not shown.
    """
    text = f"{subject}: {reason}"
    return KEY_PATTERN.sub("***", f"{text}\nhint: {hint}" if hint else text)


def parse_duration(text: str) -> int:
    """Return the seconds that `text` means. Raises ValueError, with an example, for any other form."""
    match = re.fullmatch(r"([0-9]{1,12})([smhd])", text.strip())
    seconds = int(match[1]) * UNITS[match[2]] if match else 0
    if not 0 < seconds <= _LONGEST:
        raise ValueError("must be a number with a unit (s, m, h or d), for example 90s, 1h or 7d")
    return seconds


def format_duration(seconds: int) -> str:
    """Return the two largest units of a length of time, rounded down: "6 d 23 h", "59 min", "12 s"."""
    left = max(0, seconds)
    parts = [(left // 86400, "d"), (left // 3600 % 24, "h"), (left // 60 % 60, "min"), (left % 60, "s")]
    largest = islice(dropwhile(lambda part: not part[0], parts), 2)
    return " ".join(f"{count} {unit}" for count, unit in largest if count) or "0 s"


class SecretStr(str):
    """A secret's text: its `repr` hides it, so that no dump of `app.config` or of settings shows it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"
