"""The unit is valid, hardened, and asks for no system call that gunicorn then lacks."""

import re
import secrets
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Bake
from running import Server
from serving import wait_until

pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


@pytest.fixture
def units(shared: Bake, tmp_path: Path) -> Path:
    """The folder with the service and its socket, for a project where this one is."""
    for unit in (shared.path / "deploy" / "systemd").iterdir():
        (tmp_path / unit.name).write_text(
            unit.read_text().replace(f"/opt/{shared.path.name}", str(shared.path))
        )
    return tmp_path


def analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def test_systemd_finds_nothing_wrong(shared: Bake, units: Path) -> None:
    verified = analyze("verify", str(units / f"{shared.path.name}.service"))
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_the_exposure_is_low(shared: Bake, units: Path) -> None:
    rated = analyze("security", "--offline=true", str(units / f"{shared.path.name}.service"))
    exposure = re.search(r"Overall exposure level.*: (\d+\.\d)", rated.stdout)
    assert exposure
    print(exposure[0])
    assert float(exposure[1]) < 2.0


def test_the_key_comes_as_a_credential_and_as_nothing_else(shared: Bake, units: Path) -> None:
    service = (units / f"{shared.path.name}.service").read_text()
    assert "Environment=SECRET_KEY_FILE=%d/secret_key" in service
    assert "LoadCredentialEncrypted=secret_key:" in service
    assert not re.search(r"^(Set.*|Environment=)SECRET_KEY=", service, re.MULTILINE)


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_gunicorn_makes_no_system_call_that_the_unit_forbids(
    shared: Bake, units: Path, tmp_path: Path
) -> None:
    service = (units / f"{shared.path.name}.service").read_text()
    groups = re.findall("^SystemCallFilter=(.*)", service, re.MULTILINE)
    allowed: set[str] = set()
    for group in groups:
        names = {name for word in group.lstrip("~").split() for name in members(word)}
        allowed = allowed - names if group.startswith("~") else allowed | names
    trace = tmp_path / "trace"
    strace = ("strace", "-DD", "-f", "-o", str(trace))
    server = Server(shared, tmp_path / "log", {"SECRET_KEY": secrets.token_hex(32)}, under=strace)
    server.get("/")
    server.reload()
    server.get("/")
    server.stop()
    ended = re.compile(rf"^{server.master} +\+\+\+ exited", re.MULTILINE)  # strace pads a short number
    wait_until(lambda: ended.search(trace.read_text()), "the end of the trace")
    called = set(re.findall(r"^\d+ +([a-z0-9_]+)\(", trace.read_text(), re.MULTILINE))
    assert "accept4" in called
    assert called - allowed == set()


def members(group: str) -> set[str]:
    """The system calls of a group, as this machine's systemd knows it."""
    listed = analyze("syscall-filter", group).stdout
    words = [line.strip() for line in listed.splitlines()[1:] if line.strip()[:1] not in ("#", "")]
    return {name for word in words for name in (members(word) if word.startswith("@") else {word})}
