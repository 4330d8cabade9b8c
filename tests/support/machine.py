"""A machine with systemd, booted in a container of systemd-nspawn."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from baking import Result
from serving import LIMIT, wait_until
from visitors import Visits, visiting

_NSPAWN = ("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network")


class Machine:
    """A machine with its own loopback network, whose file system is `root`."""

    def __init__(self, root: Path, log: Path) -> None:
        self._root, self._log = root, log
        (root / "etc" / "machine-id").write_text("")
        self._boot()

    def _boot(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [*_NSPAWN, "--console=read-only", "--boot", f"--directory={self._root}"],
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        wait_until(self._is_up, "the boot")

    def run(self, command: str, check: bool = True) -> Result:
        """Run lines of shell in it, as root."""
        inside = ("nsenter", "--target", str(self._init()), "--all", "sh", "-euc", command)
        done = subprocess.run(
            inside, capture_output=True, text=True, check=False, timeout=LIMIT, env={"PATH": os.environ["PATH"]}
        )
        if check and done.returncode:
            pytest.fail(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def visiting(self, port: int = 8000) -> AbstractContextManager[Visits]:
        """Have visitors inside it for the time of the block."""
        return visiting(port, under=("nsenter", "--target", str(self._init()), "--net"))

    def reboot(self) -> None:
        """Shut it down and boot it again."""
        self.run("systemctl --no-block reboot")
        assert self._process.wait(LIMIT) == 133  # systemd-nspawn asks for another start
        self._boot()

    def stop(self) -> None:
        """Shut it down; kill what does not end."""
        self._process.terminate()  # it has systemd shut down
        try:
            self._process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    def _is_up(self) -> bool:
        assert self._process.poll() is None, "systemd-nspawn ended"
        return bool(self._init()) and self.run("systemctl is-system-running", check=False).stdout in (
            "running\n",
            "degraded\n",
        )

    def _init(self) -> int:
        """The process number of its systemd; 0 while it has none."""
        found = subprocess.run(
            ["pgrep", "--parent", str(self._process.pid), "^systemd$"], capture_output=True, text=True, check=False
        )
        return int(found.stdout or 0)


@contextmanager
def overlaid(below: Path, scratch: Path) -> Iterator[Path]:
    """A file system that starts with what is in `below` and changes nothing there."""
    scratch.mkdir(parents=True, exist_ok=True)
    parts = [Path(tempfile.mkdtemp(dir=scratch)) / name for name in ("upper", "work", "root")]
    for part in parts:
        part.mkdir(parents=True)
    upper, work, root = parts
    options = f"lowerdir={below},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", str(root)], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", str(root)], check=True)


def inside(root: Path, command: str, folder: str, *flags: str) -> None:
    """Run lines of shell in a file system that is not booted, with this machine's network."""
    nspawn = [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        f"--directory={root}",
        f"--chdir={folder}",
        *flags,
    ]
    done = subprocess.run([*nspawn, "sh", "-euc", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
