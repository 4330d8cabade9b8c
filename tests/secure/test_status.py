"""The status page, in development only; and the probe."""

import re
import time

import pytest
from apps import KEY, make_app
from markupsafe import escape
from secure.keys.key import generate_key, validate_key

DAY = 86400
FOREIGN = "kIx3v9_Qm7-aZ0yR2tW5uB8cD1eF4gH6jL"
FOREIGN_2 = "Vx7_q0Zr3W9t2Yb5N8m1C4k6J-hGdSaPoI"


def page(*keyring: str) -> str:
    """Return the page of an app in development with these keys, newest first."""
    app = make_app(APP_ENV="development", SECRET_KEY=keyring[0], SECRET_KEY_FALLBACKS=",".join(keyring[1:]))
    response = app.test_client().get("/_secure/")
    assert response.status_code == 200
    return response.text


def test_probe() -> None:
    response = make_app().test_client().get("/healthz")

    assert (response.status_code, response.text, response.mimetype) == (200, "ok\n", "text/plain")
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("path", ["/_secure", "/_secure/"])
@pytest.mark.parametrize(("environment", "found"), [("production", False), ("testing", False), ("development", True)])
def test_development_only(path: str, environment: str, found: bool) -> None:
    response = make_app(APP_ENV=environment).test_client().get(path, follow_redirects=True, buffered=True)

    assert response.status_code == (200 if found else 404)


def test_page_of_a_wrong_clock() -> None:
    """A key at the end of the calendar has no date a day later."""
    text = page(generate_key(253_402_300_000).text, generate_key(int(time.time()) - DAY).text)

    assert "9999-12-31" in text


def test_page() -> None:
    now = int(time.time())
    keys = [generate_key(now + at).text for at in (1800, -DAY, -9 * DAY, -20 * DAY)]

    text = page(*keys, FOREIGN)

    rows = re.findall(r"<code>([0-9a-f]{8})</code></th>\s*<td>(\w+)</td>", text)
    states = ["upcoming", "signing", "retired", "expired", "expired"]
    names = [validate_key(key, b"").fingerprint for key in (*keys, FOREIGN)]
    assert rows == list(zip(names, states, strict=True))
    assert [key for key in (*keys, FOREIGN) if key in text] == []
    assert text.count("<rect") == 7
    assert "Next change:" in text
    assert "in 29 min" in text or "in 30 min" in text
    assert "7 d after the last use, at the latest 30 d after the start" in text
    assert "<code>site_session</code>, HttpOnly, SameSite=Lax" in text
    assert "SESSION_STORE=signed" in text
    assert "<dt>X-Frame-Options</dt>" in text
    assert str(escape("default-src 'self'")) in text


@pytest.mark.parametrize("keyring", [[FOREIGN], [FOREIGN, FOREIGN_2], [generate_key(int(time.time()) + 1800).text]])
def test_any_keyring(keyring: list[str]) -> None:
    text = page(*keyring)

    assert [validate_key(key, b"").fingerprint in text for key in keyring] == [True] * len(keyring)
    widths = [float(width) for width in re.findall('<rect[^>]* width="([^"]+)"', text)]
    assert widths
    assert min(widths) > 0


def test_nothing_that_the_policy_blocks() -> None:
    """One style element, whose nonce the policy allows, and nothing else that is inline."""
    response = make_app(APP_ENV="development", SECRET_KEY=KEY).test_client().get("/_secure/")
    [nonce] = re.findall(r'<style nonce="([^"]+)">', response.text)
    assert f"style-src 'self' 'nonce-{nonce}'" in response.headers["Content-Security-Policy"]
    assert re.findall(r"(?i)<script|<style(?! nonce)|\sstyle=|\son\w+=|javascript:|https?://", response.text) == []


def test_page_under_a_prefix() -> None:
    app = make_app(APP_ENV="development")

    text = app.test_client().get("/_secure/", base_url="http://localhost/prefix").text

    assert 'href="/prefix/"' in text
