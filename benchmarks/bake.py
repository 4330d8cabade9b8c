"""What a bake costs, against a template of one file with no hook."""

import tempfile
from functools import partial
from pathlib import Path

from .measure import Figure, compared, cpu_seconds
from .project import Project, bake, clean_copy

ROUNDS = 9


def run(_: Project) -> list[Figure]:
    """Seconds of CPU of the whole command, into a new folder each time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def once(template: Path) -> None:
            with tempfile.TemporaryDirectory(dir=folder) as into:
                bake(template, Path(into), folder)

        templates = {"one file, no hook": floor(folder), "flask-secure-start": clean_copy(folder / "template")}
        both = {name: partial(cpu_seconds, partial(once, template)) for name, template in templates.items()}
        return compared("bake", "s CPU", both, ROUNDS)


def floor(folder: Path) -> Path:
    """A template of one file with no hook, made in `folder`."""
    template = folder / "floor"
    project = template / "{{cookiecutter.project_slug}}"
    project.mkdir(parents=True)
    (template / "cookiecutter.json").write_text('{"project_slug": "my-flask-app"}', "utf-8")
    (project / "README.md").write_text("# {{ cookiecutter.project_slug }}\n", "utf-8")
    return template
