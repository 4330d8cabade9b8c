"""The image builds with no key, holds none, and runs with a read-only root as a user of its own."""

import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import image
import pytest
from compose_spec import PyCompose
from conftest import Bake, Result
from image import Stage

SECRETS = (".env.production", "secrets/ring", "id_ed25519", "keys.txt", "tests/fixture.key")
needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0,
    reason="an image is built in a chroot of its own, which needs root",
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, bake_into: Callable[..., Bake]) -> Bake:
    """A project with secrets of many names lying about."""
    bake = bake_into(tmp_path_factory.mktemp("context"))
    for name in (*SECRETS, f"{bake.package.name}/.env.local", f"{bake.package.name}/static/.env"):
        (bake.path / name).parent.mkdir(exist_ok=True)
        (bake.path / name).write_text(f"decoy {secrets.token_hex(32)}")
    return bake


@pytest.fixture(scope="module")
def built(
    project: Bake, tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Iterator[Stage]:
    """The image of the project."""
    scratch = tmp_path_factory.mktemp("image")
    # How this machine reaches a package registry, which an engine's build knows by other means.
    registry = {name: value for name, value in environment.items() if re.match("(UV|PIP|SSL)_", name)}
    yield image.build(project.path, scratch, {**registry, "UV_PYTHON": image.BASE_PYTHON, "HOME": "/"})
    shutil.rmtree(scratch)


def test_hadolint_finds_nothing(project: Bake) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, "Dockerfile"], cwd=project.path, capture_output=True, check=False)
    assert (found.returncode, found.stdout) == (0, b"")


def test_the_compose_file_is_valid_and_hands_the_key_over_as_a_secret(project: Bake) -> None:
    text = (project.path / "compose.yaml").read_text()
    compose = PyCompose.from_yaml(text)
    compose.validate()
    app = compose.to_dict()["services"]["app"]
    assert app["environment"]["SECRET_KEY_FILE"] == "/run/secrets/secret_key"
    assert app["secrets"] == ["secret_key"]
    assert "SECRET_KEY" not in app["environment"]


def test_a_full_session_store_drops_no_session(project: Bake) -> None:
    compose = PyCompose.from_yaml((project.path / "compose.yaml").read_text())
    command = compose.to_dict()["services"]["store"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_the_context_has_what_the_image_needs_and_nothing_else(project: Bake) -> None:
    names = {str(path.relative_to(project.path)).partition("/")[0] for path in image.sent(project.path)}
    assert names == {"pyproject.toml", "README.md", "gunicorn.conf.py", project.package.name}
    assert not [path for path in image.sent(project.path) if b"decoy" in path.read_bytes()]


@needs_mounts
def test_no_stage_of_the_image_holds_a_secret(project: Bake, built: Stage) -> None:
    key = project.env_file()["SECRET_KEY"].encode()
    for path in built.root.parent.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            assert key not in content, path
            assert not content.startswith(b"decoy "), path
    assert not list(built.root.parent.rglob(".env*"))
    assert not list(built.root.parent.rglob(".git"))


@needs_mounts
def test_the_image_holds_the_app_and_no_tool_to_build_it(project: Bake, built: Stage) -> None:
    assert {path.name for path in (built.root / "app").iterdir()} == {".venv", "gunicorn.conf.py"}
    assert next(built.root.glob(f"app/.venv/lib/*/site-packages/{project.package.name}/secret_key"))
    assert not list(built.root.rglob("bin/uv"))
    assert not list(built.root.glob("app/.venv/lib/*/site-packages/pytest"))


@needs_mounts
def test_a_container_without_a_key_ends_at_once_with_one_line(built: Stage) -> None:
    ended = started(built, shlex.join(built.command))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("SECRET_KEY is missing or empty; ")
    assert len(ended.stderr.splitlines()) == 1


@needs_mounts
def test_a_container_is_healthy_with_a_read_only_root_and_ends_on_term(built: Stage) -> None:
    keys = built.root / "run" / "secrets" / "secret_key"
    keys.parent.mkdir(parents=True)
    keys.write_text(f"{secrets.token_hex(32)}\r\n")
    script = f"""
        {shlex.join(built.command)} & server=$!
        tries=0
        until {shlex.join(built.healthcheck)} 2>/dev/null; do
            kill -0 $server && test $tries -lt 100 || exit 2; tries=$((tries + 1)); sleep 0.1
        done
        if touch /app/x /tmp/x /x 2>/dev/null; then exit 3; fi
        id -u
        kill -TERM $server; wait $server
    """
    ended = started(built, script, SECRET_KEY_FILE="/run/secrets/secret_key")
    assert (ended.returncode, ended.stdout) == (0, "10001\n"), ended.stderr
    assert "/healthz 200" in ended.stderr


def started(built: Stage, command: str, **variables: str) -> Result:
    """Run a command as a container would: its user, a read-only root, nothing but a loopback."""
    return built.run(command, user=built.user, read_only=True, **variables)
