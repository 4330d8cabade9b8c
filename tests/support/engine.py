"""A container engine: podman, with images and containers of its own."""

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from baking import Result

PYTHON = "3.11"
"""The Python of the base image, which is Debian's."""
_NOISE = "systemd connection"
"""What podman says about health checks on a machine without systemd: only `podman healthcheck run` makes one."""
_CONTAINERS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
infra_image = "localhost/pause"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{folder}/tmp"
[network]
network_config_dir = "{folder}/networks"
"""
_STORAGE = """
[storage]
driver = "overlay"
graphroot = "{folder}/graph"
runroot = "{run}"
"""
_BASE = """
FROM debian
RUN rm -f /usr/lib/python3*/EXTERNALLY-MANAGED \\
    && ln -s redis-cli /usr/bin/valkey-cli \\
    && printf '#!/bin/sh\\nexec redis-server "$@" --protected-mode no\\n' > /usr/bin/valkey-server \\
    && chmod 755 /usr/bin/valkey-server
"""
_PAUSE = """
FROM debian
STOPSIGNAL SIGKILL
ENTRYPOINT ["sleep", "infinity"]
"""
"""What keeps the network of a pod open."""
_NAMES = ("python:3.13-slim", f"python:{PYTHON}-slim", "valkey/valkey:8-alpine")
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_FILES = (Path("/run/containers/networks"), Path("/var/lib/containers/cache"))


class Engine:
    """podman with a store of its own in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "BUILDAH_FORMAT": "docker",
        }
        self._folder = folder

    def make(self, debian: Path) -> None:
        """Make the base images from a folder with a Debian system."""
        self._folder.mkdir()
        (self._folder / "before").write_text(json.dumps(_left_by_podman()))
        # With a longer runroot than 50 characters, podman waits 20 s for the end of each container.
        run = tempfile.mkdtemp(prefix="run-", dir="/tmp")
        (self._folder / "run").symlink_to(run)
        for name, text in (("containers.conf", _CONTAINERS), ("storage.conf", _STORAGE)):
            (self._folder / name).write_text(text.format(folder=self._folder, run=run))
        for name, text in (("base", _BASE), ("pause", _PAUSE)):
            (self._folder / name).write_text(text)
        # How this machine reaches a package registry, which an image knows by other means.
        certificates = {name: os.environ[name] for name in ("SSL_CERT_FILE", "PIP_CERT") if name in os.environ}
        changes = [f"--change=ENV {name}={value}" for name, value in certificates.items()]
        packed = ("tar", "--create", f"--directory={debian}", ".")
        imported = ("podman", "import", "--quiet", *changes, "-", "debian")
        with subprocess.Popen(packed, stdout=subprocess.PIPE) as tar:
            subprocess.run(imported, stdin=tar.stdout, env=self.environment, check=True, capture_output=True)
        context = self._folder / "context"
        context.mkdir()
        tags = [f"--tag=docker.io/{'' if '/' in name else 'library/'}{name}" for name in _NAMES]
        self.run("build", "--quiet", *tags, f"--file={self._folder / 'base'}", str(context))
        self.run("build", "--quiet", "--tag=localhost/pause", f"--file={self._folder / 'pause'}", str(context))

    def remove(self) -> None:
        """Remove all containers and networks; their files are then plain files."""
        self.run("rm", "--all", "--force", "--time=0", check=False)
        self.run("network", "prune", "--force", check=False)
        run = (self._folder / "run").resolve()
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in reversed([mount for mount in mounts if mount.startswith((f"{self._folder}/", f"{run}/"))]):
            subprocess.run(["umount", mount], check=True)
        shutil.rmtree(run)
        _restore(*json.loads((self._folder / "before").read_text()))

    def run(self, *arguments: str, check: bool = True, cwd: Path | None = None) -> Result:
        """Run podman."""
        return self.command("podman", *arguments, check=check, cwd=cwd)

    def command(
        self, *command: str, check: bool = True, cwd: Path | None = None, more: Mapping[str, str] | None = None
    ) -> Result:
        """Run a program that calls podman, with `more` in its environment."""
        environment = {**(more or {}), **self.environment}
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        done.stderr = "\n".join(line for line in done.stderr.splitlines() if _NOISE not in line)
        if check and done.returncode:
            pytest.fail(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def build(self, project: Path, tag: str) -> None:
        """Build the image of a project."""
        self.run("build", "--network=host", f"--tag={tag}", str(project))

    @contextmanager
    def running(self, *arguments: str) -> Iterator[str]:
        """A container that runs during the block; its number."""
        number = self.run("run", "--detach", *arguments).stdout.strip()
        try:
            yield number
        finally:
            self.run("rm", "--force", "--time=0", number)


def _left_by_podman() -> tuple[list[list[str]], list[str], str]:
    """What podman changes on the machine and never restores: rules of the firewall, files, and IP forwarding."""
    rules = []
    for table in ("nat", "filter"):
        command = ("iptables", f"--table={table}", "--list-rules")
        for rule in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
            if "NETAVARK" in rule:
                rules.append([f"--table={table}", *shlex.split(rule)])
    files = [str(path) for folder in _FILES for path in (folder, folder.parent) if path.exists()]
    return rules, files, _FORWARDING.read_text()


def _restore(rules: list[list[str]], files: list[str], forwarding: str) -> None:
    """Restore what was there before, unless containers of others run: their rules accept what is forwarded."""
    found, _, _ = _left_by_podman()
    if rules or any(rule[1:3] == ["-A", "NETAVARK_FORWARD"] for rule in found):
        return
    for kind, end in (("-A", "-D"), ("-N", "-X")):  # a chain in use cannot be deleted
        for table, command, *rest in found:
            if command == kind:
                subprocess.run(["iptables", table, end, *rest], check=True)
    for folder in _FILES:
        if str(folder) not in files:
            shutil.rmtree(folder, ignore_errors=True)
        if str(folder.parent) not in files:
            with suppress(OSError):  # not empty, or not there
                folder.parent.rmdir()
    _FORWARDING.write_text(forwarding)
