"""How long a bake takes, against a template of one file with no hook."""

import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from .measure import Figure, compared
from .project import COOKIECUTTER, bake, clean_copy, install, make_environment

ROUNDS = 9


def run() -> list[Figure]:
    """Wall seconds of the whole command, into a new folder each time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one_file = floor(folder)
        ours = clean_copy(folder / "template")

        def figures(benchmark: str, cookiecutter: str, **variables: str) -> list[Figure]:
            def timed(template: Path) -> float:
                with tempfile.TemporaryDirectory(dir=folder) as into:
                    start = time.perf_counter()
                    bake(template, Path(into), folder, cookiecutter, **variables)
                    return time.perf_counter() - start

            both = {"one file, no hook": lambda: timed(one_file), "flask-secure-start": lambda: timed(ours)}
            return compared(benchmark, "s", both, ROUNDS)

        # uv compiles nothing that it installs: the first run of a program does.
        new = make_environment(folder / "new")
        install(new, f"cookiecutter=={version('cookiecutter')}")
        first = figures("first bake", str(new / "bin" / "cookiecutter"), PYTHONDONTWRITEBYTECODE="1")
        return figures("bake", COOKIECUTTER) + first


def floor(folder: Path) -> Path:
    """A template of one file with no hook, made in `folder`."""
    template = folder / "floor"
    project = template / "{{cookiecutter.project_slug}}"
    project.mkdir(parents=True)
    (template / "cookiecutter.json").write_text('{"project_slug": "my-flask-app"}', "utf-8")
    (project / "README.md").write_text("# {{ cookiecutter.project_slug }}\n", "utf-8")
    return template
