"""Bake for real, and take pictures of it: uv run tools/pictures.py writes them into pictures/.

A terminal in which a project is baked and its key rotated, as SVG, and the status page, as PNG. All that they show
was printed and served; only the name of the folder is another one. Needs Chromium and committed work.
"""

import os
import pty
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Literal, NamedTuple

from life import PICTURES
from playwright.sync_api import sync_playwright

TEMPLATE = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium") or "chromium"
"""The first one is the same engine without the parts of a window: it opens a page in a quarter of the time."""
BAKE = "uv tool run cookiecutter --output-dir .. ."
IN_PROJECT = (
    "cd ../my-flask-app",
    "APP_ENV=production SECRET_KEY=not-so-secret uv run gunicorn",
    "uv run flask secret-key status",
    "uv run flask secret-key rotate",
    "uv run flask secret-key status",
)
COLUMNS, LINE, CHARACTER = 110, 19, 7.4
"""The width of the terminal in characters, and the size of one of its places."""
OF_ANOTHER = ("GIT_", "VIRTUAL_ENV", "UV_NO_SYNC", "UV_PROJECT", "FLASK_", "SECRET_KEY", "APP_ENV", "COOKIECUTTER")
"""How variables begin that would bake or run something else."""
WIDTH = 640
"""Of the status page, in pixels."""
DAY = 86400
RING = (1800, -3 * DAY, -20 * DAY)
"""When the keys of the status page's keyring sign from, in seconds from now: upcoming, signing and retired."""
MINT = f"""import time
from my_flask_app.secure.keys.key import generate_key
print(*(generate_key(int(time.time()) + at).text for at in {RING}))"""


class Theme(NamedTuple):
    """The terminal's colors."""

    back: str
    edge: str
    words: str
    prompt: str
    typed: str


THEMES: dict[Literal["light", "dark"], Theme] = {
    "light": Theme("#f6f8fa", "#d1d9e0", "#424a53", "#1a7f37", "#0550ae"),
    "dark": Theme("#151b23", "#3d444d", "#d1d7e0", "#3fb950", "#79c0ff"),
}


def typed(command: str, folder: Path, environment: Mapping[str, str]) -> list[str]:
    """The lines that a terminal shows when `command` is typed, and Enter at each question."""
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        ["bash", "-c", command], cwd=folder, env=environment, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    try:
        while more := os.read(master, 4096):
            shown += more
            if shown.endswith(b": "):
                os.write(master, b"\n")
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(master)
    process.wait()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r\n", "\n").rstrip("\n").split("\n")


def session(folder: Path, environment: Mapping[str, str]) -> list[str]:
    """All that a terminal shows, from the bake to the rotation; too long a line goes on in the next."""
    clone = folder / "flask-secure-start"
    subprocess.run(["git", "clone", "--quiet", str(TEMPLATE), str(clone)], check=True)
    lines = [f"$ {BAKE}", *typed(BAKE, clone, environment), ""]
    project = folder / "my-flask-app"
    subprocess.run(["uv", "sync", "--quiet"], cwd=project, env=environment, check=True)
    for command in IN_PROJECT:
        lines += [
            f"$ {command}",
            *filter(None, typed(command, clone if "cd" in command else project, environment)),
        ]
    shown = (line.replace(str(folder), "/home/you") for line in lines)
    return [line[at : at + COLUMNS] for line in shown for at in range(0, len(line) or 1, COLUMNS)]


def picture(lines: list[str], theme: Theme) -> str:
    """A terminal with these lines."""
    width, height = round(COLUMNS * CHARACTER) + 40, len(lines) * LINE + 40
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img"'
        " font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace\""
        ' font-size="12.3">'
    )
    frame = (
        f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8"'
        f' fill="{theme.back}" stroke="{theme.edge}"/>'
    )
    title = "<title>A terminal: a project is baked, a public key refused, and the key rotated</title>"
    rows = [_row(line, 33 + LINE * n, theme) for n, line in enumerate(lines) if line]
    return "\n".join([head, title, frame, *rows, "</svg>\n"])


def _row(line: str, y: int, theme: Theme) -> str:
    """One line; its length is fixed, so that columns stand below each other in any font."""
    length = len(line) * CHARACTER
    command = line.startswith("$ ")
    line = line.replace(" ", "\N{NO-BREAK SPACE}")  # several of them would be shown as one
    words = f'<tspan fill="{theme.prompt}">$</tspan>{escape(line[1:])}' if command else escape(line)
    color = theme.typed if command else theme.words
    return f'<text x="20" y="{y}" fill="{color}" textLength="{length:.1f}">{words}</text>'


@contextmanager
def status_page(project: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """The address of the status page, served in development with the keys of RING."""
    keys = subprocess.check_output(
        [project / ".venv/bin/python", "-c", MINT], cwd=project, env=environment, text=True
    ).split()
    (project / ".env").unlink()  # its keys would win
    keyring = {"SECRET_KEY": keys[0], "SECRET_KEY_FALLBACKS": ",".join(keys[1:]), "APP_ENV": "development"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [str(project / ".venv/bin/flask"), "run", "--port", str(port)],
        cwd=project,
        env={**environment, **keyring},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}/_secure/"
        _wait_for(address)
        yield address
    finally:
        server.terminate()
        server.wait()


def _wait_for(address: str) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(address).close()  # noqa: S310 - its own server
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the app did not start")


def photograph(address: str) -> None:
    """The status page, in both color schemes."""
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        for scheme in THEMES:
            page = browser.new_page(color_scheme=scheme, viewport={"width": WIDTH, "height": 600})
            page.goto(address)
            first, last = page.locator("h1").bounding_box(), page.locator("section").nth(0).bounding_box()
            if not first or not last:
                raise SystemExit("the status page has no keyring")
            top, bottom = first["y"] - 16, last["y"] + last["height"] + 16
            page.screenshot(
                path=PICTURES / f"start-{scheme}.png",
                full_page=True,
                clip={"x": 0, "y": top, "width": WIDTH, "height": bottom - top},
            )
        browser.close()


def main() -> None:
    """Write all the pictures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(OF_ANOTHER)}
        cache = subprocess.check_output(["uv", "cache", "dir"], text=True).strip()
        own = {
            "HOME": name,
            "UV_CACHE_DIR": cache,
            "TERM": "xterm",
            "UV_NO_PROGRESS": "1",
            "COLUMNS": str(COLUMNS),
        }
        environment = {**kept, **own}
        typed("uv tool run cookiecutter --version", TEMPLATE, environment)  # what it says once: what it installs
        lines = session(folder, environment)
        for scheme, theme in THEMES.items():
            (PICTURES / f"terminal-{scheme}.svg").write_text(picture(lines, theme), "utf-8")
        with status_page(folder / "my-flask-app", environment) as address:
            photograph(address)


if __name__ == "__main__":
    main()
