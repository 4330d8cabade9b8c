"""The image and compose.yaml, built and run by a real engine (podman with runc)."""

import base64
import http.client
import json
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from baking import PROJECT, Bake, Result
from compose_spec import PyCompose
from engine import Engine
from manifests import with_additions
from programs import program
from readme import DEPLOY, block, cell
from secure.keys.key_format import generate_text
from serving import LIMIT, free_port, wait_until
from visitors import Browser, visiting

DECOYS = (".env.production", "secrets/keyring", "id_ed25519", "keys.txt", "tests/fixture.key")
KEYS = (PROJECT / "docs" / "keys.md").read_text("utf-8")
KEYRING = "--env=SECRET_KEY_FILE=/keys/keyring"
HARDENED = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--memory=384m")
REQUESTS = 4
ROWS = "import sqlite3; print(sqlite3.connect('{}').execute('SELECT count(*) FROM user').fetchone()[0])"
ENVIRONMENT = "import os; print(os.environ['TRUSTED_PROXIES'], os.path.exists('.env'))"
DELAY = "6s"
"""When a new key starts to sign: later than the app looks at the file."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, with_database: Bake) -> Bake:
    """A project with a database, and with secrets in files of many names."""
    bake = replace(with_database, path=tmp_path_factory.mktemp("context") / "my-flask-app")
    shutil.copytree(with_database.path, bake.path)
    (bake.path / ".env").write_text(f"SECRET_KEY={generate_text(0)}\n")
    for name in (*DECOYS, f"{bake.package.name}/.env.local", f"{bake.package.name}/static/.env"):
        (bake.path / name).parent.mkdir(exist_ok=True)
        (bake.path / name).write_text(f"decoy {secrets.token_hex(32)}")
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


@pytest.mark.parametrize("slug", ["MyApp", "0day.App-x"])
def test_name_of_the_image(bake_into: Callable[..., Bake], tmp_path: Path, slug: str) -> None:
    """A name of an image has no capital letter (https://pkg.go.dev/github.com/distribution/reference)."""
    bake = bake_into(tmp_path, project_slug=slug)
    images = {service["image"] for name, service in services(bake).items() if name != "store"}
    assert images == {slug.lower()}


def test_health(project: Bake) -> None:
    """Only the app is asked for its health, as only it serves requests."""
    checks = {name: service.get("healthcheck") for name, service in services(project).items() if name != "store"}
    assert checks == {"app": None, "first-key": {"disable": True}, "rotate": {"disable": True}}


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
    code = {"README.md", "gunicorn.conf.py", "migrations", "pyproject.toml", "uv.lock", project.package.name}
    assert set(listed) == {".venv", "instance", *code}
    # Docker gives a new volume the owner and the mode of the image's folder.
    folders = engine.run("run", "--rm", "--network=none", image, "stat", "--format=%u %a", "/keys", "instance").stdout
    assert folders.splitlines() == ["10001 700"] * 2
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


def test_mounted_file(engine: Engine, image: str, keys: Path) -> None:
    """A file that is mounted by itself cannot be replaced, as docs/keys.md says."""
    [(volume, place)] = re.findall(r"`docker run -v ./keyring:(/run/(\w+))`", KEYS)
    mounted = ("--network=none", f"--volume={keys / place}:{volume}", f"--env=SECRET_KEY_FILE={volume}")
    before = (keys / place).read_text()
    rotation = ("flask", "secret-key", "rotate")
    assert engine.run("run", "--rm", *HARDENED, *mounted, image, *rotation, check=False).returncode == 1
    assert (keys / place).read_text() == before


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


def test_compose(with_database: Bake, engine: Engine, image: str, tmp_path: Path) -> None:
    """The commands of the page, on a fresh clone with an engine alone: no key, no Python, no uv."""
    project, port = replace(with_database, path=tmp_path / "my-flask-app"), free_port()
    shutil.copytree(with_database.path, project.path)
    file = project.path / "compose.yaml"
    file.write_text(file.read_text().replace("127.0.0.1:8000:", f"127.0.0.1:{port}:"))
    compose = f'if test "$1" = compose; then shift; exec {shlex.join(program("podman-compose"))} "$@"; fi'
    (tmp_path / "docker").write_text(f'#!/bin/sh\n{compose}\nexec podman "$@"\n')
    (tmp_path / "docker").chmod(0o755)

    def sh(command: str, check: bool = True) -> Result:
        command = command.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        lines = f"PATH='{tmp_path}':$PATH\n{command}"
        return engine.command("sh", "-euc", lines, cwd=project.path, more=project.environment, check=check)

    def states() -> list[str]:
        shown = engine.run("exec", "my-flask-app_app_1", "flask", "secret-key", "status", "--json").stdout
        return [row["state"] for row in json.loads(shown)["keys"]]

    rows = ("show the keys", "rotate now", "after a leak", "your host name")
    [show], [rotate], [revoke], with_host = (cell("Docker Compose", label) for label in rows)
    browser = Browser(port)
    try:
        assert sh(block("compose: start")).stdout.endswith("ok\n")
        assert [has_check(engine, name) for name in ("app", "rotate")] == [True, False]
        browser.count()
        browser.add()
        assert browser.count() == 1
        ready = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/readyz').status)"
        assert engine.run("exec", "my-flask-app_app_1", "python", "-c", ready).stdout == "200\n"
        with visiting(port) as visits:
            sh(f"{rotate} --in {DELAY}")
            assert " upcoming " in sh(show).stdout
            wait_until(lambda: states() == ["signing", "retired"], "the new key signs")
        assert (visits.failures, visits.lost) == ({}, 0)
        assert "Nothing to do" in engine.run("logs", "my-flask-app_rotate_1").stdout
        refused = sh(revoke.replace("exec rotate", "exec app"), check=False)
        assert "read-only file system" in refused.stdout + refused.stderr

        (project.path / "compose.override.yaml").write_text(block("compose: override"))
        settings = "SQLALCHEMY_DATABASE_URI=sqlite:///own.db\nSECRET_KEY_INTERVAL=1s\n"
        (project.path / ".env.production").write_text(settings)
        sh(block("compose: deploy"))
        wait_until(lambda: served(browser), "the page")
        assert browser.count() == 1
        assert engine.run("exec", "my-flask-app_app_1", "python", "-c", ROWS.format("instance/own.db")).stdout == "0\n"

        [shows] = re.findall("`(docker inspect)`", DEPLOY.read_text("utf-8"))
        assert "SECRET_KEY_INTERVAL=1s" in sh(f"{shows} my-flask-app_app_1").stdout, "it shows variables"

        sh(revoke)
        wait_until(lambda: browser.count() == 0, "the end of the old session")
        sh(" && ".join(with_host))
        sh(block("compose: deploy"))  # keeps the host name
        wait_until(lambda: [status(port, host) for host in ("app.example.org", "localhost")] == [200, 400], "the host")
        assert engine.run("exec", "my-flask-app_app_1", "python", "-c", ENVIRONMENT).stdout == "1 False\n"
    finally:
        sh("docker compose down --volumes")


def test_pod(engine: Engine, image: str, tmp_path: Path) -> None:
    """The pod for Kubernetes, with its settings in a Secret: the database is updated before the app starts."""
    [store] = re.findall("`(kubectl create secret .*?)`", DEPLOY.read_text("utf-8"))
    [show] = cell("Kubernetes", "show the keys")
    pod = with_additions()[0]["spec"]["template"]
    spec = pod["spec"] | {"restartPolicy": "Never"}
    for container in (*spec["initContainers"], *spec["containers"]):
        container["image"] = image
        container["env"] = [each for each in container["env"] if each["name"] != "SESSION_STORE"]
    for volume in spec["volumes"]:
        volume.get("secret", {})["optional"] = False  # podman 4.3 needs it
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app", **pod["metadata"]}, "spec": spec}
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(manifest))
    (tmp_path / ".env.production").write_text("SQLALCHEMY_DATABASE_URI=sqlite:////tmp/own.db\n")

    def secret(name: str, content: dict[str, object]) -> None:
        (tmp_path / name).write_text(json.dumps(content))
        engine.run("secret", "create", name, str(tmp_path / name))

    def kubectl(command: str) -> str:
        """Do with podman what this command of kubectl does."""
        if made := re.fullmatch(r"kubectl create secret generic (\w+) --from-env-file=(\S+)", command):
            variables = (line.split("=", 1) for line in (tmp_path / made[2]).read_text().splitlines())
            secret(made[1], {name: base64.b64encode(text.encode()).decode() for name, text in variables})
            return ""
        start = "kubectl exec deploy/app -- "
        assert command.startswith(start)
        return engine.run("exec", "app-app", *shlex.split(command.removeprefix(start))).stdout

    try:
        kubectl(store)
        secret("secret-key", {"kind": "Secret", "data": {"keyring": generate_text(0)}})  # podman 4.3 does not decode it
        engine.run("kube", "play", str(tmp_path / "pod.yaml"))
        assert " signing " in kubectl(show)
        rows = ROWS.format("/tmp/own.db")  # noqa: S108
        assert engine.run("exec", "app-app", "python", "-c", rows).stdout == "0\n"
        ask = "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz')"
        wait_until(lambda: not engine.run("exec", "app-app", "python", "-c", ask, check=False).returncode, "health")
    finally:
        engine.run("kube", "down", str(tmp_path / "pod.yaml"), check=False)
        engine.run("secret", "rm", "settings", "secret-key", check=False)


def has_check(engine: Engine, service: str) -> bool:
    """Whether the engine asks a service for its health."""
    shown = engine.run("inspect", "--format={{.Config.Healthcheck}}", f"my-flask-app_{service}_1").stdout
    return not shown.startswith(("<nil>", "{[NONE]"))


def status(port: int, host: str) -> int:
    """Return the status of the start page of a host; 0 while nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        connection.request("GET", "/", headers={"Host": host})
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def served(browser: Browser) -> bool:
    try:
        browser.count()
    except (OSError, http.client.HTTPException):
        return False
    return True
