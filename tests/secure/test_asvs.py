"""The tests that `docs/asvs.md` names exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
TABLE = (TESTS.parents[1] / "docs" / "asvs.md").read_text("utf-8")


def test_rows() -> None:
    """Every row of the tables names tests that exist."""
    rows = re.findall(r"^\| \d.*$", TABLE, re.MULTILINE)
    assert len(rows) > 40
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row)
        assert named, row
        assert len(named) == row.count("::"), row
        for file, test in named:
            assert f"\ndef {test}(" in (TESTS / file).read_text("utf-8"), f"{file}::{test}"
