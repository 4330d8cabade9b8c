"""One policy for every session store; where a store differs, docs/sessions.md says so and a test here too."""

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
from package import LEAD, RETENTION, live_ring, sessions, tokens
from sites import ABSOLUTE, DAY, FIRST, LIFETIME, NOW, SECOND, Browser, RedisServer, Site

STORES = ["signed", "encrypted", "redis"]
COOKIES = ["signed", "encrypted"]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    """The name of a store."""
    return str(request.param)


@pytest.fixture
def site(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    """An app with that store."""
    return Site(store, tmp_path, request.getfixturevalue("redis") if store == "redis" else None)


@pytest.fixture
def browser(site: Site) -> Browser:
    """A browser that has not been here before."""
    return Browser(site)


def sign_out() -> None:
    """As an app would have it."""
    session.clear()


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
def test_a_value_comes_back_as_it_was(browser: Browser, value: Any) -> None:
    browser.put(value=value)

    found = browser.held()["value"]
    assert found == value
    assert type(found) is type(value)


def test_what_json_has_no_word_for_is_written_as_stock_flask_does(browser: Browser) -> None:
    browser.put(price=Decimal("1.50"), day=date(2026, 11, 22))

    assert browser.held() == {"price": "1.50", "day": "Sun, 22 Nov 2026 00:00:00 GMT"}


TEXT = st.text(max_size=10)
CONTENT = st.dictionaries(
    TEXT.filter(lambda name: not name.startswith("_")),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | st.binary(),
        lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(TEXT, inner),
        max_leaves=8,
    ),
    max_size=4,
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=CONTENT)
def test_whatever_json_and_flasks_tags_can_say_comes_back(site: Site, content: dict[str, Any]) -> None:
    browser = Browser(site)
    browser.put(**content)

    assert browser.held() == content


def test_a_session_is_a_dict(browser: Browser) -> None:
    def use() -> None:
        session["a"] = 1
        session.setdefault("b", []).append(2)
        session.update(c=3)
        assert session.pop("c") == 3
        assert session.get("c") is None
        assert "a" in session
        assert len(session) == 2
        assert dict(session) == session == {"a": 1, "b": [2]}
        del session["a"]
        with pytest.raises(KeyError):
            session["a"]

    assert browser.ask(use).status_code == 200
    assert browser.held() == {"b": [2]}


def test_a_change_inside_a_value_is_kept_where_the_page_says_so(browser: Browser) -> None:
    def append(say_so: bool) -> None:
        session["list"].append(1)
        session.modified = session.modified or say_so

    browser.put(list=[])
    browser.ask(lambda: append(say_so=False))
    assert browser.held() == {"list": []}
    browser.ask(lambda: append(say_so=True))
    assert browser.held() == {"list": [1]}


def test_flashed_messages_wait_for_the_next_page(browser: Browser) -> None:
    shown: list[Any] = []
    browser.ask(lambda: flash(Markup("<b>saved</b>"), "good"))
    browser.ask(lambda: shown.extend(get_flashed_messages(with_categories=True)))
    browser.ask(lambda: shown.extend(get_flashed_messages()))

    assert shown == [("good", Markup("<b>saved</b>"))]


# What a response says


def test_a_page_that_does_not_use_the_session_may_be_kept_by_anyone(browser: Browser) -> None:
    browser.put(a=1)
    response = browser.ask(lambda: None)

    assert "Vary" not in response.headers
    assert "Cache-Control" not in response.headers
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("use", [lambda: session.get("a"), lambda: session.update(a=1), sign_out])
def test_a_page_that_uses_it_is_kept_by_no_cache(browser: Browser, use: Callable[[], None]) -> None:
    response = browser.ask(use)

    assert response.headers["Vary"] == "Cookie"
    assert response.headers["Cache-Control"] == "no-store"


def test_reading_sets_no_cookie(browser: Browser) -> None:
    browser.put(a=1)

    assert "Set-Cookie" not in browser.ask(lambda: session["a"]).headers


def test_an_emptied_session_takes_its_cookie_away(browser: Browser) -> None:
    browser.put(a=1)
    response = browser.ask(sign_out)

    assert browser.cookie == ""
    assert "Max-Age=0" in response.headers["Set-Cookie"]
    assert "Set-Cookie" not in Browser(browser.site).ask(sign_out).headers
    visitor = Browser(browser.site)
    visitor.ask(lambda: session.update(a=1), sign_out)
    assert visitor.cookie == ""


def test_a_permanent_session_outlives_the_browser(browser: Browser) -> None:
    assert "Expires" not in browser.put(a=1).headers["Set-Cookie"]

    response = browser.ask(lambda: setattr(session, "permanent", True))
    assert "Expires" in response.headers["Set-Cookie"]


def test_a_change_after_the_session_was_saved_is_kept_too(browser: Browser) -> None:
    def change(response: Response) -> Response:
        session["late"] = 1
        return response

    browser.app.after_request_funcs[None].insert(0, change)  # the last of them is called first
    browser.put(a=1)

    assert browser.held() == {"a": 1, "late": 1}


# Rotation, revocation


@pytest.mark.parametrize("later", [0, LEAD - 1, LEAD, LEAD + RETENTION - 1])
def test_a_rotation_loses_no_session(browser: Browser, later: int) -> None:
    browser.put(a=1)
    browser.site.has(SECOND, FIRST)
    seen = 0
    while seen <= later:  # a visit every other day
        assert browser.held() == {"a": 1}
        step = min(2 * DAY, max(later - seen, 1))
        browser.site.pass_(step)
        seen += step

    assert browser.held() == {"a": 1}


def test_when_the_old_key_is_gone_the_session_has_the_new_one(browser: Browser) -> None:
    browser.put(a=1)
    browser.site.has(SECOND, FIRST)
    browser.site.pass_(LIFETIME - 1)
    browser.held()
    browser.site.has(SECOND)

    assert browser.held() == {"a": 1}


def test_a_revoked_key_takes_every_session_along(browser: Browser) -> None:
    browser.put(a=1)
    browser.site.has(SECOND)

    assert browser.held() == {}


def test_a_request_under_way_carries_no_session_over_a_revocation(browser: Browser) -> None:
    def revoke() -> None:
        browser.site.has(SECOND)
        with browser.app.app_context():
            assert live_ring(browser.app).ring.keys == (SECOND,)

    browser.put(a=1)
    response = browser.ask(lambda: session["a"], revoke, lambda: session.update(a=2))

    assert "Set-Cookie" in response.headers
    assert browser.held() == {}


def test_nobody_makes_a_cookie_of_a_store_without_its_key(browser: Browser) -> None:
    browser.put(user="ann")

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def try_it(data: st.DataObject) -> None:
        cookie = browser.cookie
        at = data.draw(st.integers(0, len(cookie)))
        letters = st.text(st.sampled_from("ABab01-_.="), max_size=3)
        changed = cookie[:at] + data.draw(letters) + cookie[at + data.draw(st.integers(0, 3)) :]
        assert Browser(browser.site, changed).held() in ({}, {"user": "ann"})

    try_it()


def test_a_cookie_of_another_store_and_a_token_are_no_session(tmp_path: Path, redis: RedisServer) -> None:
    sites = {store: Site(store, tmp_path, redis if store == "redis" else None) for store in STORES}
    cookies = {}
    for store, site in sites.items():
        browser = Browser(site)
        browser.put(a=1)
        cookies[store] = browser.cookie
    with sites["signed"].app.app_context():
        cookies["token"] = tokens.sign([NOW, {"a": 1}], "session")

    for store, site in sites.items():
        taken = [name for name, cookie in cookies.items() if Browser(site, cookie).held()]
        assert taken == [store]


def test_a_session_of_stock_flask_is_taken_over_where_the_app_is_told_to(browser: Browser) -> None:
    stock = Flask("site")
    stock.config["SECRET_KEY"] = FIRST.text
    serializer = SecureCookieSessionInterface().get_signing_serializer(stock)
    assert serializer
    cookie = str(serializer.dumps({"a": 1}))

    assert Browser(browser.site, cookie).held() == {}
    browser.app.config["SESSION_READ_SHA1"] = True
    migrated = Browser(browser.site, cookie)
    assert migrated.held() == {"a": 1}
    browser.app.config["SESSION_READ_SHA1"] = False
    assert migrated.held() == {"a": 1}
    browser.app.config["SESSION_READ_SHA1"] = True
    assert Browser(browser.site, cookie[:-4] + "AAAA").held() == {}


# Expiry


def test_an_unused_session_ends(browser: Browser) -> None:
    browser.put(a=1)
    kept = browser.copy()
    browser.site.pass_(LIFETIME - 1)
    assert kept.held() == {"a": 1}
    browser.site.pass_(2)

    assert browser.held() == {}


def test_use_keeps_a_session_alive_until_its_absolute_limit(browser: Browser) -> None:
    browser.put(a=1)
    for _ in range(5):
        browser.site.pass_(6 * DAY - 1)
        assert browser.held() == {"a": 1}
    browser.site.pass_(6)

    assert browser.held() == {}


def test_a_change_does_not_move_the_absolute_limit(browser: Browser) -> None:
    browser.put(a=1)
    for day in range(30):
        browser.site.pass_(DAY - 1)
        browser.put(a=day)
    browser.site.pass_(31)

    assert browser.held() == {}


def test_a_used_session_gets_a_new_cookie_now_and_then(browser: Browser) -> None:
    browser.put(a=1)
    first = browser.cookie
    browser.site.pass_(LIFETIME / 20)
    browser.held()
    assert browser.cookie == first
    browser.site.pass_(1)
    browser.held()

    assert browser.cookie != first


@pytest.mark.parametrize(("ahead", "taken"), [(LEAD - 1, True), (LEAD, False)])
def test_clocks_may_differ_by_less_than_the_lead(browser: Browser, ahead: int, taken: bool) -> None:
    browser.app = browser.site.instance_ahead(ahead)
    browser.put(a=1)
    browser.app = browser.site.app

    assert browser.held() == ({"a": 1} if taken else {})


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

    browser.ask(first)


def test_of_two_that_change_it_at_once_the_last_one_wins(browser: Browser) -> None:
    browser.put(n=0)
    at_once(
        browser,
        read=lambda: session["n"],
        other=lambda: session.update(n=1, b=1),
        write=lambda: session.update(n=2),
    )

    assert browser.held() == {"n": 2}


def test_one_that_only_reads_undoes_nothing(browser: Browser) -> None:
    browser.put(n=0)
    at_once(browser, read=lambda: session["n"], other=lambda: session.update(n=1), write=lambda: None)

    assert browser.held() == {"n": 1}


@pytest.mark.parametrize(("store", "kept"), [("signed", 0), ("encrypted", 0), ("redis", 1)])
def test_a_reader_that_renews_the_cookie_undoes_a_change_where_the_cookie_is_all(
    browser: Browser, kept: int
) -> None:
    browser.put(n=0)
    browser.site.pass_(LIFETIME / 20 + 1)
    at_once(browser, read=lambda: session["n"], other=lambda: session.update(n=1), write=lambda: None)

    assert browser.held() == {"n": kept}


@pytest.mark.parametrize(("store", "kept"), [("signed", {"n": 1}), ("encrypted", {"n": 1}), ("redis", {})])
def test_a_request_that_ends_after_the_session_brings_it_back_where_the_cookie_is_all(
    browser: Browser, kept: dict[str, int]
) -> None:
    browser.put(n=0)
    at_once(browser, read=lambda: session["n"], other=sign_out, write=lambda: session.update(n=1))

    assert browser.held() == kept


# Signing in and out


def test_whoever_knew_the_session_before_the_sign_in_is_not_signed_in(browser: Browser) -> None:
    browser.put(cart=["tea"])
    planted = browser.copy()
    browser.sign_in("ann")

    assert browser.user() == "ann"
    assert browser.held() == {"cart": ["tea"]}
    assert planted.user() is None
    assert planted.held() == ({} if browser.site.store == "redis" else {"cart": ["tea"]})


def test_signing_in_begins_both_limits_anew(browser: Browser) -> None:
    browser.put(a=1)
    for _ in range(5):
        browser.site.pass_(5 * DAY)
        browser.held()
    browser.sign_in("ann")
    for _ in range(6):
        browser.site.pass_(5 * DAY - 1)
        assert browser.user() == "ann"
    browser.site.pass_(7)

    assert browser.user() is None


def test_a_form_token_from_before_the_sign_in_is_another_one_after_it(browser: Browser) -> None:
    seen: list[str] = []

    def sign_in() -> None:
        seen.append(generate_csrf())
        sessions.sign_in("ann")
        seen.append(generate_csrf())

    browser.ask(lambda: seen.append(generate_csrf()))
    before = browser.held()["csrf_token"]
    browser.ask(sign_in)

    assert seen[1] != seen[2]
    assert browser.held()["csrf_token"] != before


def test_another_user_finds_nothing_of_the_one_before(browser: Browser) -> None:
    browser.sign_in("ann")
    browser.put(draft="dear diary")
    browser.sign_in("bob")

    assert browser.user() == "bob"
    assert browser.held() == {}


def test_renewing_alone_keeps_user_and_content(browser: Browser) -> None:
    browser.sign_in("ann")
    browser.put(a=1)
    before = browser.copy()
    browser.ask(sessions.renew)

    assert (browser.user(), browser.held()) == ("ann", {"a": 1})
    assert before.user() == (None if browser.site.store == "redis" else "ann")


def test_renewing_twice_in_a_request_leaves_one_session(browser: Browser) -> None:
    browser.put(a=1)
    first = browser.copy()
    browser.ask(sessions.renew, sessions.renew)

    assert browser.held() == {"a": 1}
    assert first.held() == ({} if browser.site.store == "redis" else {"a": 1})


def test_a_session_that_is_renewed_and_cleared_is_gone(browser: Browser) -> None:
    browser.put(a=1)
    before = browser.copy()
    browser.ask(sessions.renew, sign_out)

    assert browser.cookie == ""
    assert before.held() == ({} if browser.site.store == "redis" else {"a": 1})


@pytest.mark.parametrize(("store", "replayed"), [("signed", "ann"), ("encrypted", "ann"), ("redis", None)])
def test_a_cookie_that_is_replayed_after_the_sign_out(browser: Browser, replayed: str | None) -> None:
    browser.sign_in("ann")
    captured = browser.copy()
    browser.ask(sign_out)

    assert browser.user() is None
    assert captured.user() == replayed


def test_a_replayed_cookie_is_refused_once_the_users_version_has_moved(browser: Browser) -> None:
    other = Browser(browser.site)
    other.sign_in("bob")
    browser.sign_in("ann")
    browser.put(a=1)
    captured = browser.copy()
    browser.site.versions["ann"] += 1

    assert captured.user() is None
    assert captured.held() == {}
    assert other.user() == "bob"
    browser.sign_in("ann")
    assert browser.user() == "ann"


def _no_sign_in() -> None:
    with pytest.raises(ValueError, match="no such user"):
        sessions.sign_in("ann")


def test_a_user_who_is_gone_has_no_session(browser: Browser) -> None:
    browser.sign_in("ann")
    del browser.site.versions["ann"]

    assert browser.user() is None
    assert browser.ask(_no_sign_in).status_code == 200


@pytest.mark.parametrize("store", ["redis"])
def test_a_users_sessions_are_ended_on_every_device(site: Site) -> None:
    devices = [Browser(site) for _ in range(3)]
    other = Browser(site)
    other.sign_in("bob")
    for device in devices:
        device.sign_in("ann")
    ended: list[int] = []

    devices[0].ask(lambda: ended.append(sessions.end_all("ann")))
    assert [device.user() for device in devices] == [None] * 3
    assert other.user() == "bob"
    other.ask(lambda: ended.append(sessions.end_all("ann")))
    assert ended == [3, 0]


@pytest.mark.parametrize("store", ["redis"])
def test_a_request_under_way_does_not_bring_an_ended_session_back(browser: Browser) -> None:
    browser.sign_in("ann")
    at_once(
        browser,
        read=lambda: session.get("n"),
        other=lambda: sessions.end_all("ann"),
        write=lambda: session.update(n=1),
    )

    assert browser.user() is None


@pytest.mark.parametrize("store", ["redis"])
@pytest.mark.parametrize("end", [lambda: sessions.end_all("ann"), sign_out], ids=["everywhere", "here"])
def test_a_renewal_under_way_does_not_bring_an_ended_session_back(browser: Browser, end: Do) -> None:
    browser.sign_in("ann")
    stolen = browser.copy()
    at_once(browser, read=lambda: session.get("n"), other=end, write=sessions.renew)

    assert browser.user() is None
    assert stolen.user() is None


@pytest.mark.parametrize("store", ["redis"])
@pytest.mark.parametrize("late", [lambda: None, lambda: session.update(n=1)], ids=["reader", "writer"])
def test_a_request_from_before_the_sign_in_does_not_sign_out_again(browser: Browser, late: Do) -> None:
    browser.put(n=0)
    browser.site.pass_(LIFETIME / 10)
    at_once(browser, read=lambda: session.get("n"), other=lambda: sessions.sign_in("ann"), write=late)

    assert browser.user() == "ann"


def test_a_session_that_may_live_longer_than_before_can_still_be_ended(
    tmp_path: Path, redis: RedisServer
) -> None:
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
    new.ask(lambda: sessions.end_all("ann"))

    assert old.user() is None


@pytest.mark.parametrize("store", ["redis"])
def test_who_changes_the_password_ends_all_and_stays_signed_in(browser: Browser) -> None:
    browser.sign_in("ann")
    thief = browser.copy()
    browser.ask(lambda: sessions.end_all("ann"), lambda: sessions.sign_in("ann"))

    assert browser.user() == "ann"
    assert thief.user() is None


@pytest.mark.parametrize("store", COOKIES)
def test_a_cookie_store_says_that_it_cannot_end_sessions(browser: Browser) -> None:
    def end() -> None:
        with pytest.raises(sessions.CannotEnd, match="session version"):
            sessions.end_all("ann")

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
    return "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=length))  # noqa: S311


@pytest.mark.parametrize("store", COOKIES)
def test_a_session_up_to_what_browsers_keep_is_whole_and_one_more_is_an_error(browser: Browser) -> None:
    length = fill(browser.site)
    response = browser.put(text=_noise(length))

    assert 3990 < len(response.headers["Set-Cookie"]) <= 4093
    assert browser.held() == {"text": _noise(length)}
    assert browser.put(text=_noise(length + 100)).status_code == 500


@pytest.mark.parametrize("store", ["signed"])
def test_what_compresses_well_may_be_longer(browser: Browser) -> None:
    browser.put(text="ha" * 5000)

    assert browser.held() == {"text": "ha" * 5000}
    assert len(browser.cookie) < 1000


@pytest.mark.parametrize("store", COOKIES)
def test_in_development_the_error_names_what_fills_the_session(browser: Browser) -> None:
    browser.app.testing = True

    with pytest.raises(sessions.CookieTooLarge, match=r"4093.* cart \(9002\), small \(3\)") as error:
        browser.put(small="x", cart=_noise(9000))
    assert _noise(10) not in str(error.value)


@pytest.mark.parametrize("store", COOKIES)
def test_in_production_it_is_logged_and_the_browser_keeps_what_it_had(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    browser = Browser(Site(store, tmp_path, environment="production"))
    browser.put(a=1)
    response = browser.put(a=2, cart=_noise(5000))

    assert response.status_code == 200
    assert browser.held() == {"a": 1}
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "cart (5002)" in record.getMessage()
    assert _noise(10) not in record.getMessage()


@pytest.mark.parametrize("store", ["redis"])
def test_a_server_takes_more_than_a_cookie(browser: Browser) -> None:
    browser.put(text="ü" * 100_000)

    assert browser.held() == {"text": "ü" * 100_000}
    assert len(browser.cookie) < 200


# What others can see


@pytest.mark.parametrize(("store", "readable"), [("signed", True), ("encrypted", False), ("redis", False)])
def test_who_reads_the_cookie(browser: Browser, readable: bool) -> None:
    browser.put(diagnosis="flu")
    assert (b"flu" in base64_decode(browser.cookie.partition(".")[0])) is readable


def test_two_cookies_of_the_same_session_are_not_the_same_where_they_are_encrypted(tmp_path: Path) -> None:
    site = Site("encrypted", tmp_path)
    cookies = set()
    for _ in range(100):
        browser = Browser(site)
        browser.put(a=1)
        cookies.add(browser.cookie)

    assert len(cookies) == 100
    assert len({len(cookie) for cookie in cookies}) == 1


@pytest.mark.parametrize("store", COOKIES)
def test_a_cookie_store_is_always_ready(site: Site) -> None:
    with site.app.app_context():
        assert sessions.ready()


def test_an_app_may_bring_sessions_of_its_own(tmp_path: Path) -> None:
    site = Site("signed", tmp_path)
    site.app.session_interface = SecureCookieSessionInterface()
    browser = Browser(site)
    browser.put(a=1)

    assert browser.held() == {"a": 1}
