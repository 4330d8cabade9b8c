"""Each test that `docs/asvs.md` names is there: the table does not outlive what it says."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
TABLE = (TESTS.parent / "docs" / "asvs.md").read_text("utf-8")


def test_every_row_of_the_table_names_tests_that_are_there() -> None:
    rows = re.findall(r"^\| \d.*$", TABLE, re.MULTILINE)
    assert rows
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row)
        assert named, row
        for file, test in named:
            assert f"\ndef {test}(" in (TESTS / file).read_text("utf-8"), f"{file}::{test}"
