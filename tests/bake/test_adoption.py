"""Follow `docs/adopting.md` step by step, on a plain app with a live session: nobody is logged out."""

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from baking import TEMPLATE, UV, Bake, Result, run
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import BadSignature
from serving import Server, serving, wait_until

PAGE = TEMPLATE / "docs" / "adopting.md"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Shop(NamedTuple):
    """The app of the page, beside a project of the template."""

    folder: Path
    environment: dict[str, str]
    """The variables of the person who follows the page."""
    steps: Iterator[tuple[str, str]]
    """The steps that are left: a file and its text, or no file and commands."""

    def follow(self, until: str, text_for: tuple[str, str] = ("", "")) -> None:
        """Do the steps of the page up to the one that contains `until`; replace one text by another in commands."""
        for file, text in self.steps:
            if file:
                (self.folder / file).write_text(text, "utf-8")
            else:
                self.type(text.replace(*text_for))
            if until in text:
                return
        pytest.fail(f"the page has no step with {until}")

    def type(self, commands: str, check: bool = True) -> Result:
        """Run commands in the app's folder, and return their result."""
        result = run("sh", "-euc", commands, cwd=self.folder, environment=self.environment, check=check)
        if "unset SECRET_KEY" in commands:
            del self.environment["SECRET_KEY"]
        return result

    def serving(self) -> AbstractContextManager[Server]:
        """Run the app."""
        command = ("flask", "--app", "shop.app", "run", "--port", "PORT")
        log = self.folder / "log"
        return serving(*command, folder=self.folder, log=log, environment=self.environment)

    def keyring(self) -> dict[str, Any]:
        """Return what `flask secret-key status` shows."""
        shown: dict[str, Any] = json.loads(self.type("flask secret-key status --json").stdout)
        return shown

    def states(self) -> list[str]:
        """Return the state of each key of the keyring, newest first."""
        return [key["state"] for key in self.keyring()["keys"]]


@pytest.fixture
def shop(tmp_path: Path, shared: Bake, environment: dict[str, str]) -> Shop:
    """The app as it is at the top of the page, with a key that was generated elsewhere."""
    (tmp_path / shared.path.name).symlink_to(shared.path)
    folder = tmp_path / "shop"
    (folder / "shop").mkdir(parents=True)
    (folder / "shop" / "__init__.py").touch()
    run(UV, "venv", "--quiet", cwd=folder, environment=environment)
    programs = folder / ".venv" / "bin"
    path = f"{programs}:{Path(UV).parent}:{environment['PATH']}"
    steps = ((file, text) for _, file, text in BLOCK.findall(PAGE.read_text("utf-8")))
    own = {"PATH": path, "UV_PYTHON": str(programs / "python"), "SECRET_KEY": secrets.token_urlsafe(32)}
    shop = Shop(folder, {**environment, **own}, steps)
    shop.follow(until="[project]")
    shop.type("uv pip install --quiet --editable .")
    return shop


def test_keys_alone(shop: Shop) -> None:
    """A session from before stays valid, and git would add no key."""
    shop.type("git init --quiet")
    with shop.serving() as server:
        before = server.get().cookies["session"]
    shop.follow(until="flask secret-key status")
    with shop.serving() as server:
        assert server.get(session=before).body == "2\n"
        shop.follow(until="flask secret-key rotate")
        assert server.get(session=before).body == "2\n"
    assert shop.states() == ["upcoming", "signing"]
    assert shop.keyring()["keys"][1]["signs_from"] is None, "the key from before"
    assert shop.keyring()["retention_seconds"] == Flask("stock").permanent_session_lifetime.total_seconds()
    shop.type("git add --all && flask secret-key scan")
    assert "shop/keys/watcher.py" in shop.type("git ls-files").stdout


def test_rotation(shop: Shop) -> None:
    """A session from before outlives the rotation."""
    key = shop.environment["SECRET_KEY"]
    with shop.serving() as server:
        before = server.get().cookies["session"]
    assert signed_by(key, before)
    shop.follow(until="flask secret-key status")
    with shop.serving() as server:
        shop.follow(until="flask secret-key rotate", text_for=("rotate", "rotate --in 1s"))
        wait_until(lambda: not signed_by(key, server.get(session=before).cookies["session"]), "the new key")
        after = server.get(session=before)
        assert after.body == "2\n"
        assert server.get(session=after.cookies["session"]).body == "3\n"
    assert shop.states() == ["signing", "retired"]


def test_bad_key(shop: Shop) -> None:
    """A key that cannot stay is refused, and `revoke` replaces it."""
    shop.environment["SECRET_KEY"] = "not-so-secret"
    with shop.serving() as server:
        before = server.get().cookies["session"]
    shop.follow(until="watcher.init_app")
    refused = shop.type("flask --app shop.app routes", check=False)
    assert refused.returncode
    assert "SECRET_KEY: is too short" in refused.stderr
    shop.type("flask secret-key revoke --yes")
    with shop.serving() as server:
        assert server.get(session=before).body == "1\n"


def test_first_key(shop: Shop) -> None:
    """`init` writes no reference to a file that does not exist here."""
    del shop.environment["SECRET_KEY"]
    shop.follow(until="[project.entry-points")
    shop.type("uv pip install --quiet --editable . && flask secret-key init")
    text = (shop.folder / ".env").read_text("utf-8")
    assert "SECRET_KEY=fsk_" in text
    assert not re.search(r"\w/\w|\.(md|example|py)\b", text), text


def test_existing_env(shop: Shop) -> None:
    """The commands change no `.env` that is there. The reader adds two lines, and makes it private."""
    env = shop.folder / ".env"
    env.write_text("PORT=8000\n", "utf-8")
    env.chmod(0o644)
    shop.follow(until="uv pip install")
    _, commands = next(shop.steps)
    assert "set -C" in commands
    assert shop.type(commands, check=False).returncode
    assert env.read_text("utf-8") == "PORT=8000\n"
    [private] = re.findall("`(chmod [^`]+)`", PAGE.read_text("utf-8"))
    lines = f"SECRET_KEY='{secrets.token_urlsafe(32)}'\nSECRET_KEY_RETENTION=31d\n"
    env.write_text(f"PORT=8000\n{lines}", "utf-8")
    shop.type(private)
    assert env.stat().st_mode & 0o777 == 0o600
    assert shop.states() == ["signing"]


def test_whole_of_secure(shop: Shop) -> None:
    """The whole of `secure` takes over a session of stock Flask."""
    with shop.serving() as server:
        before = server.get().cookies["session"]
    shop.follow(until="flask secret-key rotate")
    shop.follow(until="SESSION_READ_SHA1")
    assert list(shop.steps) == [], "the whole page"
    with shop.serving() as server:
        answer = server.get(session=before)
        assert answer.body == "2\n"
        own = next(name for name in answer.cookies if name != "session")
        assert server.get(**{own: answer.cookies[own]}).body == "3\n"
    shop.type("uv build --quiet --wheel --out-dir dist")
    files = shop.type("python -m zipfile --list dist/*.whl").stdout
    for name in ("keys/leaked.bin", "status/templates/secure/status.html", "release.sha256", "README.md"):
        assert f"shop/secure/{name}" in files
    found = json.loads(shop.type("flask --app shop.app secure-audit --json", check=False).stdout)["found"]
    assert [name for name in found if name.startswith("secure/")] == []


def signed_by(key: str, cookie: str) -> bool:
    """Whether stock Flask accepts a session cookie with `key` alone."""
    app = Flask("stock")
    app.secret_key = key
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer
    try:
        serializer.loads(cookie)
    except BadSignature:
        return False
    return True
