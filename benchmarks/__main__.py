"""Run the benchmarks: uv run -m benchmarks [bake] [requests] [keys] [start] [rotation] [peers]."""

import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from . import bake, keys, peers, readme, request_cost, rotation, start
from .measure import table
from .project import make_project

WITH_PROJECT = {
    "requests": request_cost.run,
    "keys": keys.run,
    "start": start.run,
    "rotation": rotation.run,
    "peers": peers.run,
}


def main() -> None:
    """Print a Markdown table; where all was measured, keep it in result.json and in the README."""
    # What is measured runs compiled, as it does once it is installed; the round that is not counted compiles.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    wanted = sys.argv[1:] or ["bake", *WITH_PROJECT]
    figures = bake.run() if "bake" in wanted else []
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder)) if set(wanted) & set(WITH_PROJECT) else None
        for name, measure in WITH_PROJECT.items():
            if project and name in wanted:
                figures += measure(project)
    print(table(figures))
    if "peers" in wanted:
        print("", *(f"- {name}: {seen}" for name, seen in peers.notes().items()), sep="\n")
    if not sys.argv[1:]:
        machine = {"python": platform.python_version(), "machine": platform.machine()}
        content = {
            "machine": machine,
            "figures": [figure.as_dict() for figure in figures],
            "peers": peers.notes(),
        }
        readme.RESULT.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
        readme.write()


if __name__ == "__main__":
    main()
