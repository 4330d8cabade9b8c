"""A real browser, with a home and a profile of its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Error, Page, Response, sync_playwright

from pictures import CHROMIUM

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

NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"
"""What a request ends with while a container of another test starts or ends."""


def go(page: Page, address: str) -> Response | None:
    """Open an address; once more, if the machine's network has changed meanwhile."""
    try:
        return page.goto(address)
    except Error as error:
        if NETWORK_CHANGED not in error.message:
            raise
        return page.goto(address)


@contextmanager
def chromium(environment: Mapping[str, str]) -> Iterator[Browser]:
    """Run a browser until the block ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", environment["HOME"])
        patch.setenv("TMPDIR", environment["TMPDIR"])
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            yield browser
            browser.close()
