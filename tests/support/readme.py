"""The commands that a README tells its readers to run."""

import re
from pathlib import Path

from baking import PROJECT, TEMPLATE

OF_TEMPLATE = TEMPLATE / "README.md"
OF_PROJECT = PROJECT / "README.md"
DEPLOY = PROJECT / "docs" / "deploy.md"


def blocks(readme: Path) -> list[list[str]]:
    """Return its commands, a list for each block."""
    found = re.findall(r"^```sh\n(.*?)^```$", readme.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [block.splitlines() for block in found]


def block(after: str) -> str:
    """Return the lines of the first block behind a comment of docs/deploy.md."""
    found = re.search(rf"<!-- {re.escape(after)} -->\n```\w+\n(.*?)```", DEPLOY.read_text("utf-8"), re.DOTALL)
    assert found, after
    return found[1]


def cell(section: str, label: str) -> list[str]:
    """Return the code in the row that begins with a label, in a section of docs/deploy.md."""
    text = DEPLOY.read_text("utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    [row] = re.findall(rf"^\| {re.escape(label)} \|(.*)\|$", text, re.MULTILINE)
    return re.findall(r"`([^`]+)`", row.replace(r"\|", "|"))
