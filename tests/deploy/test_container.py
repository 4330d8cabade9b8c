"""The image and compose.yaml, built and run by a real engine (podman with runc)."""

import http.client
import json
import re
import secrets
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from baking import Bake, Result
from compose_spec import PyCompose
from engine import Engine
from programs import program
from serving import LIMIT, free_port, wait_until
from visitors import Browser, visiting

DECOYS = (".env.production", "secrets/keyring", "id_ed25519", "keys.txt", "tests/fixture.key")
KEYRING = "--env=SECRET_KEY_FILE=/keys/keyring"
HARDENED = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--memory=384m")
REQUESTS = 4
DELAY = "6s"
"""When a new key starts to sign: later than the app looks at the file."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, bake_into: Callable[..., Bake]) -> Bake:
    """A project with migrations, and with secrets in files of many names."""
    bake = bake_into(tmp_path_factory.mktemp("context"))
    for name in (*DECOYS, f"{bake.package.name}/.env.local", f"{bake.package.name}/static/.env"):
        (bake.path / name).parent.mkdir(exist_ok=True)
        (bake.path / name).write_text(f"decoy {secrets.token_hex(32)}")
    (bake.path / "migrations").mkdir()
    (bake.path / "migrations" / "alembic.ini").write_text("[alembic]\n")
    return bake


@pytest.fixture(scope="module")
def image(project: Bake, engine: Engine, worker_id: str) -> str:
    """The image of the project."""
    name = f"app-{worker_id}"
    engine.build(project.path, name)
    return name


@pytest.fixture
def keys(tmp_path: Path, engine: Engine, image: str) -> Path:
    """A folder with a keyring, which containers mount on /keys."""
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    subprocess.run(["chown", "10001:10001", str(folder)], check=True)
    flask(engine, image, folder, "init")
    return folder


def flask(engine: Engine, image: str, keys: Path, *command: str) -> str:
    """Run a secret-key command as the service of compose.yaml does: without a network."""
    mounted = ("--network=none", f"--volume={keys}:/keys", KEYRING)
    return engine.run("run", "--rm", *HARDENED, *mounted, image, "flask", "secret-key", *command).stdout


def services(project: Bake) -> dict[str, Any]:
    merged = yaml.safe_load((project.path / "compose.yaml").read_text())  # the library knows no `<<`
    compose = PyCompose.from_yaml(yaml.safe_dump(merged))
    compose.validate()
    found: dict[str, Any] = compose.to_dict()["services"]
    return found


def test_hadolint(project: Bake) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, "Dockerfile"], cwd=project.path, capture_output=True, check=False)
    assert (found.returncode, found.stdout) == (0, b"")


def test_who_writes_the_keyring(project: Bake) -> None:
    """A service that can write the keyring has no network."""
    mounts = {name: service["volumes"] for name, service in services(project).items() if "volumes" in service}
    assert mounts == {"app": ["keys:/keys:ro"], "first-key": ["keys:/keys"], "rotate": ["keys:/keys"]}
    for name, service in services(project).items():
        assert (service.get("network_mode") == "none") is (name in ("first-key", "rotate")), name
        assert "SECRET_KEY" not in service.get("environment", {})


def test_full_store(project: Bake) -> None:
    """A full session store refuses new sessions; it drops none."""
    command = services(project)["store"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_no_secret_in_image(project: Bake, engine: Engine, image: str, tmp_path: Path) -> None:
    """Neither a layer nor the history has one. What is searched has the app's code: the search finds things."""
    engine.run("save", f"--output={tmp_path / 'image.tar'}", image)
    contents = b"".join(contents_of(tmp_path / "image.tar"))
    shown = engine.run("history", "--no-trunc", "--format=json", image).stdout + engine.run("inspect", image).stdout
    for secret in (project.env_file()["SECRET_KEY"], "decoy "):
        assert secret.encode() not in contents
        assert secret not in shown
    assert (project.package / "views.py").read_bytes() in contents
    assert "FLASK_APP" in shown


def contents_of(archive: Path) -> Iterator[bytes]:
    """Every file in the layers that the project's build added, and in the image's configuration."""
    with tarfile.open(archive) as image:
        for member in image:
            file = image.extractfile(member)
            if file and member.name.endswith(".tar") and member.size < 150_000_000:  # a larger one is the base
                with tarfile.open(fileobj=file) as layer:
                    yield from (
                        found.read() for entry in layer if entry.isreg() and (found := layer.extractfile(entry))
                    )
            elif file and member.size < 1_000_000:
                yield file.read()


def test_contents(project: Bake, engine: Engine, image: str) -> None:
    """The image has the app with its migrations; it has no tool to build it, and no tests."""
    listed = engine.run("run", "--rm", "--network=none", image, "ls", "-A", "/app").stdout.split()
    known = {".venv", "README.md", "gunicorn.conf.py", "migrations", "pyproject.toml", project.package.name}
    assert set(listed) == known
    search = "! command -v uv && ! python -c 'import pytest' 2>/dev/null && find / -xdev -name '.env*' -o -name .git"
    assert engine.run("run", "--rm", "--network=none", "--user=0", image, "sh", "-c", search).stdout == ""


def test_without_a_key(engine: Engine, image: str) -> None:
    """The container ends at once, with one message."""
    ended = engine.run("run", "--rm", "--network=none", *HARDENED, image, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    first, *hints = ended.stderr.splitlines()
    assert first.startswith("SECRET_KEY: ")
    assert all(line.startswith("hint: ") for line in hints)
    assert len(hints) == 1


def test_commands_in_the_image(engine: Engine, image: str, keys: Path) -> None:
    """FLASK_APP is set, so Flask finds the app."""
    mounted = ("--network=none", f"--volume={keys}:/keys:ro", KEYRING)
    routes = engine.run("run", "--rm", *HARDENED, *mounted, image, "flask", "routes").stdout
    assert "/healthz" in routes
    [row] = json.loads(flask(engine, image, keys, "status", "--json"))["keys"]
    assert row["state"] == "signing"
    generated = engine.run("run", "--rm", "--network=none", image, "flask", "secret-key", "generate").stdout
    assert generated.startswith("fsk_")  # as the recipe for Kubernetes has it


def test_life_of_a_container(engine: Engine, image: str, keys: Path) -> None:
    """Hardened and healthy, it follows a rotation and a revocation, and it ends without losing a request."""
    port = free_port()
    options = (
        *HARDENED, f"--publish=127.0.0.1:{port}:8000", f"--volume={keys}:/keys:ro", KEYRING,
        "--env=SECRET_KEY_INTERVAL=1s", "--env=TRUSTED_PROXIES=1",
    )  # fmt: skip
    with engine.running(*options, image) as container:
        wait_until(lambda: engine.run("healthcheck", "run", container, check=False).returncode == 0, "health")

        def logged() -> str:
            return engine.run("logs", container).stderr

        def inside(command: str) -> str:
            return engine.run("exec", container, "sh", "-c", command, check=False).stdout

        assert inside("id -u") == "10001\n"
        assert re.findall(r"Cap\w+:\t(\w+)", inside("cat /proc/1/status")) == ["0" * 16] * 5
        assert "NoNewPrivs:\t1" in inside("cat /proc/1/status")
        assert inside("for f in /x /app/x /keys/x; do touch $f && echo written; done") == ""
        both = "import urllib.request as r\nfor a in '127.0.0.1', '[::1]': r.urlopen(f'http://{a}:8000/healthz')"
        assert engine.run("exec", container, "python", "-c", both).returncode == 0

        with visiting(port) as visits:
            flask(engine, image, keys, "rotate", "--in", DELAY)
            wait_until(lambda: "The keyring has changed" in logged(), "the new keyring")
            wait_until(lambda: '"signing"' in status_of_newest(engine, image, keys), "the new key signs")
        assert (visits.failures, visits.lost) == ({}, 0)
        assert visits.requests > 100

        old = Browser(port)
        old.count()
        old.add()
        assert old.count() == 1
        flask(engine, image, keys, "revoke", "--yes")
        wait_until(lambda: old.count() == 0, "the end of the old session")

        with under_way(port) as finish:
            engine.run("kill", "--signal=TERM", container)
            time.sleep(1)
            assert [answer.partition(b"\r\n")[0] for answer in finish()] == [b"HTTP/1.1 200 OK"] * REQUESTS
        assert engine.run("wait", container).stdout.strip() == "0"
        assert "Traceback" not in logged()


def status_of_newest(engine: Engine, image: str, keys: Path) -> str:
    return json.dumps(json.loads(flask(engine, image, keys, "status", "--json"))["keys"][0])


@contextmanager
def under_way(port: int) -> Iterator[Callable[[], list[bytes]]]:
    """Requests that are sent in part; the function sends the rest and returns the answers."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", port), LIMIT)) for _ in range(REQUESTS)]
        for connection in sockets:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
        time.sleep(1)  # until the workers have them

        def finish() -> list[bytes]:
            for connection in sockets:
                connection.sendall(b"\r\n")
            return [connection.makefile("rb").read() for connection in sockets]

        yield finish


def test_compose_up_on_a_fresh_clone(bake: Callable[..., Bake], engine: Engine, image: str) -> None:
    """With an engine alone: no key, no Python, no uv. The page is served, and the store can be written."""
    project = bake()
    (project.path / ".env").unlink()  # git does not have it
    port = free_port()
    file = project.path / "compose.yaml"
    file.write_text(file.read_text().replace("127.0.0.1:8000:", f"127.0.0.1:{port}:"))

    def compose(*arguments: str) -> Result:
        return engine.command(*program("podman-compose", *arguments), cwd=project.path, more=project.environment)

    def in_service(name: str, *command: str) -> str:
        return engine.run("exec", f"my-flask-app_{name}_1", *command).stdout

    def states() -> list[str]:
        return [
            row["state"] for row in json.loads(in_service("app", "flask", "secret-key", "status", "--json"))["keys"]
        ]

    try:
        compose("up", "--detach")
        browser = Browser(port)
        wait_until(lambda: served(browser), "the page")
        browser.add()
        assert browser.count() == 1
        ready = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/readyz').status)"
        assert in_service("app", "python", "-c", ready) == "200\n"
        with visiting(port) as visits:
            in_service("rotate", "flask", "secret-key", "rotate", "--in", DELAY)
            wait_until(lambda: states() == ["signing", "retired"], "the new key signs")
        assert (visits.failures, visits.lost) == ({}, 0)
        compose("restart", "app")
        wait_until(lambda: served(browser), "the page")
        assert browser.count() == 1
        assert "Nothing to do" in engine.run("logs", "my-flask-app_rotate_1").stdout
        refused = engine.run("exec", "my-flask-app_app_1", "flask", "secret-key", "revoke", "--yes", check=False)
        assert "read-only file system" in refused.stderr
    finally:
        compose("down", "--volumes")


def served(browser: Browser) -> bool:
    try:
        browser.count()
    except (OSError, http.client.HTTPException):
        return False
    return True
