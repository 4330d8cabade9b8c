"""Visitors of a site, who notice a request that fails and a session that is lost.

    python visitors.py HOST PORT [PATH]

Each visitor sends the form of the start page again and again, each time on a new connection, as a browser behind
a TLS proxy does. The session counts the forms. Runs until stdin closes, then prints what was seen, as JSON.
"""

import html
import http.client
import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie

VISITORS = 4
PAUSE = 0.1
"""Seconds between two requests of a visitor."""
LIMIT = 30
"""Seconds for which a visitor waits for an answer."""
HEADERS = {
    "Host": "localhost",
    "Referer": "https://localhost/",
    "X-Forwarded-For": "192.0.2.7",
    "X-Forwarded-Proto": "https",
    "Content-Type": "application/x-www-form-urlencoded",
    "Connection": "close",
}
_COUNT = re.compile(r'class="count">(\d+)<')
_TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')


@dataclass
class Visits:
    """What all visitors saw together. Filled in when they have left."""

    requests: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    """How often each kind of failure was seen."""
    lost: int = 0
    """How often a visitor's session was gone."""
    slowest: float = 0
    """Seconds of the slowest request."""


@contextmanager
def visiting(port: int, host: str = "127.0.0.1", path: str = "/", under: Sequence[str] = ()) -> Iterator[Visits]:
    """Have visitors visit for the time of the block; `under` is a command that runs them."""
    visits = Visits()
    command = [*under, sys.executable, __file__, host, str(port), path]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield visits
    finally:
        output, _ = process.communicate(timeout=2 * LIMIT)
        vars(visits).update(json.loads(output))
        print(visits)


class Browser:
    """The cookies of one browser, and its requests for the start page."""

    def __init__(self, port: int, host: str = "127.0.0.1", path: str = "/") -> None:
        self._address, self._path = (host, port), path
        self._cookies: dict[str, str] = {}
        self._token = ""

    def count(self) -> int:
        """How many forms the session has counted. Raises OSError or HTTPException for a failure."""
        page = self._ask("GET")
        self._token = html.unescape(_found(_TOKEN, page))
        return int(_found(_COUNT, page))

    def add(self) -> None:
        """Send the form of the page that `count` has seen. Raises as `count` does."""
        self._ask("POST", f"csrf_token={self._token}")

    def _ask(self, method: str, body: str = "") -> str:
        connection = http.client.HTTPConnection(*self._address, timeout=LIMIT)
        cookie = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        try:
            connection.request(method, self._path, body, HEADERS | ({"Cookie": cookie} if cookie else {}))
            response = connection.getresponse()
            page = response.read().decode()
        finally:
            connection.close()
        if response.status not in (200, 303):
            raise http.client.HTTPException(f"{method} {response.status}")
        given = SimpleCookie("; ".join(response.headers.get_all("Set-Cookie", [])))
        self._cookies |= {name: morsel.value for name, morsel in given.items()}
        return page


class Visitor(threading.Thread):
    """A browser whose user sends one form after the other."""

    def __init__(self, browser: Browser, end: threading.Event) -> None:
        super().__init__()
        self._browser, self._end = browser, end
        self.times: list[float] = []
        self.failures: Counter[str] = Counter()
        self.lost = 0

    def run(self) -> None:
        """Visit until the end."""
        count = 0
        while not self._end.wait(PAUSE):
            shown = self._timed(self._browser.count)
            if shown is not None:
                self.lost += shown < count
                failures = self.failures.total()
                self._timed(self._browser.add)
                count = shown + (self.failures.total() == failures)

    def _timed(self, ask: Callable[[], int | None]) -> int | None:
        began = time.monotonic()
        try:
            return ask()
        except (OSError, http.client.HTTPException) as error:
            self.failures[repr(error)] += 1
            return None
        finally:
            self.times.append(time.monotonic() - began)


def _found(pattern: re.Pattern[str], page: str) -> str:
    found = pattern.search(page)
    if not found:
        raise http.client.HTTPException(f"a page without {pattern.pattern}: {page}")
    return found[1]


def main() -> None:
    """Visit until stdin closes."""
    end = threading.Event()
    path = sys.argv[3] if len(sys.argv) > 3 else "/"
    visitors = [Visitor(Browser(int(sys.argv[2]), sys.argv[1], path), end) for _ in range(VISITORS)]
    for visitor in visitors:
        visitor.start()
    sys.stdin.read()
    end.set()
    for visitor in visitors:
        visitor.join()
    times = [seconds for visitor in visitors for seconds in visitor.times]
    failures = sum((visitor.failures for visitor in visitors), Counter[str]())
    lost = sum(visitor.lost for visitor in visitors)
    print(json.dumps({"requests": len(times), "failures": failures, "lost": lost, "slowest": max(times, default=0)}))


if __name__ == "__main__":
    main()
