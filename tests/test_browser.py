"""A person with a real browser: Chromium, in development on plain http and in production behind TLS."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from conftest import Bake
from npm import installed
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, ViewportSize, expect, sync_playwright
from serving import serving
from tls import tls

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]
NARROW, WIDE = ViewportSize(width=320, height=700), ViewportSize(width=1000, height=800)
WATCH = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation",
        event => violations.push(event.violatedDirective + " " + event.blockedURI));
"""
"""Runs before any page does."""
DAY = 86400
RING = (1800, -3 * DAY, -20 * DAY, -60 * DAY)
"""When the keys of the ring sign from, in seconds from now: one for each state that a key can have."""


@dataclass(frozen=True)
class Sites:
    """The same project, served in development and in production."""

    development: str
    production: str

    def __getitem__(self, name: str) -> str:
        return str(getattr(self, name))


@pytest.fixture(scope="module")
def sites(shared: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """Both, until the last test has ended."""
    folder = tmp_path_factory.mktemp("sites")
    with ExitStack() as stack:

        def served(*command: str, environment: str, **variables: str) -> int:
            started = serving(
                *command,
                folder=shared.path,
                log=folder / environment,
                environment={**shared.environment, "APP_ENV": environment, **variables},
            )
            return stack.enter_context(started).port

        newest, *older = ring(shared)
        flask = (shared.program("flask"), "run", "--port", "PORT")
        gunicorn = (shared.program("gunicorn"), "--bind", "127.0.0.1:PORT")
        keys = {"SECRET_KEY": newest, "SECRET_KEY_FALLBACKS": ",".join(older)}
        behind = {"TRUSTED_HOSTS": "127.0.0.1", "TRUSTED_PROXIES": "1"}
        plain = served(*flask, environment="development", **keys)
        behind_proxy = served(*gunicorn, environment="production", **keys, **behind)
        proxy = stack.enter_context(tls(behind_proxy, folder))
        yield Sites(f"http://127.0.0.1:{plain}", proxy.url)


def ring(bake: Bake) -> list[str]:
    """The keys of RING, made by the project itself."""
    script = f"""import time
from {bake.package.name}.secret_key.key import mint
for at in {RING}: print(mint(int(time.time()) + at).text)"""
    return bake.run(bake.program("python"), "-c", script).stdout.split()


@pytest.fixture(scope="module")
def chromium(environment: Mapping[str, str]) -> Iterator[Browser]:
    """A browser with a home and a profile of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", environment["HOME"])
        patch.setenv("TMPDIR", environment["TMPDIR"])
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            yield browser
            browser.close()


Open = Callable[..., Page]


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Open]:
    """A function that opens an address in a new, empty profile: `visit(address, viewport=NARROW)`.

    Afterwards it fails the test where a page complained, broke its own policy, or did not load.
    """
    complaints: list[str] = []
    pages: list[Page] = []

    def complain(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            complaints.append(message.text)

    def fail(request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page was left before it had all
            complaints.append(f"{request.url}: {request.failure}")

    def visit(address: str, **options: Any) -> Page:
        context = chromium.new_context(ignore_https_errors=True, **options)
        context.add_init_script(WATCH)
        page = context.new_page()
        page.on("console", complain)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", fail)
        page.goto(address)
        pages.append(page)
        return page

    yield visit
    for page in pages:
        complaints += page.evaluate("window.violations ?? []")
        page.context.close()
    assert complaints == []


both = pytest.mark.parametrize("mode", ["development", "production"])


def count(page: Page) -> str:
    """To what the session has counted."""
    return page.locator(".count").inner_text()


# Cookies and forms


@pytest.mark.parametrize(
    ("mode", "name", "secure"),
    [("development", "session", False), ("production", "__Host-session", True)],
)
def test_the_browser_stores_the_cookie_as_meant(
    sites: Sites, visit: Open, mode: str, name: str, secure: bool
) -> None:
    page = visit(sites[mode])

    (cookie,) = page.context.cookies()
    assert cookie.pop("value")
    assert cookie == {
        "name": name,
        "domain": "127.0.0.1",
        "path": "/",
        "expires": -1,
        "httpOnly": True,
        "secure": secure,
        "sameSite": "Lax",
    }
    assert page.evaluate("document.cookie") == ""


@both
def test_the_form_counts_with_the_keyboard_alone(sites: Sites, visit: Open, mode: str) -> None:
    page = visit(sites[mode])

    def focused(presses: int) -> str:
        for _ in range(presses):
            page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        return str(page.evaluate("document.activeElement.textContent")).strip()

    for expected in ("1", "2"):
        assert focused(2) == "Count one more"
        page.keyboard.press("Enter")
        expect(page.locator(".count")).to_have_text(expected)
    assert focused(3) == "Start again"
    page.keyboard.press("Space")
    expect(page.locator(".count")).to_have_text("0")


@both
def test_the_form_works_without_scripts(sites: Sites, visit: Open, mode: str) -> None:
    page = visit(sites[mode], java_script_enabled=False)

    page.get_by_role("button", name="Count one more").click()

    expect(page.locator(".count")).to_have_text("1")


@both
def test_a_reload_does_not_count_again(sites: Sites, visit: Open, mode: str) -> None:
    page = visit(sites[mode])
    page.get_by_role("button", name="Count one more").click()
    expect(page.locator(".count")).to_have_text("1")

    page.reload()

    assert count(page) == "1"


@both
def test_a_form_with_another_token_is_refused(sites: Sites, chromium: Browser, mode: str) -> None:
    context = chromium.new_context(ignore_https_errors=True)
    page = context.new_page()
    page.goto(sites[mode])
    other = chromium.new_context(ignore_https_errors=True).new_page()
    other.goto(sites[mode])
    token = other.locator("[name=csrf_token]").input_value()

    page.evaluate("token => { document.querySelector('[name=csrf_token]').value = token }", token)
    page.get_by_role("button", name="Count one more").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Bad Request")
    expect(page.get_by_text("This form is no longer valid.")).to_be_visible()
    page.goto(sites[mode])
    assert count(page) == "0"
    other.context.close()
    context.close()


@both
def test_a_form_of_another_site_is_refused(
    sites: Sites, chromium: Browser, mode: str, tmp_path: Path
) -> None:
    context = chromium.new_context(ignore_https_errors=True)
    page = context.new_page()
    page.goto(sites[mode])
    page.get_by_role("button", name="Count one more").click()
    expect(page.locator(".count")).to_have_text("1")
    evil = tmp_path / "evil.html"
    evil.write_text(f"<form method=post action='{sites[mode]}/'><button>A prize!</button></form>")

    page.goto(evil.as_uri())
    page.get_by_role("button").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Bad Request")
    page.goto(sites[mode])
    assert count(page) == "1"
    context.close()


def test_no_other_site_can_frame_a_page(sites: Sites, chromium: Browser, tmp_path: Path) -> None:
    context = chromium.new_context(ignore_https_errors=True)
    page = context.new_page()
    outside = tmp_path / "outside.html"
    outside.write_text(f"<iframe src='{sites.development}'></iframe>")

    with page.expect_console_message(lambda message: "frame-ancestors 'none'" in message.text):
        page.goto(outside.as_uri())

    context.close()


def test_a_script_in_a_page_does_not_run(sites: Sites, chromium: Browser) -> None:
    context = chromium.new_context()
    context.add_init_script(WATCH)
    page = context.new_page()
    page.goto(sites.development)

    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
        document.body.setAttribute("style", "color: red");
    }""")

    page.wait_for_function("violations.length == 2")
    assert page.evaluate("[window.ran ?? false, ...violations]") == [
        False,
        "script-src-elem inline",
        "style-src-attr inline",
    ]
    context.close()


# What is to be seen


def test_production_shows_nothing_of_the_key(sites: Sites, visit: Open) -> None:
    page = visit(sites.production)

    assert page.locator("section").all_inner_texts() == [
        "A form, to try\n\nYour session has counted to 0\n\nCount one more\nStart again"
    ]


def test_development_shows_the_ring_as_a_timeline(sites: Sites, visit: Open) -> None:
    page = visit(sites.development, viewport=WIDE)

    rows = page.locator("tbody tr")
    assert [rows.nth(n).locator("td").first.inner_text() for n in range(4)] == [
        "upcoming",
        "signing",
        "retired",
        "expired",
    ]
    frame = page.locator(".bar").first.bounding_box()
    line = page.locator(".now line").bounding_box()
    assert frame
    assert line
    middle = frame["x"] + frame["width"] / 2
    assert abs(line["x"] - middle) < 2
    assert line["height"] > 4 * frame["height"]
    # The key that signs has done so for three of the eight days to the left of now.
    signs = page.locator(".bar").nth(1).locator(".signs").bounding_box()
    assert signs
    assert abs(signs["x"] + signs["width"] - middle) < 2
    assert abs(signs["width"] / frame["width"] - 3 / 16) < 0.01


@both
@pytest.mark.parametrize("path", ["/", "/no/such/page"])
def test_a_narrow_screen_does_not_scroll_sideways(
    sites: Sites, chromium: Browser, mode: str, path: str
) -> None:
    context = chromium.new_context(ignore_https_errors=True, viewport=NARROW)
    page = context.new_page()
    page.goto(sites[mode] + path)
    for details in page.locator("summary").all():
        details.click()

    assert page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]
    context.close()


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> str:
    """The source of axe-core, which looks for what keeps people out."""
    package = installed("axe-core", tmp_path_factory.mktemp("axe"), environment)
    return (package / "axe.min.js").read_text("utf-8")


def barriers(page: Page, axe: str) -> list[str]:
    """What axe-core finds wrong with a page: in the WCAG's rules and in its own best practices."""
    page.evaluate(axe)
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 10
    return [f"{rule['id']}: {node['html']}" for rule in found["violations"] for node in rule["nodes"]]


@both
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_keeps_nobody_out(
    sites: Sites, chromium: Browser, axe: str, mode: str, scheme: Literal["light", "dark"]
) -> None:
    for viewport, path in ((NARROW, "/"), (WIDE, "/"), (NARROW, "/no/such/page")):
        context = chromium.new_context(ignore_https_errors=True, color_scheme=scheme, viewport=viewport)
        page = context.new_page()
        page.goto(sites[mode] + path)
        for details in page.locator("summary").all():
            details.click()

        assert barriers(page, axe) == []
        context.close()


def test_axe_finds_what_keeps_people_out(sites: Sites, chromium: Browser, axe: str) -> None:
    context = chromium.new_context(bypass_csp=True)
    page = context.new_page()
    page.goto(sites.development)
    page.add_style_tag(content="p { color: #aaa !important; background: #fff !important }")

    assert [barrier for barrier in barriers(page, axe) if barrier.startswith("color-contrast")]
    context.close()


def test_dark_and_light_differ(sites: Sites, visit: Open) -> None:
    def brightness(scheme: str) -> int:
        page = visit(sites.production, color_scheme=scheme)
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall("[0-9]+", color)))

    assert brightness("dark") < 100
    assert brightness("light") > 700
