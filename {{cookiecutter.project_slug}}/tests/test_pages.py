"""The pages: a probe, and a start page that can be taken out."""

import ast
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from apps import KEY, make_app
from flask.testing import FlaskClient
from markupsafe import escape
from package import PACKAGE, about, judge, mint, security

DAY = 86400


def send(client: FlaskClient, **form: str) -> str:
    """What the start page shows after its form was sent."""
    match = re.search('name="csrf_token" value="([^"]+)"', client.get("/").text)
    assert match
    headers = {"Referer": "https://localhost/"}
    sent = client.post("/", data={"csrf_token": match[1], **form}, headers=headers, follow_redirects=True)
    counted = re.search('class="count">([0-9]+)<', sent.text)
    assert counted
    return counted[1]


def test_a_probe_gets_a_word_and_no_cookie() -> None:
    response = make_app().test_client().get("/healthz")

    assert (response.status_code, response.text, response.mimetype) == (200, "ok\n", "text/plain")
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("environment", ["production", "development"])
def test_the_form_counts_and_starts_again(environment: str) -> None:
    client = make_app(APP_ENV=environment).test_client()

    assert [send(client), send(client), send(client, reset="1"), send(client)] == ["1", "2", "0", "1"]


def test_a_form_that_was_sent_is_not_sent_again_by_a_reload() -> None:
    client = make_app().test_client()
    match = re.search('name="csrf_token" value="([^"]+)"', client.get("/").text)
    assert match

    sent = client.post("/", data={"csrf_token": match[1]}, headers={"Referer": "https://localhost/"})

    assert (sent.status_code, sent.headers["Location"]) == (303, "/")


def test_in_production_the_start_page_is_a_plain_welcome() -> None:
    page = make_app().test_client().get("/").text

    assert f"<h1>{escape(about.NAME)}</h1>" in page
    assert str(escape(about.DESCRIPTION)) in page
    shown = ["fingerprint", "rotat", "ring", "HMAC", "SameSite", "HttpOnly", "SECRET", "Policy", "svg class"]
    assert [word for word in shown if word in page.replace(str(escape(about.DESCRIPTION)), "")] == []
    assert judge(KEY, b"").fingerprint not in page


def test_in_development_the_start_page_tells_how_things_stand() -> None:
    now = int(time.time())
    upcoming, signing, retired, expired = (mint(now + at) for at in (1800, -DAY, -9 * DAY, -20 * DAY))
    foreign = "kIx3v9_Qm7-aZ0yR2tW5uB8cD1eF4gH6jL"
    ring = [key.text for key in (upcoming, signing, retired, expired)] + [foreign]
    app = make_app(APP_ENV="development", SECRET_KEY=ring[0], SECRET_KEY_FALLBACKS=",".join(ring[1:]))

    page = app.test_client().get("/").text

    rows = re.findall(r"<code>([0-9a-f]{8})</code></th>\s*<td>(\w+)</td>", page)
    states = ["upcoming", "signing", "retired", "expired", "expired"]
    assert rows == [(judge(text, b"").fingerprint, state) for text, state in zip(ring, states, strict=True)]
    assert [text for text in ring if text in page] == []
    assert page.count("<rect") == 7
    assert "Next change:" in page
    assert "in 29 min" in page or "in 30 min" in page
    for name, value in (*security.HEADERS, security.HSTS):
        assert f"<dt>{name}</dt>" in page
        assert str(escape(value)) in page
    assert "after 7 d without use, and after 30 d in any case" in page
    assert "<code>session</code>, HttpOnly, SameSite=Lax" in page
    assert "SESSION_STORE=signed" in page


@pytest.mark.parametrize(
    "ring",
    [
        ["kIx3v9_Qm7-aZ0yR2tW5uB8cD1eF4gH6jL"],
        ["kIx3v9_Qm7-aZ0yR2tW5uB8cD1eF4gH6jL", "another-Vx7_q0Zr3W9t2Yb5N8m1C4k6J-"],
        [mint(int(time.time()) + 1800).text],
    ],
)
def test_the_start_page_shows_any_ring(ring: list[str]) -> None:
    app = make_app(APP_ENV="development", SECRET_KEY=ring[0], SECRET_KEY_FALLBACKS=",".join(ring[1:]))

    page = app.test_client().get("/").text

    assert [judge(text, b"").fingerprint in page for text in ring] == [True] * len(ring)
    widths = [float(width) for width in re.findall('<rect[^>]* width="([^"]+)"', page)]
    assert widths
    assert min(widths) > 0


@pytest.mark.parametrize("environment", ["production", "development"])
@pytest.mark.parametrize("path", ["/", "/fail/404", "/crash"])
def test_a_page_has_no_script_and_no_style_that_the_policy_would_block(environment: str, path: str) -> None:
    page = make_app(APP_ENV=environment).test_client().get(path).text

    assert re.findall(r"(?i)<script|<style|\sstyle=|\son\w+=|javascript:|https?://", page) == []


def test_without_the_start_page_the_app_works(tmp_path: Path) -> None:
    package = tmp_path / PACKAGE.name
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "start.html"))
    source = (package / "views.py").read_text("utf-8")
    (view,) = (node for node in ast.parse(source).body if getattr(node, "name", "") == "start")
    assert isinstance(view, ast.FunctionDef)
    assert view.end_lineno
    lines = source.splitlines(keepends=True)
    del lines[view.decorator_list[0].lineno - 1 : view.end_lineno]
    (package / "views.py").write_text("".join(lines), "utf-8")
    script = (
        f"import {PACKAGE.name} as package; client = package.create_app().test_client()\n"
        "print(*package.__path__, *(client.get(path).status_code for path in ('/', '/healthz', '/no')))"
    )

    environ = {**os.environ, "PYTHONPATH": str(tmp_path), "SECRET_KEY": KEY}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.stdout, done.returncode) == (f"{package} 404 200 404\n", 0), done.stderr
