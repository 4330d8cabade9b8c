"""What a gunicorn master and its workers hand to each other: settings by fork, one way, and nothing back."""

import json
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from baking import Bake
from running import Server, Site
from secure.keys.key_format import generate_text
from serving import wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start workers as another user")
NOBODY = 65534


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user can reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def key_file(folder: Path, mode: int) -> Path:
    """A key file with one new key."""
    path = folder / "keyring"
    path.write_text(generate_text(int(time.time())))
    path.chmod(mode)
    return path


@as_root
def test_worker_cannot_change_master_or_sibling(shared: Bake, open_folder: Path) -> None:
    """A worker runs as another user; it poisons what it inherited, attacks the master, and dies."""
    variables = {"SECRET_KEY_FILE": str(key_file(open_folder, 0o644)), "SECRET_KEY_INTERVAL": "1s"}
    flags = ("--preload", "--workers", "1", "--user", str(NOBODY), "--group", str(NOBODY))
    server = Server(shared, open_folder / "log", variables, *flags, app="hostile:app()")
    try:
        _, headers = server.get("/count")
        answer = server.get("/attack")[0]
        assert answer.startswith("{"), (open_folder / "log").read_text()
        found = json.loads(answer)
        assert found == {"keys": 1, "signal": True, "memory": True, "shared": []}
        os.kill(int(headers["Worker"]), signal.SIGKILL)
        wait_until(lambda: server.get("/count")[1]["Worker"] != headers["Worker"], "another worker")
        assert server.get("/count")[1]["Signer"] == headers["Signer"]
    finally:
        server.stop()


@as_root
@pytest.mark.parametrize(
    ("folder_mode", "mode", "reason", "hint"),
    [
        (0o755, 0o600, "cannot read {}: permission denied", "give it read access, for example: chgrp "),
        (0o777, 0o644, "cannot use {}: it belongs to another user, ", "if you trust its contents, move it "),
    ],
)
def test_key_file_that_workers_refuse(
    shared: Bake, open_folder: Path, folder_mode: int, mode: int, reason: str, hint: str
) -> None:
    """The workers' user cannot read the keyring, or does not trust it: this must not surface at a revocation."""
    folder, pidfile = open_folder / "keys", open_folder / "pid"
    folder.mkdir()
    path = key_file(folder, mode)
    os.chown(path, 1, 1)
    os.chown(folder, 1, 1)
    folder.chmod(folder_mode)
    command = ("--user", str(NOBODY), "--bind", "127.0.0.1:0", "--pid", str(pidfile))
    result = shared.run(
        shared.program("gunicorn"), *command, check=False, APP_ENV="production", SECRET_KEY_FILE=str(path)
    )
    assert result.returncode == 1
    first, second = result.stderr.splitlines()[-2:]
    assert first.startswith(f"user {NOBODY} of the workers: {reason.format(path)}")
    assert second.startswith(f"hint: {hint}")
    assert not pidfile.exists()


@as_root
def test_pipe_of_keys(shared: Bake, open_folder: Path) -> None:
    """A named pipe is read once: the start does not wait for a second text."""
    path = open_folder / "keyring"
    os.mkfifo(path)
    path.chmod(0o644)
    writer = subprocess.Popen(["sh", "-c", f"printf '%s\\n' {generate_text(int(time.time()))} > {path}"])
    flags = ("--preload", "--workers", "1", "--user", str(NOBODY))
    server = Server(shared, open_folder / "log", {"SECRET_KEY_FILE": str(path)}, *flags)
    try:
        assert server.get("/healthz")[0] == "ok\n"
    finally:
        server.stop()
        writer.kill()
        writer.wait()


@pytest.fixture
def site(shared: Bake, tmp_path: Path) -> Callable[..., Site]:
    return lambda *flags: Site(shared, tmp_path, *flags)


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_revoked_key_stays_revoked(site: Callable[..., Site], preload: tuple[str, ...]) -> None:
    """A revocation, then a bad file, then a new worker: the revoked key does not come back."""
    running = site("--workers", "1", *preload)
    try:
        worker, revoked = running.visit()
        running.flask("revoke", "--yes")
        wait_until(lambda: running.get("/count")[1]["Signer"] != revoked, "the revocation")
        signer = running.get("/count")[1]["Signer"]
        wait_until(lambda: "Workers start with the keyring: " in running.log.read_text(), "the master's look")
        running.keys.write_text("not a key")
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: int(running.get("/count")[1]["Worker"]) != worker, "another worker")
        assert running.get("/count")[1]["Signer"] == signer
    finally:
        running.stop()


def test_port_on_ipv4_and_ipv6(shared: Bake, tmp_path: Path) -> None:
    server = Server(shared, tmp_path / "log", {"SECRET_KEY": secrets.token_hex(32)}, by_port=True)
    try:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with closing(socket.socket(family)) as probe:
                assert probe.connect_ex((address, server.port)) == 0, address
    finally:
        server.stop()
