"""The README's table of figures, from result.json: uv run -m benchmarks.readme writes it again."""

import json
from pathlib import Path
from typing import Any

from .measure import shown

RESULT = Path(__file__).with_name("result.json")
README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- figures: python -m benchmarks.readme -->\n", "<!-- end of figures -->\n"
BARE, BARE_LOGS = "bare Flask, which logs nothing", "bare Flask, with gunicorn's access log"
BARE_PROJECT = "a bare Flask project"
ROWS = {
    ("first page, uv, empty cache", "baked"): ("The first page, by uv with an empty cache", BARE_PROJECT),
    ("first page, uv, warm cache", "baked"): ("The same with a warm cache", BARE_PROJECT),
    ("first page, pip, empty cache", "baked"): ("The first page, by pip with an empty cache", BARE_PROJECT),
    ("first page, pip, warm cache", "baked"): ("The same with a warm cache", BARE_PROJECT),
    ("bake", "flask-secure-start"): ("A bake", "a template of one file, no hook"),
    ("in process, /count", "baked"): ("A request that changes its session, with its line in the log", BARE),
    ("in process, /count", "baked, no log line"): ("The same without the line", BARE),
    ("in process, /plain", "baked, no log line"): ("A page without a session, without its log line", BARE),
    ("gunicorn, /count", "baked"): ("A request under gunicorn, with its line", BARE_LOGS),
    ("start", "baked"): ("A start of the app", BARE),
    ("worker memory", "baked"): ("Memory of a worker", BARE),
    ("rotate", "rotate"): ("`flask secret-key rotate`", "`import flask`"),
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


def _measured(result: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(figure["benchmark"], figure["name"]): figure for figure in result["figures"]}


def with_figures(readme: str) -> str:
    """The README with the figures of result.json in their place."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    shown = "Not measured yet.\n"
    if RESULT.exists():
        shown = table(json.loads(RESULT.read_text("utf-8")))
    return before + begin + shown + end + after


def write() -> None:
    """Put the figures of result.json into the README."""
    README.write_text(with_figures(README.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    write()
