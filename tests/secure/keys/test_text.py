"""A length of time, as settings and commands take it and as people read it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secure.keys.text import UNITS, format_duration, parse_duration

CENTURY = 100 * 365 * 86400


@given(st.integers(1, 36_500), st.sampled_from("smhd"))
def test_parse(number: int, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == number * UNITS[unit]


def test_white_space() -> None:
    assert parse_duration(" 90s\n") == 90


def test_longest() -> None:
    assert parse_duration(f"{CENTURY}s") == CENTURY


@pytest.mark.parametrize(
    "text",
    ["", "s", "90", "90 s", "1.5h", "-1h", "+1h", "1H", "1w", "1h30m", "0s", "٣s", "1h\0", f"{CENTURY + 1}s"],
)
def test_invalid(text: str) -> None:
    with pytest.raises(ValueError, match="for example 90s, 1h or 7d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (12, "12 s"),
        (60, "1 min"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (3605, "1 h"),
        (3660, "1 h 1 min"),
        (7 * 86400 - 1, "6 d 23 h"),
        (7 * 86400, "7 d"),
    ],
)
def test_format(seconds: int, shown: str) -> None:
    assert format_duration(seconds) == shown


@given(st.integers(0, CENTURY))
def test_format_rounds_down(seconds: int) -> None:
    parts = format_duration(seconds).replace("min", "m").split()
    shown = sum(int(number) * UNITS[unit] for number, unit in zip(parts[::2], parts[1::2], strict=True))

    assert shown <= seconds < shown + max(shown, 1)
