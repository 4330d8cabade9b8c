"""Every test runs in a folder of its own, away from this machine's environment, home and `.env`."""

import os
import shutil
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings
from secure import inherited
from sites import PROGRAM, RedisServer

settings.register_profile("policy", database=None, deadline=None, print_blob=True)
settings.register_profile("short", settings.get_profile("policy"), max_examples=10)
settings.load_profile("policy")

KEPT = ("PATH", "LANG", "LC_", "PYTEST", "COVERAGE", "SYSTEMROOT")


@pytest.fixture(scope="session")
def _folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """New folders: pytest's own take three times as long to make, which is a tenth of a run."""
    parent = tmp_path_factory.mktemp("tests")
    return (parent / str(number) for number in count())


@pytest.fixture
def tmp_path(_folders: Iterator[Path]) -> Iterator[Path]:
    """Give a test its own empty folder."""
    folder = next(_folders)
    folder.mkdir()
    yield folder
    try:
        folder.rmdir()  # most are empty
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)  # what it cannot remove, pytest removes at the end


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave nothing of the caller's environment, and nothing behind but in this test's folder; no gunicorn master."""
    for name in os.environ:
        if not name.startswith(KEPT):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setattr(inherited, "last_valid", None)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's clock shows the time of another zone."""
    monkeypatch.setenv("TZ", "<+13>-13")
    time.tzset()
    yield
    monkeypatch.delenv("TZ")
    time.tzset()


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for the tests that leave it running."""
    if PROGRAM is None:
        pytest.skip("no redis-server or valkey-server on PATH")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis(shared_redis: RedisServer) -> Iterator[RedisServer]:
    """An empty server."""
    shared_redis.client.flushall()
    yield shared_redis
    shared_redis.leave()


@pytest.fixture
def fragile_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server for one test, to be stopped and paused."""
    if PROGRAM is None:
        pytest.skip("no redis-server or valkey-server on PATH")
    server = RedisServer(tmp_path)
    yield server
    server.leave()
    server.stop()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a long or random text after its parameter: all processes of a run must collect the same names."""
    return argname if isinstance(val, str) and len(val) > 40 else None
