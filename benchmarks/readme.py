"""The README's table of figures, from result.json: uv run -m benchmarks.readme writes it again."""

import json
from pathlib import Path
from typing import Any

from .measure import shown

RESULT = Path(__file__).with_name("result.json")
README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- figures: python -m benchmarks.readme -->\n", "<!-- end of figures -->\n"
OPEN, CLOSE = "<details><summary>Beside starters that the package registry has</summary>\n", "</details>\n"
BAKE_OF_PEERS, REQUEST_OF_PEERS = "peers: bake", "peers: a request"
ONE_FILE = "a template of one file, no hook"
BARE = "bare Flask, which logs nothing"
ROWS = {
    ("first bake", "flask-secure-start"): ("The first bake by a new cookiecutter", ONE_FILE),
    ("bake", "flask-secure-start"): ("Each later bake", ONE_FILE),
    ("in-process /count", "baked, not logging requests"): (
        "A request that changes its session, its line in the log turned off",
        BARE,
    ),
    ("in-process /count", "baked"): ("The same with its line in the log", BARE),
    ("gunicorn /count", "baked, not logging requests"): ("Under gunicorn, the line turned off", BARE),
    ("gunicorn /count", "baked"): ("Under gunicorn, with the line", BARE),
    ("gunicorn /count", "bare, with an access log"): ("Bare Flask, with gunicorn's own line", BARE),
    ("oldest cookie", "10 keys"): ("A session that the oldest of ten keys signed", "one key"),
    ("forged cookie", "10 keys"): ("A forged session, tried with ten keys", "one key"),
    ("start", "baked"): ("A start of the app", "bare Flask"),
    ("worker memory", "baked"): ("Memory of a worker", "bare Flask"),
    ("rotate", "rotate"): ("`flask secret-key rotate`", "`import flask`"),
    ("p99 of a request", "it changes 5 times a second"): (
        "The slowest request of 100, while the keyring changes 5 times a second",
        "a keyring that rests",
    ),
}
"""What a figure is, and what it is compared with."""


def table(result: dict[str, Any]) -> str:
    """The figures that the README shows. Raises KeyError for one that was not measured."""
    measured = _measured(result)
    lines = ["| | here | against | ratio |", "|---|---:|---|---:|"]
    for row, (what, against) in ROWS.items():
        figure = measured[row]
        lines.append(f"| {what} | {shown(figure['value'])} {figure['unit']} | {against} | {figure['ratio']:.2f} |")
    machine = result["machine"]
    return "\n".join(lines) + f"\n\nPython {machine['python']}, {machine['machine']}, medians.\n"


def table_of_peers(result: dict[str, Any]) -> str:
    """Each peer's bake and request, and what its key is or why it was not run."""
    measured = _measured(result)
    names = [name for benchmark, name in measured if benchmark == BAKE_OF_PEERS]
    lines = ["| | a bake | a request that changes its session | |", "|---|---:|---:|---|"]
    for name in dict.fromkeys([*names, *result["peers"]]):
        figures = (measured.get((benchmark, name)) for benchmark in (BAKE_OF_PEERS, REQUEST_OF_PEERS))
        cells = [f"{shown(figure['value'])} {figure['unit']}" if figure else "" for figure in figures]
        lines.append(f"| {' | '.join([name, *cells, result['peers'].get(name, '')])} |")
    return "\n".join(lines) + "\n"


def _measured(result: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(figure["benchmark"], figure["name"]): figure for figure in result["figures"]}


def with_figures(readme: str) -> str:
    """The README with the figures of result.json in their place."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    shown = "Not measured yet.\n"
    if RESULT.exists():
        result = json.loads(RESULT.read_text("utf-8"))
        shown = f"{table(result)}\n{OPEN}\n{table_of_peers(result)}\n{CLOSE}"
    return before + begin + shown + end + after


def write() -> None:
    """Put the figures of result.json into the README."""
    README.write_text(with_figures(README.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    write()
