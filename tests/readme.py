"""What a README tells its readers to type."""

import re
from pathlib import Path

from conftest import PROJECT, TEMPLATE

OF_TEMPLATE = TEMPLATE / "README.md"
OF_PROJECT = PROJECT / "README.md"


def blocks(readme: Path) -> list[list[str]]:
    """Its commands, a list for each block."""
    found = re.findall(r"^```sh\n(.*?)^```$", readme.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [block.splitlines() for block in found]
