"""The recipes of docs/deploy.md that can be tried here: their own lines are run."""

import os
import re
import shutil
from pathlib import Path

import pytest
from conftest import PROJECT, Bake, Result, run
from running import Server
from serving import wait_until

PAGE = (PROJECT / "docs" / "deploy.md").read_text("utf-8")
MODULES = [path for path in Path("/usr/lib").rglob("libsofthsm2.so") if path.is_file()]


def block(after: str) -> str:
    """The lines of the first shell block behind a text of the page."""
    found = re.search(rf"{re.escape(after)}.*?```sh\n(.*?)```", PAGE, re.DOTALL)
    assert found, after
    return found[1]


def fingerprints(bake: Bake, **variables: str) -> list[str]:
    """The keys of a ring, newest first, as `status` names them."""
    environment = {**bake.environment, "APP_ENV": "production", **variables}
    shown = run(bake.program("flask"), "secret-key", "status", cwd=bake.path, environment=environment)
    return re.findall("^[0-9a-f]{8}", shown.stdout, re.MULTILINE)


@pytest.mark.skipif(
    not (MODULES and shutil.which("pkcs11-tool")), reason="softhsm2 and opensc are not installed"
)
def test_a_ring_that_a_security_module_opens(shared: Bake, tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "memory").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    ring = tmp_path / "memory" / "ring"
    environment = {
        **shared.environment,
        "APP_ENV": "production",
        "SOFTHSM2_CONF": str(tmp_path / "softhsm2.conf"),
        "MODULE": str(MODULES[0]),
        "PIN": "0123",
        "SECRET_KEY_FILE": str(ring),
        "SECRET_KEY_INTERVAL": "1s",
    }

    def sh(lines: str, check: bool = True) -> Result:
        # as a person pastes it: the shell goes on after a failure
        return run("sh", "-uc", lines, cwd=tmp_path, environment=environment, check=check)

    def flask(command: str) -> None:
        run(shared.program("flask"), "secret-key", command, cwd=shared.path, environment=environment)

    sh('softhsm2-util --init-token --free --label app --so-pin 01234567 --pin "$PIN"')
    sh(block("pkcs11: once"))
    flask("init")
    sh(block("pkcs11: seal"))
    (first,) = fingerprints(shared, SECRET_KEY_FILE=str(ring))
    ring.unlink()

    sh(block("pkcs11: open"))
    assert ring.stat().st_mode & 0o777 == 0o600
    server = Server(shared, tmp_path / "log", environment, "--workers", "1")
    try:
        flask("rotate")
        sh(block("pkcs11: seal"))
        wait_until(lambda: server.get("/healthz") and "has changed" in server.log.read_text(), "the new ring")
    finally:
        server.stop()
    both = fingerprints(shared, SECRET_KEY_FILE=str(ring))
    assert both[1:] == [first]
    ring.unlink()
    sh(block("pkcs11: open"))
    assert fingerprints(shared, SECRET_KEY_FILE=str(ring)) == both
    sealed, opened = (tmp_path / "ring.sealed").read_bytes(), ring.read_bytes()
    assert opened not in sealed

    ring.write_bytes(opened * 8)
    assert sh(block("pkcs11: seal"), check=False).returncode
    assert (tmp_path / "ring.sealed").read_bytes() == sealed
    ring.write_bytes(opened)
    (tmp_path / "ring.sealed").write_bytes(sealed[:-1])
    assert sh(block("pkcs11: open"), check=False).returncode
    assert ring.read_bytes() == opened


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("systemd-creds"), reason="systemd-creds makes its key as root"
)
def test_a_credential_that_systemd_seals(shared: Bake, tmp_path: Path) -> None:
    first = re.search(r"^\.venv/bin/flask secret-key generate.*?key$", PAGE, re.DOTALL | re.MULTILINE)
    assert first
    opened = "systemd-creds decrypt --name=secret_key /etc/credstore.encrypted/$NAME.key"
    script = "\n".join([first[0], f"{opened} first", block("A rotation, as root"), f"{opened} second"])
    for there, here in {
        "sudo ": "",
        "--with-key=tpm2": "--with-key=host",  # a key of its own, in the place of the TPM's
        "/etc/credstore.encrypted": str(tmp_path),
        ".venv/bin/flask": shared.program("flask"),
        "systemctl restart": "true",
    }.items():
        assert there in script
        script = script.replace(there, here)

    def sh(lines: str, name: str, check: bool = True) -> Result:
        # as a person pastes it: the shell goes on after a failure
        aside = 'mount --bind "$PWD" /var/lib/systemd && exec sh -uc "$0"'
        environment = {**shared.environment, "APP_ENV": "production", "NAME": name}
        command = ("unshare", "--mount", "sh", "-c", aside, lines)
        return run(*command, cwd=tmp_path, environment=environment, check=check)

    sh(script, "app")
    (tmp_path / "first").chmod(0o600)
    old = fingerprints(shared, SECRET_KEY_FILE=str(tmp_path / "first"))
    new = fingerprints(shared, SECRET_KEY_FILE=str(tmp_path / "second"))
    assert len(old) == 1
    assert new[1:] == old
    sealed = (tmp_path / "app.key").read_bytes()
    assert (tmp_path / "first").read_bytes() not in sealed

    damaged = tmp_path / "damaged.key"
    damaged.write_bytes(sealed[:-9])
    rotation = script[script.index("(\n") : script.rindex(")\n") + 2]
    assert sh(rotation, "damaged", check=False).returncode
    assert damaged.read_bytes() == sealed[:-9]
