"""The commands that a README tells its readers to run."""

import re
from pathlib import Path

from baking import PROJECT, TEMPLATE

OF_TEMPLATE = TEMPLATE / "README.md"
OF_PROJECT = PROJECT / "README.md"


def blocks(readme: Path) -> list[list[str]]:
    """Return its commands, a list for each block."""
    found = re.findall(r"^```sh\n(.*?)^```$", readme.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [block.splitlines() for block in found]
