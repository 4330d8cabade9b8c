"""gunicorn refuses to start with a bad key, with a clear message; no bad key stops a running site.

`pytest -rP` shows how long each refusal takes, beside a bare import of the app.
"""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import flask_unsign_wordlist
import pytest
from baking import Bake, run
from running import Server, Site
from serving import wait_until

PUBLIC_KEY = re.compile(rb"^'([0-9a-f]{64})'$", re.MULTILINE)
FLAGS = [
    ("--worker-class", "sync", "--workers", "1"),
    ("--worker-class", "gthread", "--workers", "4"),
    ("--preload", "--worker-class", "sync", "--workers", "4"),
    ("--preload", "--worker-class", "gthread", "--workers", "1"),
]
"""Each value of a flag with each value of another one."""
preload_or_not = pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])


def public_key() -> str:
    """A key of the public word list that looks random."""
    found = PUBLIC_KEY.search(Path(flask_unsign_wordlist.get("all")).read_bytes())
    assert found
    return found[1].decode()


REFUSED: dict[str, dict[str, str]] = {
    "no key": {},
    "a short key": {"SECRET_KEY": "short"},
    "a leaked key": {"SECRET_KEY": public_key()},
    "a file that is not there": {"SECRET_KEY_FILE": "no/such/file"},
    "three mistakes": {"SECRET_KEY": "short", "SECRET_KEY_FALLBACKS": "a,,b", "TRUSTED_PROXIES": "all"},
}


@pytest.mark.parametrize("variables", REFUSED.values(), ids=REFUSED)
def test_refused_start(shared: Bake, tmp_path: Path, variables: dict[str, str]) -> None:
    """A start with a bad key ends at once, with the message of the app."""
    says, bare = refusal_of_the_app(shared, variables)
    for flags in FLAGS:
        pidfile = tmp_path / "pid"
        began = time.monotonic()
        result = start(shared, variables, "--pid", str(pidfile), "--bind", "127.0.0.1:0", *flags)
        seconds = time.monotonic() - began
        assert result.returncode == 1
        assert (result.stdout, result.stderr) == ("", says)
        assert not pidfile.exists()
        lines = len(says.splitlines())
        print(f"| {' '.join(flags)} | {result.returncode} | {seconds / bare:.2f} | {lines} |")


@pytest.mark.parametrize("variables", REFUSED.values(), ids=REFUSED)
def test_check_config(shared: Bake, variables: dict[str, str]) -> None:
    """--check-config shows the same message."""
    result = start(shared, variables, "--check-config")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == refusal_of_the_app(shared, variables)[0]


def test_check_config_with_valid_key(shared: Bake) -> None:
    result = start(shared, {"SECRET_KEY": secrets.token_hex(32)}, "--check-config")
    assert result.returncode == 0, result.stderr


def refusal_of_the_app(bake: Bake, variables: Mapping[str, str]) -> tuple[str, float]:
    """The lines of the one SettingsError, and the seconds of a bare import of the app."""
    package = bake.package.name
    code = (
        "import sys, time; began = time.monotonic()\n"
        f"from {package} import app, config, secure\n"
        "seconds = time.monotonic() - began\n"
        "try: app.create_app()\n"
        "except secure.SettingsError as error: print(error.message, file=sys.stderr)\n"
        "print(seconds)"
    )
    environment = {**bake.environment, "APP_ENV": "production", **variables}
    result = run(bake.program("python"), "-c", code, cwd=bake.path, environment=environment)
    return result.stderr, float(result.stdout)


def start(bake: Bake, variables: Mapping[str, str], *flags: str) -> "subprocess.CompletedProcess[str]":
    """Run gunicorn until it ends, and check that no process of it is left."""
    with subprocess.Popen(
        [bake.program("gunicorn"), *flags],
        cwd=bake.path,
        env={**bake.environment, "APP_ENV": "production", **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=30)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
                pytest.fail("gunicorn left a process")
    return subprocess.CompletedProcess(flags, process.returncode, stdout, stderr)


@pytest.fixture
def site(shared: Bake, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """A function that makes a site; afterwards the site is stopped, and its log has no key and no traceback."""
    sites: list[Site] = []

    def make(*flags: str, bake: Bake = shared) -> Site:
        sites.append(Site(bake, tmp_path, *flags))
        return sites[-1]

    yield make
    for made in sites:
        made.stop()
        log = made.log.read_text()
        print("\n".join(line for line in log.splitlines() if " 200 in " not in line))
        assert "Traceback" not in log
        assert not re.search("[0-9a-f]{32}", log), "a key is in the log"


@pytest.fixture
def own(shared: Bake, tmp_path: Path) -> Bake:
    """A copy of the project for a test that changes it."""
    return shared.copied(tmp_path / "own", ".git")


@preload_or_not
def test_new_worker_after_bad_edit(site: Callable[..., Site], preload: tuple[str, ...]) -> None:
    """A worker that starts after a bad edit has the last valid keyring."""
    running = site("--workers", "1", *preload)
    running.rotate()
    running.rotate()
    worker, signer = running.visit()
    running.spoil()
    for crash in (True, False, True, False, True):
        complaints = running.complaints()
        if crash:
            os.kill(worker, signal.SIGKILL)
        else:
            running.reload()
        worker = running.other_worker(worker)
        assert running.visit()[1] == signer, "an older keyring signs"
        assert running.complaints() <= complaints + 1, "the error is logged once a worker"
    running.keys.unlink()
    running.flask("init")
    wait_until(lambda: running.get("/count")[1]["Signer"] != signer, "the corrected file is followed")


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_recycled_workers(site: Callable[..., Site], worker: str) -> None:
    """Workers that gunicorn replaces after max_requests have the last valid keyring."""
    running = site("--workers", "2", "--max-requests", "10", "--worker-class", worker)
    running.rotate()
    running.spoil()
    signer = running.visit()[1]
    served_by = {running.visit() for _ in range(50)}
    assert {key for _, key in served_by} == {signer}
    assert len(served_by) > 2, "no worker was recycled"


def emptied(keys: Path) -> None:
    keys.write_text("")


def made_a_folder(keys: Path) -> None:
    keys.unlink()
    keys.mkdir()


def made_a_dangling_link(keys: Path) -> None:
    keys.unlink()
    keys.symlink_to("nowhere")


def made_binary(keys: Path) -> None:
    keys.write_bytes(secrets.token_bytes(64) + b"\xff")


def leaked(keys: Path) -> None:
    keys.write_text(public_key())


def opened_to_others(keys: Path) -> None:
    keys.chmod(0o666)


@pytest.mark.parametrize(
    "edit",
    [Path.unlink, emptied, made_a_folder, made_a_dangling_link, made_binary, leaked, opened_to_others],
    ids=lambda edit: edit.__name__,
)
def test_reload_with_bad_key_file(site: Callable[..., Site], edit: Callable[[Path], None]) -> None:
    """A reload with a bad key file keeps the last valid keyring."""
    running = site("--workers", "1")
    worker, signer = running.visit()
    edit(running.keys)
    running.reload()
    running.other_worker(worker)
    assert running.visit()[1] == signer
    assert running.complaints()


def booted(log: Path, workers: int) -> bool:
    """Whether this many workers have started."""
    return log.read_text().count("Booting worker") == workers


@preload_or_not
def test_reload_with_bad_dotenv(own: Bake, tmp_path: Path, preload: tuple[str, ...]) -> None:
    """A reload with a bad `.env` keeps the last valid settings; a reload with a corrected one follows it."""
    dotenv, log = own.path / ".env", tmp_path / "log"
    good = f"SECRET_KEY={secrets.token_hex(32)}\nTRUSTED_HOSTS=127.0.0.1\n"
    dotenv.write_text(good)
    server = Server(own, log, {"APP_ENV": ""}, "--workers", "1", *preload)
    try:
        for reloads, bad in enumerate((f"{good}TRUSTED_PROXIES=one\n", "\0", "")):
            dotenv.write_text(bad)
            server.reload()
            wait_until(partial(booted, log, reloads + 2), "a new worker")
            wait_until(lambda: server.shows("<form"), "the page")
        dotenv.write_text(good.replace("127.0.0.1", "elsewhere.example"))
        server.reload()
        # A preloaded app is the same one until the server starts anew.
        wait_until(lambda: server.shows("<form") == bool(preload), "the corrected file counts")
    finally:
        server.stop()
    said = log.read_text()
    assert "Keeping the last valid settings: TRUSTED_PROXIES: " in said
    assert "Traceback" not in said


def test_new_worker_after_edit_of_dotenv(own: Bake, tmp_path: Path) -> None:
    """A worker that starts after an edit of `.env` has the settings of the others, until a reload."""
    dotenv, log = own.path / ".env", tmp_path / "log"
    good = f"SECRET_KEY={secrets.token_hex(32)}\nTRUSTED_HOSTS=127.0.0.1\n"
    dotenv.write_text(good)
    server = Server(own, log, {"APP_ENV": ""}, "--workers", "1", app="visited:app()")
    try:
        first = server.get("/count")[1]["Worker"]
        dotenv.write_text(good.replace("127.0.0.1", "elsewhere.example"))
        os.kill(int(first), signal.SIGKILL)
        wait_until(partial(booted, log, 2), "a new worker")
        assert server.get("/count")[1]["Worker"] != first
        server.reload()
        wait_until(lambda: server.get("/count")[1]["Worker"] is None, "the edit counts")
    finally:
        server.stop()


@preload_or_not
def test_key_in_dotenv_and_environment(own: Bake, tmp_path: Path, preload: tuple[str, ...]) -> None:
    """A key that is in `.env` and in the environment follows the file."""
    dotenv, log = own.path / ".env", tmp_path / "log"
    old, new = secrets.token_hex(32), secrets.token_hex(32)
    settings = "APP_ENV=production\nSECRET_KEY_INTERVAL=1s\nTRUSTED_HOSTS=127.0.0.1\n"
    dotenv.write_text(f"{settings}SECRET_KEY={old}\n")
    server = Server(own, log, {"SECRET_KEY": old}, "--workers", "1", *preload, app="visited:app()")
    try:
        before = server.get("/count")[1]["Signer"]
        dotenv.write_text(f"{settings}SECRET_KEY={new}\n")
        wait_until(lambda: server.get("/count")[1]["Signer"] != before, "the new key signs")
        server.reload()
        wait_until(partial(booted, log, 2), "a new worker")
        assert server.get("/count")[1]["Signer"] != before
    finally:
        server.stop()


def test_reload_of_code(site: Callable[..., Site], own: Bake) -> None:
    """A reload serves new code, even with a bad key file."""
    running = site("--workers", "2", bake=own)
    for release in ("Second release", "Third release"):
        views = own.package / "views.py"
        views.write_text(
            views.read_text()
            + f"\n\n@bp.app_context_processor\ndef release():\n    return {{'app_name': '{release}'}}\n"
        )
        running.reload()
        wait_until(partial(running.shows, f">{release}<"), "the new release")
        running.keys.write_text(f"not a key in the {release.lower()}")


def test_modules_of_the_master(shared: Bake) -> None:
    """The master keeps no module that a reload must import again."""
    code = (
        "import sys; from gunicorn.app.wsgiapp import WSGIApplication\n"
        "sys.argv[1:] = ['--check-config']\n"
        "WSGIApplication().load_config()\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = shared.run(shared.program("python"), "-c", code, SECRET_KEY=secrets.token_hex(32)).stdout
    theirs = set(loaded.split()) - sys.stdlib_module_names
    assert not theirs & {"flask", "werkzeug"}
    assert "gunicorn" in theirs


@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
def test_upgrade_of_the_master(site: Callable[..., Site], good: bool) -> None:
    """After USR2, one master serves: the new one, or the old one if the key file is bad."""
    running = site("--workers", "1")
    worker, signer = running.visit()
    if not good:
        running.spoil()
    os.kill(running.master, signal.SIGUSR2)
    if good:
        running.other_worker(worker)
        os.kill(running.master, signal.SIGTERM)  # not QUIT, which drops the requests that it has taken
        assert running.visit()[1] == signer
    else:
        refusal = f"{running.keys} line 1: "
        wait_until(
            lambda: any(line.startswith(refusal) for line in running.log.read_text().splitlines()),
            "the new master's refusal",
        )
        assert running.visit() == (worker, signer)


def test_json_log(shared: Bake, tmp_path: Path) -> None:
    """In production every log line is JSON, and one has the request with its ID."""
    server = Server(shared, tmp_path / "log", {"SECRET_KEY": secrets.token_hex(32)})
    try:
        given = server.get("/")[1]["X-Request-ID"]
    finally:
        server.stop()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert {line["logger"] for line in lines} >= {"gunicorn.error", f"{shared.package.name}.secure.logging"}
    (request,) = (line for line in lines if line.get("request_id") == given and "status" in line)
    assert (request["method"], request["path"], request["status"]) == ("GET", "/", 200)


@preload_or_not
def test_notices_once(shared: Bake, tmp_path: Path, preload: tuple[str, ...]) -> None:
    """A start and a reload are logged once for all workers."""
    log = tmp_path / "log"
    flags = ("--workers", "2", "--worker-class", "sync", *preload)
    server = Server(shared, log, {"SECRET_KEY": secrets.token_hex(32)}, *flags, app="visited:app()")

    def worker() -> str:
        return server.get("/count")[1]["Worker"]

    try:
        first = worker()
        wait_until(lambda: worker() != first, "the other worker")
        server.reload()
        wait_until(lambda: booted(log, 4) and worker(), "new workers")
    finally:
        server.stop()
    messages = [json.loads(line)["message"] for line in log.read_text().splitlines()]
    assert len([message for message in messages if message.startswith("Secret key: ")]) == 2
    assert messages.count("TRUSTED_HOSTS: not set, so every host name is served") == 2


def test_bind_workers_threads(shared: Bake) -> None:
    """The environment sets the address, the workers and the threads."""
    key = secrets.token_hex(32)
    default = printed_config(shared, SECRET_KEY=key)
    assert default["bind"] == "['127.0.0.1:8000']"
    assert (default["workers"], default["threads"]) == ("2", "4")
    assert default["control_socket_disable"] == "True"
    told = printed_config(shared, SECRET_KEY=key, PORT="5001", WEB_CONCURRENCY="3", WEB_THREADS="1")
    assert told["bind"] == "['[::]:5001']"
    assert (told["workers"], told["threads"]) == ("3", "1")
    assert printed_config(shared, SECRET_KEY=key, WEB_THREADS="")["threads"] == "4"


@pytest.mark.parametrize(
    ("name", "value", "default"),
    [("WEB_THREADS", "four", 4), ("WEB_THREADS", "0", 4), ("WEB_CONCURRENCY", "0", 2)],
)
def test_bad_number(shared: Bake, name: str, value: str, default: int) -> None:
    """A number of workers or threads that is not one is refused in one line."""
    result = start(shared, {"SECRET_KEY": secrets.token_hex(32), name: value})
    assert result.returncode == 1
    assert result.stderr == f"{name}: must be a whole number above zero, such as {default}\n"


def printed_config(bake: Bake, **variables: str) -> dict[str, str]:
    """Return the settings that gunicorn prints."""
    printed = start(bake, variables, "--print-config").stdout
    return {name.strip(): value.strip() for name, _, value in (s.partition("=") for s in printed.splitlines())}


@pytest.mark.parametrize(
    ("proxies", "seen"), [("0", "http 127.0.0.1 "), ("1", "https 203.0.113.9 ")], ids=["none", "one"]
)
def test_forwarded_headers(shared: Bake, tmp_path: Path, proxies: str, seen: str) -> None:
    """Forwarded headers count only with TRUSTED_PROXIES."""
    variables = {"SECRET_KEY": secrets.token_hex(32), "TRUSTED_PROXIES": proxies}
    server = Server(shared, tmp_path / "log", {**variables, "FORWARDED_ALLOW_IPS": "*"}, app="visited:app()")
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "on", "X-Forwarded-For": "203.0.113.9"}
    try:
        _, headers = server.get("/count", **forwarded, Script_Name="/elsewhere")
    finally:
        server.stop()
    assert headers["Seen"] == seen.strip()


def test_commands_without_key(shared: Bake, tmp_path: Path) -> None:
    """--help and every secret-key command work without a key."""

    def flask(*arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {**shared.environment, "APP_ENV": "production"}
        command = (shared.program("flask"), *arguments)
        return run(*command, cwd=tmp_path, environment=environment, check=False)

    assert "secret-key" in flask("--app", shared.package.name, "--help").stdout
    listed = flask("secret-key", "--help").stdout.partition("Commands:\n")[2]
    commands = re.findall(r"^  (\w+)", listed, re.MULTILINE)
    assert {"init", "generate", "status", "rotate", "revoke", "scan"} <= set(commands)
    for command in commands:
        assert flask("secret-key", command, "--help").returncode == 0
        done = flask("secret-key", command)
        assert "Traceback" not in done.stderr
        assert done.returncode == 0 or done.stderr.startswith("Error: "), done.stderr
    assert flask("secret-key", "generate").returncode == 0
