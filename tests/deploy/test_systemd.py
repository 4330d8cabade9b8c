"""The units are valid and hardened, and a booted systemd runs them: start, rotation, restarts, crash, reboot."""

import json
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest
from baking import UV, Bake
from machine import Machine, inside, overlaid
from readme import DEPLOY, block, cell
from running import Server
from secure.keys.key_format import generate_text
from serving import wait_until
from visitors import VISITORS

NAME = "my-flask-app"
KEYRING = f"/var/lib/private/{NAME}-keys/keyring"
DELAY = "8s"
"""When a new key starts to sign: later than the app looks at the file."""
QUARTER = 91 * 86400
"""Seconds after which a key is due for rotation."""

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


@pytest.fixture
def units(shared: Bake, tmp_path: Path) -> Path:
    """The folder with the units, for a project where this one is."""
    for unit in (shared.path / "deploy" / "systemd").iterdir():
        text = re.sub(f"/opt/(%N|{shared.path.name})", str(shared.path), unit.read_text())
        (tmp_path / unit.name).write_text(text)
    return tmp_path


def analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@needs_systemd
@pytest.mark.parametrize("unit", [f"{NAME}.service", f"{NAME}-rotate.timer"])
def test_verify(units: Path, unit: str) -> None:
    verified = analyze("verify", str(units / unit))
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


@needs_systemd
@pytest.mark.parametrize("unit", [f"{NAME}.service", f"{NAME}-rotate.service"])
def test_exposure(units: Path, unit: str) -> None:
    rated = analyze("security", "--offline=true", str(units / unit))
    exposure = re.search(r"Overall exposure level.*: (\d+\.\d)", rated.stdout)
    assert exposure
    print(exposure[0])
    assert float(exposure[1]) < 2.0


@needs_systemd
def test_who_writes_the_keyring(units: Path) -> None:
    """The unit that can write it has no network; the unit with a network can only read it."""
    app = (units / f"{NAME}.service").read_text()
    rotate = (units / f"{NAME}-rotate.service").read_text()
    assert {"PrivateNetwork=yes", "RestrictAddressFamilies=none", f"StateDirectory={NAME}-keys"} <= set(
        rotate.splitlines()
    )
    assert "BindReadOnlyPaths=-/var/lib/private/%N-keys:/run/%N-keys" in app.splitlines()
    assert "StateDirectory" not in app
    assert not re.search(r"^(Set.*|Environment=)SECRET_KEY=", app + rotate, re.MULTILINE)


@needs_systemd
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_system_calls(shared: Bake, units: Path, tmp_path: Path) -> None:
    """No system call of gunicorn is one that the unit forbids."""
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


def as_root(lines: str) -> str:
    """Return lines of docs/deploy.md without sudo, which the machine does not have."""
    return lines.replace("sudo -E ", "").replace("sudo ", "").replace('"$(command -v uv)"', "uv")


def documented(label: str, *more: str) -> str:
    """Return a command of the table in docs/deploy.md, after what its reader has set before."""
    first = "; ".join(cell("systemd", "first, in a new shell"))
    command = next(code for code in cell("systemd", label) if code.startswith("sudo ") and "…" not in code)
    return f"{first}; " + as_root(" ".join([command, *more]))


def install() -> tuple[str, str]:
    """The lines of docs/deploy.md: those that need a network, and those for the booted machine."""
    lines = as_root(block("systemd: install")).splitlines()
    (sync,) = (line for line in lines if line.startswith("    uv sync "))
    (ask,) = (line for line in lines if line.startswith("    curl "))  # visitors ask here
    return sync.strip(), "\n".join(line for line in lines if line not in (sync, ask))


@pytest.fixture(scope="module")
def installed(debian: Path, shared: Bake, with_database: Bake, worker_id: str) -> Iterator[Path]:
    """The file system of a machine with a project and its environment in /opt, before the first boot.

    The environment has the packages for a database, and the project does not use them yet.
    """
    with overlaid(debian, debian.parent / f"machine-{worker_id}") as root:
        shutil.copytree(with_database.path, root / "opt" / NAME)
        shutil.rmtree(root / "opt" / NAME / shared.package.name)
        shutil.copytree(shared.package, root / "opt" / NAME / shared.package.name)
        cache = with_database.environment["UV_CACHE_DIR"]
        variables = {
            "UV_CACHE_DIR": "/cache",
            "UV_LINK_MODE": "copy",
            "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
        }
        flags = [f"--setenv={name}={value}" for name, value in variables.items()]
        inside(
            root, install()[0], f"/opt/{NAME}", f"--bind-ro={UV}:/usr/local/bin/uv", f"--bind={cache}:/cache", *flags
        )
        yield root


@pytest.fixture(scope="module")
def machine(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A booted machine, on which the units have been enabled for the first time."""
    settings = installed / f"etc/systemd/system/{NAME}.service.d"
    settings.mkdir()
    (settings / "interval.conf").write_text("[Service]\nEnvironment=SECRET_KEY_INTERVAL=1s\n")
    machine = Machine(installed, tmp_path_factory.mktemp("console") / "log")
    try:
        machine.run(install()[1])
        yield machine
    finally:
        machine.stop()


def test_first_start(machine: Machine) -> None:
    """The first key is there before the app starts. Only root can reach it, and the app can only read it."""
    assert machine.run("systemctl --failed --plain --no-legend").stdout == ""
    assert machine.run(f"stat -c %a /var/lib/private {KEYRING}").stdout.split() == ["700", "644"]
    assert states(machine) == ["signing"]
    process = machine.run(f"systemctl show --property=MainPID --value {NAME}").stdout.strip()
    user = f"--setuid $(stat -c %u /proc/{process}) --setgid $(stat -c %g /proc/{process})"
    app = f"nsenter --target {process} --mount {user}"
    assert machine.run(f"{app} cat /run/{NAME}-keys/keyring", check=False).stdout.startswith("fsk_")
    for refused in (f"touch /run/{NAME}-keys/x", f"touch /opt/{NAME}/x", f"ls {KEYRING}"):
        assert machine.run(f"{app} {refused}", check=False).returncode, refused


@pytest.fixture
def soon(installed: Path, machine: Machine) -> Iterator[None]:
    """The timer runs after a second, and the new key signs after DELAY; all else is as shipped."""
    folder = installed / "etc/systemd/system"
    commands = re.findall("^ExecStart=.*", (folder / f"{NAME}-rotate.service").read_text(), re.MULTILINE)
    texts = {
        "timer": "[Timer]\nOnCalendar=\nOnActiveSec=1s\nAccuracySec=1ms\nRandomizedDelaySec=0\n",
        "service": "\n".join(["[Service]", "ExecStart=", *commands]) + f" --in {DELAY}\n",
    }
    changes = [folder / f"{NAME}-rotate.{kind}.d" for kind in texts]
    for change, text in zip(changes, texts.values(), strict=True):
        change.mkdir()
        (change / "soon.conf").write_text(text)
    machine.run(f"systemctl stop {NAME}-rotate.timer; systemctl daemon-reload")
    yield
    for change in changes:
        shutil.rmtree(change)
    machine.run(f"systemctl daemon-reload; systemctl restart {NAME}-rotate.timer")


def test_rotation_by_the_timer(machine: Machine, soon: None) -> None:
    """The key is 91 days old; the timer's next run rotates it under load, and nobody loses a session."""
    old = generate_text(int(time.time()) - QUARTER)
    machine.run(f"echo {old} > {KEYRING}.new; chmod 644 {KEYRING}.new; chown --reference {KEYRING} {KEYRING}.new")
    machine.run(f"mv {KEYRING}.new {KEYRING}; systemctl restart {NAME}.service")
    with machine.visiting() as visits:
        machine.run(f"systemctl start {NAME}-rotate.timer")
        wait_until(lambda: states(machine) == ["signing", "retired"], "the rotation")
    assert (visits.failures, visits.lost) == ({}, 0)
    assert visits.requests > 100
    wait_until(lambda: "The keyring has changed" in logged(machine), "the log")
    machine.run(f"systemctl start {NAME}-rotate.service")
    assert "Nothing to do" in machine.run(f"journalctl --unit={NAME}-rotate --output=cat --lines=5").stdout
    assert states(machine) == ["signing", "retired"]


@pytest.mark.parametrize("command", ["restart", "reload", "kill --signal=KILL --kill-who=main"])
def test_no_request_is_lost(machine: Machine, command: str) -> None:
    """The socket keeps the requests while the service restarts."""
    line = documented("deploy new code") if command == "reload" else f"systemctl {command} {NAME}.service"
    with machine.visiting() as visits:
        for _ in range(2):
            time.sleep(1)
            before = machine.run(f"systemctl show --property=ActiveEnterTimestampMonotonic --value {NAME}").stdout
            machine.run(line)
            if command != "reload":
                wait_until(lambda: restarted(machine, before), "the restart")  # noqa: B023
        time.sleep(1)
    assert (visits.failures, visits.lost) == ({}, 0)
    assert visits.requests >= VISITORS


def restarted(machine: Machine, before: str) -> bool:
    shown = machine.run(
        f"systemctl show --property=ActiveState,ActiveEnterTimestampMonotonic --value {NAME}"
    ).stdout.split()
    return "active" in shown and before.strip() not in shown


def test_bad_key_and_the_socket(machine: Machine) -> None:
    """While every start fails, requests wait; they are answered once the key is good again."""
    machine.run(f"mv {KEYRING} {KEYRING}.good; echo changeme > {KEYRING}; systemctl --no-block restart {NAME}.service")
    wait_until(lambda: failed_starts(machine) >= 6, "six failed starts")
    assert machine.run(f"systemctl is-active {NAME}.socket").stdout == "active\n"
    with machine.visiting() as visits:
        time.sleep(1)
        machine.run(f"mv {KEYRING}.good {KEYRING}")
        wait_until(lambda: machine.run(f"systemctl is-active {NAME}", check=False).stdout == "active\n", "a start")
        time.sleep(1)
    assert (visits.failures, visits.lost) == ({}, 0)
    assert visits.requests >= VISITORS


def failed_starts(machine: Machine) -> int:
    return int(machine.run(f"systemctl show --property=NRestarts --value {NAME}").stdout)


def test_revocation(machine: Machine) -> None:
    """The commands of docs/deploy.md; the app follows without a restart."""
    machine.run(documented("rotate now"))
    assert states(machine)[:2] == ["upcoming", "signing"]
    with machine.visiting() as visits:
        time.sleep(2)
        machine.run(documented("after a leak"))
        time.sleep(4)
    assert visits.lost >= VISITORS
    assert set(visits.failures) <= {repr(HTTPException("POST 400"))}  # the form of a session that has ended
    with machine.visiting() as visits:
        time.sleep(1)
    assert (visits.failures, visits.lost) == ({}, 0)
    assert machine.run(f"stat -c %a {KEYRING}").stdout == "644\n"
    assert states(machine) == ["signing"]


def test_reboot(machine: Machine) -> None:
    """The app is up again by itself, with the same keyring."""
    before = machine.run(f"cat {KEYRING}").stdout
    machine.reboot()
    assert machine.run(f"cat {KEYRING}").stdout == before
    with machine.visiting() as visits:
        time.sleep(1)
    assert (visits.failures, visits.lost) == ({}, 0)
    assert machine.run("systemctl --failed --plain --no-legend").stdout == ""


def test_database(machine: Machine, installed: Path, with_database: Bake) -> None:
    """New code with a database: the restart updates it first, and no request is lost."""
    shutil.copytree(with_database.package, installed / "opt" / NAME / with_database.package.name, dirs_exist_ok=True)
    with machine.visiting() as visits:
        time.sleep(1)
        machine.run(as_root(block("systemd: database")))
        time.sleep(1)
    assert (visits.failures, visits.lost) == ({}, 0)
    assert visits.requests >= VISITORS
    shown = machine.run(f"systemctl show --property=IPAddressAllow {NAME}").stdout
    assert "192.0.2.10" in shown
    assert "127.0.0.0/8" in shown, "the template's own addresses stay"
    count = "import sqlite3; print(sqlite3.connect('app.db').execute('SELECT count(*) FROM user').fetchall())"
    assert machine.run(f'cd /var/lib/{NAME}; python3 -c "{count}"').stdout == "[(0,)]\n"
    [restart] = re.findall(r"^From now on, deploy new code with `(.*?)`", DEPLOY.read_text("utf-8"), re.MULTILINE)
    machine.run(f"NAME={NAME}; {as_root(restart)}; systemctl is-active {NAME}")


def test_failed_step(tmp_path: Path) -> None:
    """Without the project, the lines of the page install nothing."""
    for program in ("sudo", "curl"):
        (tmp_path / program).write_text(f"#!/bin/sh\necho {program} >> {tmp_path}/called\n")
        (tmp_path / program).chmod(0o755)
    for name in ("install", "seal", "rotate sealed"):
        lines = block(f"systemd: {name}").replace("/opt/", f"{tmp_path}/")
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        assert subprocess.run(["sh", "-c", lines], env=environment, cwd=tmp_path, check=False).returncode, name
    assert not (tmp_path / "called").exists()


def test_another_port(machine: Machine, installed: Path) -> None:
    """The lines of the page move the socket."""

    def answers(port: int) -> bool:
        ask = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/healthz', timeout=30)"
        return not machine.run(f'python3 -c "{ask}"', check=False).returncode

    assert answers(8000)
    machine.run(as_root(block("systemd: port")))
    try:
        assert answers(8001)
        assert not answers(8000)
    finally:
        shutil.rmtree(installed / f"etc/systemd/system/{NAME}.socket.d")
        machine.run(f"systemctl daemon-reload; systemctl restart {NAME}.socket")
    assert answers(8000)


def states(machine: Machine) -> list[str]:
    """The states of the keys, newest first."""
    return [row["state"] for row in json.loads(machine.run(documented("show the keys", "--json")).stdout)["keys"]]


def logged(machine: Machine) -> str:
    return machine.run(f"journalctl --unit={NAME} --output=cat --boot").stdout
