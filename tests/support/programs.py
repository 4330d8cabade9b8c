"""Other people's programs at the versions that `programs.txt` pins, each in its own environment."""

import re
from pathlib import Path

from baking import UV

PINS = dict(re.findall(r"^([\w-]+)==(\S+)$", Path(__file__).with_name("programs.txt").read_text("utf-8"), re.M))
CALLED = {"wapiti3": "wapiti"}
"""The programs whose name differs from their distribution."""


def program(distribution: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs the program of `distribution` with `arguments`.

    `flask-unsign:python` is the Python that has the distribution.
    """
    distribution, _, called = distribution.partition(":")
    name = called or CALLED.get(distribution, distribution)
    pinned = f"{distribution}=={PINS[distribution]}"
    return (UV, "tool", "run", "--quiet", "--from", pinned, name, *arguments)
