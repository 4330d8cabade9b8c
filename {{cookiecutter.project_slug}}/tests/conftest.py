"""Every test runs in a folder of its own, away from this machine's environment, home and `.env`."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("policy", deadline=None, print_blob=True)
settings.load_profile("policy")

KEPT = ("PATH", "LANG", "LC_", "PYTEST", "COVERAGE", "SYSTEMROOT")


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave nothing of the caller's environment, and nothing behind but in this test's folder."""
    for name in os.environ:
        if not name.startswith(KEPT):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.chdir(tmp_path)
