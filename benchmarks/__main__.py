"""Run the benchmarks: uv run -m benchmarks [bake] [requests] [keys] [start] [rotation]."""

import json
import platform
import sys
import tempfile
from pathlib import Path

from . import bake, keys, request_cost, rotation, start
from .measure import table
from .project import make_project

RESULT = Path(__file__).with_name("result.json")
WITH_PROJECT = {
    "requests": request_cost.run,
    "keys": keys.run,
    "start": start.run,
    "rotation": rotation.run,
}


def main() -> None:
    """Print a Markdown table; keep the figures in result.json where all were measured."""
    wanted = sys.argv[1:] or ["bake", *WITH_PROJECT]
    figures = bake.run() if "bake" in wanted else []
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder)) if set(wanted) & set(WITH_PROJECT) else None
        for name, measure in WITH_PROJECT.items():
            if project and name in wanted:
                figures += measure(project)
    print(table(figures))
    if not sys.argv[1:]:
        machine = {"python": platform.python_version(), "machine": platform.machine()}
        content = {"machine": machine, "figures": [figure.as_dict() for figure in figures]}
        RESULT.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
