"""Something that takes long to make: all test processes of a run share it."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def of_all_workers(factory: pytest.TempPathFactory) -> Path:
    """Return the folder that all test processes of a run share."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder of that name; the first process of a run has `make` fill it while the others wait."""
    folder = of_all_workers(factory) / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            folder.mkdir()
            try:
                make(folder)
            except BaseException:
                shutil.rmtree(folder)  # the next process tries, and tells what failed
                raise
    return folder


@contextmanager
def once(folder: Path, make: Callable[[], None], remove: Callable[[], None]) -> Iterator[None]:
    """Have the first process of a run `make` what is in `folder`, and the last one `remove` it.

    The folder is in memory, and needs root: to write and to remove many small files takes a disk minutes.
    """
    with _counted(folder, 1) as users:
        if users == 1:
            folder.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(folder)], check=True)
            make()
    try:
        yield
    finally:
        with _counted(folder, -1) as users:
            if users == 0:
                remove()
                subprocess.run(["umount", str(folder)], check=True)
                folder.rmdir()


@contextmanager
def _counted(folder: Path, change: int) -> Iterator[int]:
    """Change the number of users under a lock, which is held during the block."""
    with folder.with_suffix(".users").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        users = int(file.read() or 0) + change
        yield users
        file.truncate(0)
        file.write(str(users))
