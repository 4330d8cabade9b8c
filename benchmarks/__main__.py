"""Run the benchmarks: uv run -m benchmarks [--store] [bake] [first_page] [requests] [rotate] [stores].

Without a name, all run, and the result is compared with the stored one. It replaces that, and the README's table,
unless a figure is worse by more than the noise; with --store, in any case.
"""

import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from . import bake, first_page, readme, requests, rotate, stores
from .measure import Figure, table, worse
from .project import make_project

ALL = {  # the bake first: it is slower while the disk still writes the many files of the first pages
    "bake": bake.run,
    "first_page": first_page.run,
    "requests": requests.run,
    "rotate": rotate.run,
    "stores": stores.run,
}


def main() -> int:
    """Print a table of each benchmark and return 1 if one is worse than the stored one."""
    # What is measured runs compiled, as it does once it is installed; the round that is not counted compiles.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    wanted = [name for name in sys.argv[1:] if name != "--store"]
    if unknown := set(wanted) - ALL.keys():
        print(f"benchmarks: no such benchmark: {', '.join(sorted(unknown))}\nhint: {', '.join(ALL)}", file=sys.stderr)
        return 2
    figures = list[Figure]()
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder))
        for name in wanted or ALL:
            figures += (measured := ALL[name](project))
            print(table(measured), flush=True)
    stored = json.loads(readme.RESULT.read_text("utf-8")) if readme.RESULT.exists() else {"figures": []}
    lines = worse([Figure(**figure) for figure in stored["figures"]], figures)
    for line in lines:
        print(line, file=sys.stderr)
    if not wanted and ("--store" in sys.argv or not lines):
        machine = {"python": platform.python_version(), "machine": platform.machine()}
        result = {"machine": machine, "figures": [figure.as_dict() for figure in figures]}
        readme.RESULT.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")
        readme.write()
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
