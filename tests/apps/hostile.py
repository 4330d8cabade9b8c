"""A baked project with a page that does what a compromised worker might try against its master."""

import encodings.idna  # noqa: F401 - another user may not be able to read the interpreter's modules
import os
import signal
import sys
from importlib import import_module
from typing import Any

from flask import Flask
from visited import app as visited


def app() -> Flask:
    """The app of `visited`, with the page /attack."""
    made = visited()
    inherited: Any = import_module(f"{os.environ['PROJECT']}.secure.inherited")

    @made.get("/attack")
    def attack() -> dict[str, object]:
        master = os.getppid()
        dotenv, keys = inherited.last_valid
        inherited.last_valid = (dotenv, ("fsk_20200101T000000Z_" + "0" * 64 + "_00000000",))
        return {
            "keys": len(keys),
            "signal": refused(lambda: os.kill(master, signal.SIGKILL)),
            "memory": refused(lambda: open(f"/proc/{master}/mem", "r+b").close()),
            "shared": shared_with(master),
        }

    return made


def refused(attempt: object) -> bool:
    """Whether the system refuses an attempt."""
    try:
        attempt()  # type: ignore[operator]
    except OSError:
        return True
    return False


def shared_with(master: int) -> list[str]:
    """The writable shared memory of this process, apart from the file that gunicorn's sign of life uses."""
    if sys.platform != "linux":
        return []
    with open("/proc/self/maps") as maps:
        lines = [line.split() for line in maps]
    return [" ".join(line) for line in lines if line[1].startswith("rw") and line[1].endswith("s")]
