"""Check every page: its links, its Python, its spelling, its settings and its figures."""

import re
import secrets
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import life
import pytest
import secure
from baking import PROJECT, TEMPLATE, UV, Bake
from leaked_keys import public_keys
from markdown_it import MarkdownIt
from markdown_it.token import Token
from readme import blocks
from redis_server import RedisServer
from secure.keys.environment import KEY_NAMES
from secure.keys.files import leaked_hashes
from secure.keys.key import InvalidKeyError, validate_key
from secure.keys.sources import RETENTION_SETTING
from secure.settings import Settings, declared_settings, variable

from benchmarks import measure, readme

MARKDOWN = MarkdownIt("commonmark").enable("table")
OF_TEMPLATE = sorted(str(path.relative_to(TEMPLATE)) for path in (*TEMPLATE.glob("*.md"), *TEMPLATE.glob("docs/*.md")))
OF_PROJECT = sorted(str(path.relative_to(PROJECT)) for path in PROJECT.rglob("*.md"))
SUPERSET = "\2\1thisismyscretkey\1\2\\e\\y\\y\\h"
"""The key of CVE-2023-27524."""
BRITISH = "behaviour colour centre favour honour labelled fulfil artefact defence licence"
FOREIGN = re.compile(
    r"\b(whoever|wherever|mend(s|ed)?|stands in|serves on|no good|as it was|is meant|goes on|takes no|minted|judged?"
    r"|the ring)\b"
)
"""Words of the first version that readers had to read twice, or that name what has another name now."""


def tokens(page: Path) -> Iterator[Token]:
    """Return the parts of a page."""
    for token in MARKDOWN.parse(page.read_text("utf-8")):
        yield token
        yield from token.children or []


def links(page: Path) -> list[str]:
    """Return what a page refers to: links, pictures, and the sources of a picture."""
    found = []
    for token in tokens(page):
        found += [str(token.attrs[name]) for name in ("href", "src") if name in token.attrs]
        if token.type in {"html_block", "html_inline"}:
            found += re.findall(r'\b(?:href|src|srcset)="([^"]*)"', token.content)
    return [unquote(link) for link in found]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    every = list(tokens(page))
    headings = [text for opened, text in pairwise(every) if opened.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading.content.lower()).replace(" ", "-") for heading in headings}


def dangling(page: Path) -> list[str]:
    """Return the links of a page that lead to no file, or to no heading."""
    wrong = []
    for link in links(page):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        there = page.parent / name if name else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("name", OF_TEMPLATE)
def test_links_of_template(template: Path, name: str) -> None:
    """Every link leads to a file, and to a heading."""
    assert dangling(template / name) == []


@pytest.mark.parametrize("name", OF_PROJECT)
def test_links_of_project(shared: Bake, name: str) -> None:
    """Every link leads to a file, and to a heading."""
    assert dangling(shared.path / name.replace("{{cookiecutter.package_name}}", shared.package.name)) == []


@pytest.mark.parametrize("folder", [TEMPLATE, PROJECT], ids=["template", "project"])
def test_reached(folder: Path) -> None:
    """A reader can reach every page from the README."""
    reached, new = set[Path](), {folder / "README.md"}
    while new:
        reached |= new
        linked = {page.parent / link.partition("#")[0] for page in new for link in links(page)}
        new = {page.resolve() for page in linked if page.suffix == ".md" and page.is_file()} - reached
    names = OF_TEMPLATE if folder == TEMPLATE else OF_PROJECT
    assert {folder / name for name in names} <= reached


def test_dangling(tmp_path: Path) -> None:
    """The check finds links that lead nowhere."""
    page = tmp_path / "page.md"
    page.write_text("# A heading\n[a](#a-heading) [b](#no) [c](no.md) [d][d]\n\n<img src='x'>\n\n[d]: no/file\n")
    assert dangling(page) == ["#no", "no.md", "no/file"]


@pytest.mark.parametrize("name", [*OF_TEMPLATE, *(f"{PROJECT.name}/{name}" for name in OF_PROJECT)])
def test_words(name: str) -> None:
    """The spelling is American, and no word is used that made readers stop."""
    prose = " ".join(token.content for token in tokens(TEMPLATE / name) if token.type == "text").lower()
    assert set(re.findall("[a-z]+", prose)).isdisjoint(BRITISH.split())
    assert not FOREIGN.search(prose)


def test_settings() -> None:
    """`.env.example` names every setting, and its default."""
    text = (PROJECT / ".env.example").read_text("utf-8")
    documented = set(re.findall(r"^#([A-Z][A-Z0-9_]+)=", text, re.MULTILINE))
    declared = {variable(each) for each in declared_settings(Settings)}
    assert documented == {*declared, *KEY_NAMES, RETENTION_SETTING}


def test_public_names() -> None:
    """The page in `secure` names what a team may import."""
    page = (PROJECT / "{{cookiecutter.package_name}}" / "secure" / "README.md").read_text("utf-8")
    named = page.partition("Public names: ")[2].partition(" (")[0]
    assert sorted(re.findall(r"`(\w+)`", named)) == sorted(secure.__all__)


def test_python_of_sessions(shared: Bake, tmp_path: Path) -> None:
    """The Python of the page on sessions runs in a project, with a real database and a real server."""
    script = TEMPLATE / "tests" / "apps" / "documented.py"
    key = secrets.token_hex(32)
    redis = RedisServer(tmp_path / "redis")
    variables = ("APP_ENV=production", f"SECRET_KEY={key}", f"SESSION_STORE={redis.address}")
    with_database = (UV, "run", "--quiet", "--no-sync", "--with", "flask-sqlalchemy>=3.1", "python")
    page = (str(script), str(TEMPLATE / "docs" / "sessions.md"), shared.package.name)
    try:
        done = shared.run("env", *variables, *with_database, *page)
    finally:
        redis.remove()
    assert done.stdout == "ran\n"


def test_contributing() -> None:
    """The commands for contributors name files that exist, and CI runs the same checks."""
    lines = [line for block in blocks(TEMPLATE / "CONTRIBUTING.md") for line in block]
    words = {word for line in lines for word in line.split() if re.search(r"\w/\w|\.py$", word)}
    assert words
    assert [word for word in words if not (TEMPLATE / word).exists()] == []
    ci = (TEMPLATE / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    assert [line for line in lines if re.search("ruff|mypy", line) and line not in ci] == []


# The README of the template


def accepted(text: str) -> bool:
    """Whether a project would start with this key."""
    try:
        validate_key(text, leaked_hashes())
    except InvalidKeyError:
        return False
    return True


def test_public_keys() -> None:
    """The keys that the README calls public are in the list, and are refused."""
    problem = (TEMPLATE / "README.md").read_text("utf-8").partition("**This template**")[0]
    named = re.findall(r"`([^`]+)`\]", problem)
    assert len(named) == 4
    assert {*named, SUPERSET} <= set(public_keys())
    assert not [key for key in (*named, SUPERSET) if accepted(key)]


@pytest.mark.parametrize(
    "key",
    [
        "Ensure you set a secret key, this is important!",  # flask-skeleton 1.0.2
        "your_secret_key",  # flarevel 5.0.1
        "your-secret-key-change-in-production",  # boilerpy 1.0.1
        "change-this-to-a-random-secret",  # create-flask-react 0.1.0
    ],
)
def test_key_of_another_starter(key: str) -> None:
    """No project starts with the key of another starter."""
    assert not accepted(key)


def test_figures() -> None:
    """The README shows the figures that were measured."""
    text = readme.README.read_text("utf-8")
    assert text.count(readme.BEGIN) == text.count(readme.END) == 1
    assert readme.with_figures(text) == text


def test_missing_figure() -> None:
    """The table has a row for each figure, and is refused without one."""
    figures = [
        {"benchmark": benchmark, "name": name, "value": 1.23456, "unit": "s", "ratio": 0.999}
        for benchmark, name in readme.ROWS
    ]
    machine = {"python": "3.11.7", "machine": "x86_64"}
    table = readme.table({"machine": machine, "figures": figures})
    assert table.count("| 1.23 s | ") == len(readme.ROWS)
    with pytest.raises(KeyError):
        readme.table({"machine": machine, "figures": figures[1:]})


@pytest.mark.parametrize(
    ("ratio", "unit", "is_worse"),
    [
        (1.09, "s", False),
        (1.11, "s", True),
        (0.5, "s", False),
        (0.95, "requests/s", False),
        (0.85, "requests/s", True),
        (2.0, "requests/s", False),
    ],
)
def test_worse_figure(ratio: float, unit: str, is_worse: bool) -> None:
    """A figure is worse if its ratio differs by more than the noise of both runs."""
    stored = measure.Figure("start", "baked", 1.0, unit, 1.0, 0.05)
    lines = measure.worse([stored], [measure.Figure("start", "baked", 9.0, unit, ratio, 0.05)])
    assert lines == [f"start, baked: {ratio:.2f} times its floor, and 1.00 when it was stored (noise 10%)"] * is_worse


def test_new_figure() -> None:
    """A figure that was never stored is not worse."""
    assert measure.worse([], [measure.Figure("start", "baked", 1.0, "s", 5.0, 0.05)]) == []


def test_pictures() -> None:
    """The pictures are small and show no key."""
    pictures = [path.read_bytes() for path in life.PICTURES.iterdir()]
    assert len(pictures) == 6
    assert max(map(len, pictures)) < 100_000
    assert not [picture for picture in pictures if re.search(b"fsk_[0-9]{8}T", picture)]


def test_picture_of_a_life() -> None:
    """The picture is what its script draws."""
    for name, theme in life.THEMES.items():
        assert (life.PICTURES / f"life-{name}.svg").read_text("utf-8") == life.picture(theme)


# The changelog


def versions_without_a_step(changelog: str) -> list[str]:
    """Return the versions that do not say what a team has to do."""
    sections = re.split(r"^## (.*)\n", changelog, flags=re.MULTILINE)[1:]
    step = re.compile(r"^\*\*To do when you update:\*\* \w", re.MULTILINE)
    return [name for name, text in zip(sections[::2], sections[1::2], strict=True) if not step.search(text)]


def test_changelog() -> None:
    """Each version says what a team has to do when it updates, and the newest one is this version."""
    changelog = (TEMPLATE / "CHANGELOG.md").read_text("utf-8")
    version = re.findall(r'^version = "(.*)"$', (TEMPLATE / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert re.findall(r"^## (\d+\.\d+\.\d+),", changelog, re.MULTILINE)[:1] == version
    assert versions_without_a_step(changelog) == []
    assert versions_without_a_step(f"## 9.9.9, today\n\nNews.\n\n{changelog}") == ["9.9.9, today"], "negative control"
