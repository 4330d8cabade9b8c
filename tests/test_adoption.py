"""`docs/adopting.md`, followed step by step on a plain app with a live session: nobody is logged out."""

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import UV, Bake, Result, run
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import BadSignature
from serving import Server, serving, wait_until

PAGE = "docs/adopting.md"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Shop(NamedTuple):
    """The app of the page, beside a project of the template."""

    folder: Path
    environment: dict[str, str]
    """The variables of the person who follows the page."""
    steps: Iterator[tuple[str, str]]
    """What is still to do: a file and its text, or no file and commands."""

    def follow(self, until: str, text_for: tuple[str, str] = ("", "")) -> None:
        """Do the steps of the page up to the one that has `until`; of `text_for` one is put for the other."""
        for file, text in self.steps:
            if file:
                (self.folder / file).write_text(text, "utf-8")
            else:
                self.type(text.replace(*text_for))
            if until in text:
                return
        pytest.fail(f"the page has no step with {until}")

    def type(self, commands: str, check: bool = True) -> Result:
        """What commands print that a person types in the app's folder."""
        result = run("sh", "-euc", commands, cwd=self.folder, environment=self.environment, check=check)
        if "unset SECRET_KEY" in commands:
            del self.environment["SECRET_KEY"]
        return result

    def serving(self) -> AbstractContextManager[Server]:
        """The running app."""
        command = ("flask", "--app", "shop.app", "run", "--port", "PORT")
        log = self.folder / "log"
        return serving(*command, folder=self.folder, log=log, environment=self.environment)

    def ring(self) -> dict[str, Any]:
        """What `flask secret-key status` says."""
        shown: dict[str, Any] = json.loads(self.type("flask secret-key status --json").stdout)
        return shown

    def states(self) -> list[str]:
        """The state of each key of the ring, the newest first."""
        return [key["state"] for key in self.ring()["keys"]]


@pytest.fixture
def shop(tmp_path: Path, shared: Bake, environment: dict[str, str]) -> Shop:
    """The app as it is at the top of the page, with a key that was made elsewhere."""
    (tmp_path / shared.path.name).symlink_to(shared.path)
    folder = tmp_path / "shop"
    (folder / "shop").mkdir(parents=True)
    (folder / "shop" / "__init__.py").touch()
    run(UV, "venv", "--quiet", cwd=folder, environment=environment)
    programs = folder / ".venv" / "bin"
    path = f"{programs}:{Path(UV).parent}:{environment['PATH']}"
    steps = ((file, text) for _, file, text in BLOCK.findall((shared.path / PAGE).read_text("utf-8")))
    own = {"PATH": path, "UV_PYTHON": str(programs / "python"), "SECRET_KEY": secrets.token_urlsafe(32)}
    shop = Shop(folder, {**environment, **own}, steps)
    shop.follow(until="[project]")
    shop.type("uv pip install --quiet --editable .")
    return shop


def test_a_session_from_before_lives_on_and_git_would_add_no_key(shop: Shop) -> None:
    shop.type("git init --quiet")
    with shop.serving() as server:
        before = server.get().cookies["session"]
    shop.follow(until="flask secret-key status")
    with shop.serving() as server:
        assert server.get(session=before).body == "2\n"
        shop.follow(until="flask secret-key rotate")
        assert server.get(session=before).body == "2\n"
    assert shop.states() == ["upcoming", "signing"]
    assert shop.ring()["keys"][1]["signs_from"] is None, "the key from before"
    assert shop.ring()["retention_seconds"] == Flask("stock").permanent_session_lifetime.total_seconds()
    shop.type("git add --all && flask secret-key scan")
    assert "shop/secret_key/live.py" in shop.type("git ls-files").stdout


def test_a_session_from_before_outlives_the_rotation(shop: Shop) -> None:
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


def test_a_key_that_cannot_stay_is_replaced(shop: Shop) -> None:
    shop.environment["SECRET_KEY"] = "not-so-secret"
    with shop.serving() as server:
        before = server.get().cookies["session"]
    shop.follow(until="live.init_app")
    refused = shop.type("flask --app shop.app routes", check=False)
    assert refused.returncode
    assert "SECRET_KEY is too short" in refused.stderr
    shop.type("flask secret-key revoke --yes")
    with shop.serving() as server:
        assert server.get(session=before).body == "1\n"


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
