"""The master of gunicorn, in this process; tests/serving has it with real workers."""

import signal
from collections.abc import Iterator
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
    signal.signal(signal.SIGALRM, before)
    inherited.last_valid = kept


def test_timer_during_a_refresh(tmp_path: Path, timer: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key file is replaced while the master reads it, and the timer fires: the newer keyring wins."""
    server = pytest.importorskip("secure.server")
    keyring, order = tmp_path / "keyring", list[str]()
    keyring.write_text(f"{KEY}\n")
    keyring.chmod(0o600)
    monkeypatch.setenv("SECRET_KEY_FILE", str(keyring))
    monkeypatch.setenv("APP_ENV", "production")
    monkeypatch.delenv("SECRET_KEY", raising=False)

    class Ours(Settings):
        @classmethod
        def load(cls, *arguments: Any, **options: Any) -> Any:
            loaded = super().load(*arguments, **options)
            order.append("read")
            if len(order) == 2:
                keyring.write_text(f"{NEW}\n")
                signal.raise_signal(signal.SIGALRM)
                order.append("done")
            return loaded

    monkeypatch.setattr(server, "_PROJECT", "no such project")  # this process keeps its modules
    master = server.Master(Ours)
    gunicorn = SimpleNamespace(app=None, log=SimpleNamespace(info=print, error=print))
    signal.signal(signal.SIGALRM, lambda *_: master.pre_fork(gunicorn))

    master.pre_fork(gunicorn)

    assert order == ["read", "read", "done", "read"]
    assert inherited.last_valid
    assert inherited.last_valid[1] == (NEW,)
