"""The master of gunicorn, in this process; tests/serving has it with real workers."""

import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from apps import KEY
from secure import inherited
from secure.keys.key import generate_key
from secure.settings import Settings

NEW = generate_key(1_800_000_000).text


@pytest.fixture
def timer() -> Iterator[None]:
    """The signal handler of this process, put back at the end."""
    before, kept = signal.getsignal(signal.SIGALRM), inherited.last_valid
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    inherited.last_valid = kept


@pytest.fixture
def server(timer: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module; a master leaves this process its modules."""
    module = pytest.importorskip("secure.server")
    monkeypatch.setattr(module, "_PROJECT", "no such project")
    return module


@pytest.fixture
def keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The key file of a server in production."""
    path = tmp_path / "keyring"
    path.write_text(f"{KEY}\n")
    path.chmod(0o600)
    monkeypatch.setenv("SECRET_KEY_FILE", str(path))
    monkeypatch.setenv("APP_ENV", "production")
    return path


GUNICORN = SimpleNamespace(app=None, log=logging.getLogger("gunicorn.error"))


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the errors that the log has so far, each without its hint."""
    return [record.getMessage().partition("\n")[0] for record in caplog.records if record.levelno == logging.ERROR]


def reading(note: Callable[[Any], object]) -> type[Settings]:
    """Return settings that tell `note` each time that they are read."""

    class Ours(Settings):
        @classmethod
        def load(cls, *arguments: Any, **options: Any) -> Any:
            loaded = super().load(*arguments, **options)
            note(loaded)
            return loaded

    return Ours


def test_timer_during_a_refresh(keyring: Path, server: Any) -> None:
    """The key file is replaced while the master reads it, and the timer fires: the newer keyring wins."""
    order = list[str]()

    def note(_: Any) -> None:
        order.append("read")
        if len(order) == 2:
            keyring.write_text(f"{NEW}\n")
            signal.raise_signal(signal.SIGALRM)
            order.append("done")

    master = server.Master(reading(note))
    signal.signal(signal.SIGALRM, lambda *_: master.pre_fork(GUNICORN))

    master.pre_fork(GUNICORN)

    assert order == ["read", "read", "done", "read"]
    assert inherited.last_valid
    assert inherited.last_valid[1] == (NEW,)


def test_dotenv_is_gone(
    tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Workers start with the last valid `.env`, not with an old key of the process; the log says so once."""
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"APP_ENV=development\nSECRET_KEY={KEY}\n")
    dotenv.chmod(0o600)
    master = server.Master(Settings)
    before = inherited.last_valid
    monkeypatch.setenv("SECRET_KEY", NEW)
    told = "Keeping the last valid settings: .env: missing or empty"
    for remove in (dotenv.unlink, dotenv.touch):
        remove()
        for _ in range(3):
            master.pre_fork(GUNICORN)
        assert inherited.last_valid == before
        assert errors(caplog) == [told]

    dotenv.write_text(f"APP_ENV=development\nSECRET_KEY={KEY}\n")
    master.pre_fork(GUNICORN)
    dotenv.unlink()
    master.pre_fork(GUNICORN)
    assert errors(caplog) == [told] * 2, "it was valid in between"


@pytest.mark.parametrize("valid", [True, False])
def test_problem_at_the_start(
    server: Any, valid: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A master that starts with the last valid settings after a reload says why."""
    monkeypatch.setenv("APP_ENV", "production")
    monkeypatch.setenv("SECRET_KEY", KEY if valid else "short")
    inherited.last_valid = (None, (KEY,))

    server.Master(Settings).on_ready(GUNICORN)

    told = [line.partition("SECRET_KEY: ")[0] for line in errors(caplog)]
    assert told == ([] if valid else ["Keeping the last valid settings: "])


def test_timer(keyring: Path, server: Any) -> None:
    """It refreshes the settings once for each change of the key file; a worker does not have it."""
    read = list[str]()

    master = server.Master(reading(lambda loaded: read.append(loaded.keyring.keys[0].text)))
    master.on_ready(GUNICORN)
    for _ in range(3):
        signal.raise_signal(signal.SIGALRM)
    changed = keyring.with_name("changed")
    changed.write_text(f"{NEW}\n")
    changed.chmod(0o600)
    changed.replace(keyring)
    for _ in range(3):
        signal.raise_signal(signal.SIGALRM)
    assert read == [KEY, KEY, NEW], "the first time, the master has not looked at the file yet"

    master.post_fork(GUNICORN, None)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
