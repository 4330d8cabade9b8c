"""How long a bake takes, against a template of one file with no hook."""

import tempfile
import time
from pathlib import Path

from .measure import Figure, compared
from .project import bake, clean_copy

ROUNDS = 9


def run() -> list[Figure]:
    """Wall seconds of the whole command, into a new folder each time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        floor = folder / "floor"
        (floor / "{{cookiecutter.project_slug}}").mkdir(parents=True)
        (floor / "cookiecutter.json").write_text('{"project_slug": "my-flask-app"}', "utf-8")
        (floor / "{{cookiecutter.project_slug}}" / "README.md").write_text(
            "# {{ cookiecutter.project_slug }}\n"
        )
        ours = clean_copy(folder / "template")

        def timed(template: Path) -> float:
            with tempfile.TemporaryDirectory(dir=folder) as into:
                start = time.perf_counter()
                bake(template, Path(into), folder)
                return time.perf_counter() - start

        candidates = {"one file, no hook": lambda: timed(floor), "flask-secure-start": lambda: timed(ours)}
        return compared("bake", "s", candidates, ROUNDS)
