"""One suite for every session store; where a store differs, docs/sessions.md says so, and a test here."""

import logging
import random
import string
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask, Response, flash, get_flashed_messages, session
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import generate_csrf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from itsdangerous.encoding import base64_decode
from markupsafe import Markup
from secure import sessions, tokens
from secure.keys.keyring import ACTIVATION_DELAY, RETENTION
from secure.keys.watcher import get_watcher
from secure.sessions.interface import USER_KEYS
from sites import ABSOLUTE, DAY, FIRST, LIFETIME, NOW, SECOND, Browser, RedisServer, Site

STORES = ["signed", "encrypted", "redis"]
COOKIES = ["signed", "encrypted"]


@pytest.fixture(params=[*STORES, "redis visitor"])
def store(request: pytest.FixtureRequest) -> str:
    """The name of a store."""
    return str(request.param)


@pytest.fixture
def site(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    """An app with that store."""
    name, _, _ = store.partition(" ")
    return Site(name, tmp_path, request.getfixturevalue("redis") if name == "redis" else None)


@pytest.fixture
def browser(site: Site, store: str) -> Browser:
    """A browser; with a server as the store, somebody is signed in, so that its session is there."""
    browser = Browser(site)
    if store == "redis":
        browser.sign_in("zoe")
    return browser


def sign_out() -> None:
    """Sign out as an app does."""
    session.clear()


def sign_out_with_flash() -> None:
    """Sign out and leave a message for the next page."""
    session.clear()
    flash("bye")


# What a session holds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "ünïcödé \U0001f36a \u2028 \x00",
        0,
        2**64,
        -1.5,
        None,
        True,
        [],
        [1, [2, {"a": []}]],
        (1, (2,)),
        {"a": {"b": "c"}},
        {" t": 1},
        b"\x00\xff",
        UUID(int=1),
        datetime(2026, 11, 22, 19, 30, tzinfo=UTC),
        Markup("<b>"),
        "long " * 500,
    ],
    ids=repr,
)
def test_values(browser: Browser, value: Any) -> None:
    browser.put(value=value)

    found = browser.record()["value"]
    assert found == value
    assert type(found) is type(value)


def test_other_types(browser: Browser) -> None:
    """Types that JSON does not have are written as in stock Flask."""
    browser.put(price=Decimal("1.50"), day=date(2026, 11, 22))

    assert browser.record() == {"price": "1.50", "day": "Sun, 22 Nov 2026 00:00:00 GMT"}


TEXT = st.text(max_size=10)
CONTENT = st.dictionaries(
    TEXT.filter(lambda name: not name.startswith("_") and name not in USER_KEYS),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | st.binary(),
        lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(TEXT, inner),
        max_leaves=8,
    ),
    max_size=4,
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=CONTENT)
def test_any_content(site: Site, content: dict[str, Any]) -> None:
    browser = Browser(site)
    browser.put(**content)

    assert browser.record() == content


def test_change_in_place(browser: Browser) -> None:
    """It is kept if the page sets session.modified."""

    def append(say_so: bool) -> None:
        session["list"].append(1)
        session.modified = session.modified or say_so

    browser.put(list=[])
    browser.ask(lambda: append(say_so=False))
    assert browser.record() == {"list": []}
    browser.ask(lambda: append(say_so=True))
    assert browser.record() == {"list": [1]}


def test_flash(browser: Browser) -> None:
    shown: list[Any] = []
    browser.ask(lambda: flash(Markup("<b>saved</b>"), "good"))
    browser.ask(lambda: shown.extend(get_flashed_messages(with_categories=True)))
    browser.ask(lambda: shown.extend(get_flashed_messages()))

    assert shown == [("good", Markup("<b>saved</b>"))]


# What a response says


def test_unused_session(browser: Browser) -> None:
    """The page may be kept by any cache."""
    browser.put(a=1)
    response = browser.ask(lambda: None)

    assert "Vary" not in response.headers
    assert "Cache-Control" not in response.headers
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("use", [lambda: session.get("a"), lambda: session.update(a=1), sign_out])
def test_used_session(browser: Browser, use: Callable[[], None]) -> None:
    """The page is kept by no cache."""
    response = browser.ask(use)

    assert response.headers["Vary"] == "Cookie"
    assert response.headers["Cache-Control"] == "no-store"


def test_reading_sets_no_cookie(browser: Browser) -> None:
    browser.put(a=1)

    assert "Set-Cookie" not in browser.ask(lambda: session["a"]).headers


def test_cleared_session(browser: Browser) -> None:
    """Its cookie is deleted."""
    browser.put(a=1)
    response = browser.ask(sign_out)

    assert browser.cookie == ""
    assert "Max-Age=0" in response.headers["Set-Cookie"]
    assert "Set-Cookie" not in Browser(browser.site).ask(sign_out).headers
    visitor = Browser(browser.site)
    visitor.ask(lambda: session.update(a=1), sign_out)
    assert visitor.cookie == ""


def test_permanent(browser: Browser) -> None:
    """The cookie has an expiry."""
    assert "Expires" not in browser.put(a=1).headers["Set-Cookie"]

    response = browser.ask(lambda: setattr(session, "permanent", True))
    assert "Expires" in response.headers["Set-Cookie"]


def test_change_in_first_after_request(browser: Browser) -> None:
    def change(response: Response) -> Response:
        session["late"] = 1
        return response

    browser.app.after_request_funcs[None].insert(0, change)  # the last of them is called first
    browser.put(a=1)

    assert browser.record() == {"a": 1, "late": 1}


# Rotation, revocation


@pytest.mark.parametrize("later", [0, ACTIVATION_DELAY - 1, ACTIVATION_DELAY, ACTIVATION_DELAY + RETENTION - 1])
def test_rotation(browser: Browser, later: int) -> None:
    browser.put(a=1)
    browser.site.has(SECOND, FIRST)
    seen = 0
    while seen <= later:  # a visit every other day
        assert browser.record() == {"a": 1}
        step = min(2 * DAY, max(later - seen, 1))
        browser.site.pass_(step)
        seen += step

    assert browser.record() == {"a": 1}


def test_expired_key(browser: Browser) -> None:
    """A session in use was signed with the new key before the old one expired."""
    browser.put(a=1)
    browser.site.has(SECOND, FIRST)
    browser.site.pass_(LIFETIME - 1)
    browser.record()
    browser.site.has(SECOND)

    assert browser.record() == {"a": 1}


def test_revoked_key(browser: Browser) -> None:
    browser.put(a=1)
    browser.site.has(SECOND)

    assert browser.record() == {}


def test_revoked_key_in_flight(browser: Browser) -> None:
    """A request in flight does not sign with the new key what the revoked key signed, whatever others begin."""

    def revoke() -> None:
        browser.site.has(SECOND)
        Browser(browser.site).put(b=1)
        assert get_watcher(browser.app).keyring.keys == (SECOND,)

    browser.put(a=1)
    response = browser.ask(lambda: session["a"], revoke, lambda: session.update(a=2))

    assert "Set-Cookie" in response.headers
    assert browser.record() == {}


def test_key_unknown_yet(browser: Browser) -> None:
    """An instance that has not read the new key yet deletes no cookie of one that has."""
    browser.site.has(SECOND, FIRST)
    browser.site.pass_(ACTIVATION_DELAY)
    browser.put(a=1)
    browser.site.has(FIRST)
    assert "Set-Cookie" not in browser.ask(lambda: session.get("a")).headers
    browser.site.has(SECOND, FIRST)

    assert browser.record() == {"a": 1}


def test_changed_cookie(browser: Browser) -> None:
    browser.put(user="ann")

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def try_it(data: st.DataObject) -> None:
        cookie = browser.cookie
        at = data.draw(st.integers(0, len(cookie)))
        letters = st.text(st.sampled_from("ABab01-_.="), max_size=3)
        changed = cookie[:at] + data.draw(letters) + cookie[at + data.draw(st.integers(0, 3)) :]
        assert Browser(browser.site, changed).record() in ({}, {"user": "ann"})

    try_it()


def test_cookie_of_another_store(tmp_path: Path, redis: RedisServer) -> None:
    sites = {store: Site(store, tmp_path, redis if store == "redis" else None) for store in STORES}
    cookies = {}
    for store, site in sites.items():
        browser = Browser(site)
        browser.put(a=1)
        cookies[store] = browser.cookie
    with sites["signed"].app.app_context():
        cookies["token"] = tokens.sign([NOW, {"a": 1}], "session")

    for store, site in sites.items():
        taken = [name for name, cookie in cookies.items() if Browser(site, cookie).record()]
        assert taken == [store]


def test_stock_cookie(browser: Browser) -> None:
    stock = Flask("site")
    stock.config["SECRET_KEY"] = FIRST.text
    serializer = SecureCookieSessionInterface().get_signing_serializer(stock)
    assert serializer
    cookie = str(serializer.dumps({"a": 1}))

    assert Browser(browser.site, cookie).record() == {}
    browser.app.config["SESSION_READ_SHA1"] = True
    migrated = Browser(browser.site, cookie)
    assert migrated.record() == {"a": 1}
    browser.app.config["SESSION_READ_SHA1"] = False
    assert migrated.record() == {"a": 1}
    browser.app.config["SESSION_READ_SHA1"] = True
    assert Browser(browser.site, cookie[:-4] + "AAAA").record() == {}


# Expiry


def test_idle_timeout(browser: Browser) -> None:
    browser.put(a=1)
    kept = browser.copy()
    browser.site.pass_(LIFETIME - 1)
    assert kept.record() == {"a": 1}
    browser.site.pass_(2)

    assert browser.record() == {}


def test_absolute_timeout(browser: Browser) -> None:
    browser.put(a=1)
    for _ in range(5):
        browser.site.pass_(6 * DAY - 1)
        assert browser.record() == {"a": 1}
    browser.site.pass_(6)

    assert browser.record() == {}


def test_absolute_timeout_with_changes(browser: Browser) -> None:
    browser.put(a=1)
    for day in range(30):
        browser.site.pass_(DAY - 1)
        browser.put(a=day)
    browser.site.pass_(31)

    assert browser.record() == {}


def test_refresh(browser: Browser) -> None:
    browser.put(a=1)
    first = browser.cookie
    browser.site.pass_(LIFETIME / 20)
    browser.record()
    assert browser.cookie == first
    browser.site.pass_(1)
    browser.record()

    assert browser.cookie != first


@pytest.mark.parametrize(("ahead", "taken"), [(ACTIVATION_DELAY - 1, True), (ACTIVATION_DELAY, False)])
def test_clock_ahead(browser: Browser, ahead: int, taken: bool) -> None:
    """Clocks may differ by less than the activation delay."""
    browser.app = browser.site.instance_ahead(ahead)
    browser.put(a=1)
    browser.app = browser.site.app

    assert browser.record() == ({"a": 1} if taken else {})


# Two requests of one session at once


Do = Callable[[], object]


def at_once(browser: Browser, read: Do, other: Do, write: Do) -> None:
    """A request that reads, then writes; in between, another one of the same browser begins and ends."""
    second = browser.copy()

    def first() -> None:
        read()
        second.ask(other)
        # The browser has the cookie of the response that came first.
        browser.cookie = second.cookie
        write()

    assert browser.ask(first).status_code == 200


def test_two_writers(browser: Browser) -> None:
    """The last one wins."""
    browser.put(n=0)
    at_once(
        browser,
        read=lambda: session["n"],
        other=lambda: session.update(n=1, b=1),
        write=lambda: session.update(n=2),
    )

    assert browser.record() == {"n": 2}


def test_reader_and_writer(browser: Browser) -> None:
    browser.put(n=0)
    at_once(browser, read=lambda: session["n"], other=lambda: session.update(n=1), write=lambda: None)

    assert browser.record() == {"n": 1}


@pytest.mark.parametrize(("store", "kept"), [("signed", 0), ("encrypted", 0), ("redis", 1)])
def test_refreshing_reader_and_writer(browser: Browser, kept: int) -> None:
    """A cookie store loses the change; a server keeps it."""
    browser.sign_in("ann")
    browser.put(n=0)
    browser.site.pass_(LIFETIME / 20 + 1)
    at_once(browser, read=lambda: session["n"], other=lambda: session.update(n=1), write=lambda: None)

    assert browser.record() == {"n": kept}


@pytest.mark.parametrize(("store", "kept"), [("signed", {"n": 1}), ("encrypted", {"n": 1}), ("redis", {})])
def test_late_writer(browser: Browser, kept: dict[str, int]) -> None:
    """In a cookie store it brings an ended session back; on a server it does not."""
    browser.sign_in("ann")
    browser.put(n=0)
    at_once(browser, read=lambda: session["n"], other=sign_out, write=lambda: session.update(n=1))

    assert browser.record() == kept


# Signing in and out (test_sign_ins.py has other ways to sign in)


def test_planted_session(site: Site) -> None:
    browser = Browser(site)
    browser.put(cart=["tea"])
    planted = browser.copy()
    browser.sign_in("ann")

    assert browser.user() == "ann"
    assert browser.record() == {"cart": ["tea"]}
    assert planted.user() is None
    assert planted.record() == {"cart": ["tea"]}


def test_sign_in_restarts_limits(browser: Browser) -> None:
    browser.put(a=1)
    for _ in range(5):
        browser.site.pass_(5 * DAY)
        browser.record()
    browser.sign_in("ann")
    for _ in range(6):
        browser.site.pass_(5 * DAY - 1)
        assert browser.user() == "ann"
    browser.site.pass_(7)

    assert browser.user() is None


def test_sign_in_changes_csrf_token(browser: Browser) -> None:
    seen: list[str] = []

    def sign_in() -> None:
        seen.append(generate_csrf())
        sessions.sign_in("ann")
        seen.append(generate_csrf())

    browser.ask(lambda: seen.append(generate_csrf()))
    before = browser.record()["csrf_token"]
    browser.ask(sign_in)

    assert seen[1] != seen[2]
    assert browser.record()["csrf_token"] != before


def test_another_user(browser: Browser) -> None:
    browser.sign_in("ann")
    browser.put(draft="dear diary")
    browser.sign_in("bob")

    assert browser.user() == "bob"
    assert browser.record() == {}


def test_rotate_id(browser: Browser) -> None:
    browser.sign_in("ann")
    browser.put(a=1)
    before = browser.copy()
    browser.ask(sessions.rotate_id)

    assert (browser.user(), browser.record()) == ("ann", {"a": 1})
    assert before.user() == (None if browser.site.store == "redis" else "ann")


def test_rotate_id_twice(browser: Browser) -> None:
    browser.sign_in("ann")
    browser.put(a=1)
    first = browser.copy()
    browser.ask(sessions.rotate_id, sessions.rotate_id)

    assert browser.record() == {"a": 1}
    assert first.record() == ({} if browser.site.store == "redis" else {"a": 1})


def test_rotate_id_and_clear(browser: Browser) -> None:
    browser.sign_in("ann")
    browser.put(a=1)
    before = browser.copy()
    browser.ask(sessions.rotate_id, sign_out)

    assert browser.cookie == ""
    assert before.record() == ({} if browser.site.store == "redis" else {"a": 1})


@pytest.mark.parametrize(("store", "replayed"), [("signed", "ann"), ("encrypted", "ann"), ("redis", None)])
def test_replay_after_sign_out(browser: Browser, replayed: str | None) -> None:
    browser.sign_in("ann")
    captured = browser.copy()
    browser.ask(sign_out)

    assert browser.user() is None
    assert captured.user() == replayed


def test_replay_after_moved_version(browser: Browser) -> None:
    other = Browser(browser.site)
    other.sign_in("bob")
    browser.sign_in("ann")
    browser.put(a=1)
    captured = browser.copy()
    browser.site.versions["ann"] += 1

    assert captured.user() is None
    assert captured.record() == {}
    assert other.user() == "bob"
    browser.sign_in("ann")
    assert browser.user() == "ann"


def _no_sign_in() -> None:
    with pytest.raises(ValueError, match="no such user"):
        sessions.sign_in("ann")


def test_deleted_user(browser: Browser) -> None:
    browser.sign_in("ann")
    del browser.site.versions["ann"]

    assert browser.user() is None
    assert browser.ask(_no_sign_in).status_code == 200


@pytest.mark.parametrize("store", ["redis"])
def test_revoke_all(site: Site) -> None:
    devices = [Browser(site) for _ in range(3)]
    other = Browser(site)
    other.sign_in("bob")
    for device in devices:
        device.sign_in("ann")

    devices[0].ask(lambda: sessions.revoke_all("ann"))
    assert [device.user() for device in devices] == [None] * 3
    assert other.user() == "bob"
    assert other.ask(lambda: sessions.revoke_all("ann")).status_code == 200


ENDS: dict[str, Do] = {
    "revoke_all": lambda: sessions.revoke_all("ann"),
    "sign-out": sign_out,
    "sign-out with flash": sign_out_with_flash,
}


@pytest.mark.parametrize("store", ["redis"])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("write", [lambda: session.update(n=1), lambda: None], ids=["writer", "reader"])
def test_ended_in_flight(browser: Browser, end: Do, write: Do) -> None:
    """A request in flight does not bring an ended session back, and its cookie does not sign in again."""
    browser.sign_in("ann")
    browser.site.pass_(LIFETIME / 10)
    stolen = browser.copy()
    at_once(browser, read=lambda: session.get("n"), other=end, write=write)

    assert browser.user() is None
    assert stolen.user() is None


@pytest.mark.parametrize("store", ["redis"])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_rotate_id_in_flight(browser: Browser, end: Do) -> None:
    """It does not bring an ended session back."""
    browser.sign_in("ann")
    stolen = browser.copy()
    at_once(browser, read=lambda: session.get("n"), other=end, write=sessions.rotate_id)

    assert browser.user() is None
    assert stolen.user() is None


LATE = {"reader": lambda: None, "writer": lambda: session.update(n=1)}


@pytest.mark.parametrize("store", ["redis"])
@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
def test_late_request_of_another_user(browser: Browser, late: Do) -> None:
    browser.sign_in("bob")
    browser.site.pass_(LIFETIME / 10)
    at_once(browser, read=lambda: session.get("n"), other=lambda: sessions.sign_in("ann"), write=late)

    assert browser.user() == "ann"


@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
def test_late_request_of_a_visitor(site: Site, late: Do) -> None:
    """A visitor's session is in the cookie, in every store: the last response of two wins."""
    browser = Browser(site)
    browser.put(n=0)
    browser.site.pass_(LIFETIME / 10)
    at_once(browser, read=lambda: session.get("n"), other=lambda: sessions.sign_in("ann"), write=late)

    assert browser.user() is None


def test_raised_absolute_timeout(tmp_path: Path, redis: RedisServer) -> None:
    """A session that lives longer than planned at sign-in can still be revoked."""
    site = Site("redis", tmp_path, redis)
    old = Browser(site)
    old.sign_in("ann")
    site.lives(3 * ABSOLUTE)
    old = Browser(site, old.cookie)
    for _ in range(2 * ABSOLUTE // LIFETIME * 2):
        site.pass_(LIFETIME / 2)
        assert old.user() == "ann"
    new = Browser(site)
    new.sign_in("ann")
    new.ask(lambda: sessions.revoke_all("ann"))

    assert old.user() is None


@pytest.mark.parametrize("store", ["redis"])
def test_revoke_all_and_sign_in(browser: Browser) -> None:
    browser.sign_in("ann")
    thief = browser.copy()
    browser.ask(lambda: sessions.revoke_all("ann"), lambda: sessions.sign_in("ann"))

    assert browser.user() == "ann"
    assert thief.user() is None


@pytest.mark.parametrize("store", COOKIES)
def test_revoke_all_of_cookies(browser: Browser) -> None:
    def end() -> None:
        with pytest.raises(sessions.RevocationUnsupportedError, match="session version"):
            sessions.revoke_all("ann")

    assert browser.ask(end).status_code == 200


# Large sessions


def fill(site: Site) -> int:
    """The length of the longest text that a session takes."""
    low, high = 0, 8192
    while low < high:
        middle = (low + high + 1) // 2
        fits = Browser(site).put(text=_noise(middle)).status_code == 200
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _noise(length: int) -> str:
    """A text that no compression makes shorter."""
    return "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=length))


@pytest.mark.parametrize("store", COOKIES)
def test_largest_cookie(browser: Browser) -> None:
    length = fill(browser.site)
    response = browser.put(text=_noise(length))

    assert 3990 < len(response.headers["Set-Cookie"]) <= 4093
    assert browser.record() == {"text": _noise(length)}
    assert browser.put(text=_noise(length + 100)).status_code == 500


@pytest.mark.parametrize("store", ["signed"])
def test_compression(browser: Browser) -> None:
    """Only long content is compressed; a short cookie is worth no time."""
    for text in ("ha" * 20, "ha" * 5000):
        browser.put(text=text)
        assert browser.record() == {"text": text}
        assert len(browser.cookie) < 1000
        assert browser.cookie.startswith(".") == (len(text) > 500)


@pytest.mark.parametrize("store", COOKIES)
def test_too_large_in_development(browser: Browser) -> None:
    """The error names the largest entries and shows no value."""
    browser.app.testing = True

    with pytest.raises(sessions.CookieTooLargeError, match=r"4093.* cart \(9002\), small \(3\)") as error:
        browser.put(small="x", cart=_noise(9000))
    assert _noise(10) not in str(error.value)


@pytest.mark.parametrize("store", COOKIES)
def test_too_large_in_production(store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the browser keeps the cookie it has."""
    browser = Browser(Site(store, tmp_path, environment="production"))
    browser.put(a=1)
    response = browser.put(a=2, cart=_noise(5000))

    assert response.status_code == 200
    assert browser.record() == {"a": 1}
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "cart (5002)" in record.getMessage()
    assert _noise(10) not in record.getMessage()


@pytest.mark.parametrize("store", ["redis"])
def test_large_session_on_server(browser: Browser) -> None:
    browser.sign_in("ann")
    browser.put(text="ü" * 100_000)

    assert browser.record() == {"text": "ü" * 100_000}
    assert len(browser.cookie) < 200


# What others can see


@pytest.mark.parametrize(("store", "readable"), [("signed", True), ("encrypted", False), ("redis", False)])
def test_readable_cookie(browser: Browser, readable: bool) -> None:
    browser.sign_in("ann")
    browser.put(diagnosis="flu")
    assert (b"flu" in base64_decode(browser.cookie.partition(".")[0])) is readable


def test_nonces(tmp_path: Path) -> None:
    """Two encrypted cookies of the same session differ, and have the same length."""
    site = Site("encrypted", tmp_path)
    cookies = set()
    for _ in range(100):
        browser = Browser(site)
        browser.put(a=1)
        cookies.add(browser.cookie)

    assert len(cookies) == 100
    assert len({len(cookie) for cookie in cookies}) == 1


@pytest.mark.parametrize("store", COOKIES)
def test_ready(site: Site) -> None:
    with site.app.app_context():
        assert sessions.ready()


def test_own_interface(tmp_path: Path) -> None:
    site = Site("signed", tmp_path)
    site.app.session_interface = SecureCookieSessionInterface()
    browser = Browser(site)
    browser.put(a=1)

    assert browser.record() == {"a": 1}
