"""Threads that sign and verify while the keyring changes; on a free-threaded Python they run at once."""

import sys
import sysconfig
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import Flask, session
from secure import sessions, tokens
from secure.keys import watcher
from secure.keys.key import Key, generate_key
from secure.keys.keyring import Keyring
from secure.keys.sources import FileSource

THREADS = 8
EVERY = 0.05
"""Seconds between two changes of the keyring."""
SECONDS = 3.0
KEPT = 20


def build() -> str:
    """Return the version of this Python, and whether it has a global lock."""
    free = bool(sysconfig.get_config_var("Py_GIL_DISABLED")) and not getattr(sys, "_is_gil_enabled", lambda: True)()
    return f"{sys.version.split()[0]} {'free-threaded' if free else 'with the global lock'}"


def write(path: Path, keys: list[Key]) -> None:
    """Replace the key file."""
    new = path.with_suffix(".new")
    new.write_text("".join(f"{key.text}\n" for key in keys))
    new.chmod(0o600)
    new.replace(path)


def make_app(path: Path, keys: list[Key]) -> Flask:
    """Return an app that counts, and looks at its key file before every request."""
    app = Flask("site")
    keyring = watcher.KeyringWatcher(FileSource(str(path)), Keyring(tuple(keys)), 0)
    watcher.init_app(app, keyring)
    sessions.init_app(app, keyring)

    @app.route("/")
    def count() -> str:
        session["count"] = session.get("count", 0) + 1
        assert tokens.verify(tokens.sign(7, "test"), "test", 60) == 7
        return str(session["count"])

    return app


@pytest.mark.slow
def test_threads_and_a_changing_keyring(tmp_path: Path) -> None:
    """Eight threads, a new keyring every 0.05 s: no session is lost and no token is refused."""
    path = tmp_path / "keyring"
    start = int(time.time()) - 10_000
    keys = [generate_key(start)]
    write(path, keys)
    app = make_app(path, keys)
    stop = threading.Event()

    def visit() -> tuple[int, int]:
        client = app.test_client()
        requests = lost = last = 0
        while not stop.is_set():
            answer = client.get("/")
            requests += 1
            count = int(answer.text) if answer.status_code == 200 else 0
            lost += count != last + 1
            last = count
        return requests, lost

    changes = 0
    with ThreadPoolExecutor(THREADS) as pool:
        jobs = [pool.submit(visit) for _ in range(THREADS)]
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(EVERY)
            changes += 1
            keys = [generate_key(start + changes), *keys][:KEPT]
            write(path, keys)
        stop.set()
        requests = sum(job.result()[0] for job in jobs)
        lost = sum(job.result()[1] for job in jobs)

    print(f"{build()}: {requests} requests, {changes} keyrings, {lost} lost")
    assert changes >= 5  # the threads may leave little time for it
    assert requests > 100
    assert lost == 0


def test_control(tmp_path: Path) -> None:
    """A keyring that drops its old key loses the session: the counter above would show it."""
    path = tmp_path / "keyring"
    old, new = generate_key(int(time.time()) - 100), generate_key(int(time.time()) - 50)
    write(path, [old])
    client = make_app(path, [old]).test_client()
    assert [client.get("/").text for _ in range(2)] == ["1", "2"]
    write(path, [new])

    assert client.get("/").text == "1"
