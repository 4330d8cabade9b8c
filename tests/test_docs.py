"""Every page reads as it should: its links lead somewhere, its Python runs, its spelling is one."""

import re
import secrets
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import life
import pytest
from conftest import PROJECT, TEMPLATE, UV, Bake
from leaked_keys import public_keys
from markdown_it import MarkdownIt
from markdown_it.token import Token
from redis_server import RedisServer
from test_leaked_keys import accepted

from benchmarks import peers, readme

MARKDOWN = MarkdownIt("commonmark").enable("table")
OF_TEMPLATE = sorted(path.name for path in TEMPLATE.glob("*.md"))
OF_PROJECT = sorted(str(path.relative_to(PROJECT)) for path in PROJECT.rglob("*.md"))
SUPERSET = "\2\1thisismyscretkey\1\2\\e\\y\\y\\h"
"""The key of CVE-2023-27524."""
SPELLED_OTHERWISE = "behavior color center canceled favor honor labeled fulfill artifact defense"


def tokens(page: Path) -> Iterator[Token]:
    """All that a page is made of."""
    for token in MARKDOWN.parse(page.read_text("utf-8")):
        yield token
        yield from token.children or []


def links(page: Path) -> list[str]:
    """The places that a page refers to: links, pictures, and the sources of a picture."""
    found = []
    for token in tokens(page):
        found += [str(token.attrs[name]) for name in ("href", "src") if name in token.attrs]
        if token.type in {"html_block", "html_inline"}:
            found += re.findall(r'\b(?:href|src|srcset)="([^"]*)"', token.content)
    return [unquote(link) for link in found]


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    every = list(tokens(page))
    headings = [text for opened, text in pairwise(every) if opened.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading.content.lower()).replace(" ", "-") for heading in headings}


def dangling(page: Path) -> list[str]:
    """The links of a page that lead to no file, or to no heading of it."""
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
def test_a_link_of_the_template_leads_to_a_file_and_a_heading(template: Path, name: str) -> None:
    assert dangling(template / name) == []


@pytest.mark.parametrize("name", OF_PROJECT)
def test_a_link_of_the_project_leads_to_a_file_and_a_heading(shared: Bake, name: str) -> None:
    assert dangling(shared.path / name) == []


@pytest.mark.parametrize("folder", [TEMPLATE, PROJECT], ids=["template", "project"])
def test_every_page_is_reached_from_the_readme(folder: Path) -> None:
    reached, new = set[Path](), {folder / "README.md"}
    while new:
        reached |= new
        linked = {page.parent / link.partition("#")[0] for page in new for link in links(page)}
        new = {page.resolve() for page in linked if page.suffix == ".md" and page.is_file()} - reached
    names = OF_TEMPLATE if folder == TEMPLATE else OF_PROJECT
    assert {folder / name for name in names} <= reached


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading\n[a](#a-heading) [b](#no) [c](no.md) [d][d]\n\n<img src='x'>\n\n[d]: no/file\n"
    )
    assert dangling(page) == ["#no", "no.md", "no/file"]


@pytest.mark.parametrize("name", [*OF_TEMPLATE, *(f"{PROJECT.name}/{name}" for name in OF_PROJECT)])
def test_the_spelling_is_british(name: str) -> None:
    prose = " ".join(token.content for token in tokens(TEMPLATE / name) if token.type == "text")
    assert set(re.findall("[a-z]+", prose.lower())).isdisjoint(SPELLED_OTHERWISE.split())


def test_the_python_of_the_page_on_sessions_runs(shared: Bake, tmp_path: Path) -> None:
    script = TEMPLATE / "tests" / "apps" / "documented.py"
    key = secrets.token_hex(32)
    redis = RedisServer(tmp_path / "redis")
    variables = ("APP_ENV=production", f"SECRET_KEY={key}", f"SESSION_STORE={redis.address}")
    with_database = (UV, "run", "--quiet", "--no-sync", "--with", "flask-sqlalchemy>=3.1", "python")
    page = (str(script), "docs/sessions.md", shared.package.name)
    try:
        done = shared.run("env", *variables, *with_database, *page)
    finally:
        redis.remove()
    assert done.stdout == "ran\n"


# The README of the template


def test_the_keys_that_the_readme_calls_public_are() -> None:
    problem = (TEMPLATE / "README.md").read_text("utf-8").partition("**Here**")[0]
    named = re.findall(r"`([^`]+)`\]", problem)
    assert len(named) == 4
    assert {*named, SUPERSET} <= set(public_keys())
    assert not [key for key in (*named, SUPERSET) if accepted(key)]


def test_no_project_would_start_with_the_key_of_a_peer() -> None:
    assert not [peer.name for peer in peers.PEERS if accepted(peer.key)]


def test_the_figures_are_those_that_were_measured() -> None:
    text = readme.README.read_text("utf-8")
    assert text.count(readme.BEGIN) == text.count(readme.END) == 1
    assert readme.with_figures(text) == text


def test_the_table_of_figures_has_a_row_for_each_and_misses_none() -> None:
    figures = [
        {"benchmark": benchmark, "name": name, "value": 1.23456, "unit": "s", "ratio": 0.999}
        for benchmark, name in readme.ROWS
    ]
    machine = {"python": "3.11.7", "machine": "x86_64"}
    table = readme.table({"machine": machine, "figures": figures})
    assert table.count("| 1.23 s | ") == len(readme.ROWS)
    with pytest.raises(KeyError):
        readme.table({"machine": machine, "figures": figures[1:]})


def test_the_table_of_peers_tells_of_those_that_ran_and_those_that_did_not() -> None:
    figures = [
        {"benchmark": benchmark, "name": "ran 1.0", "value": 2.0, "unit": "s", "ratio": 1.0}
        for benchmark in (readme.BAKE_OF_PEERS, readme.REQUEST_OF_PEERS)
    ]
    table = readme.table_of_peers({"figures": figures, "peers": {"ran 1.0": "key", "other": "not run: why"}})
    assert table.splitlines()[2:] == ["| ran 1.0 | 2 s | 2 s | key |", "| other |  |  | not run: why |"]


def test_the_pictures_are_small_and_show_no_key() -> None:
    pictures = [path.read_bytes() for path in life.PICTURES.iterdir()]
    assert len(pictures) == 6
    assert max(map(len, pictures)) < 100_000
    assert not [picture for picture in pictures if re.search(b"fsk_[0-9]{8}T", picture)]


def test_the_picture_of_a_life_is_what_its_script_draws() -> None:
    for name, theme in life.THEMES.items():
        assert (life.PICTURES / f"life-{name}.svg").read_text("utf-8") == life.picture(theme)
