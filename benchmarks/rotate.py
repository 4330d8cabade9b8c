"""What `rotate` costs, against `import flask`."""

from functools import partial

from .measure import Figure, compared, cpu_seconds
from .project import Project

ROUNDS = 9


def run(project: Project) -> list[Figure]:
    """Seconds of CPU of the command, on a keyring of one key."""
    keyring = project.path.parent / "keyring"
    keyring.touch(0o600)
    kept = {name: value for name, value in project.environment.items() if name != "SECRET_KEY"}
    with_file = Project(project.path, {**kept, "SECRET_KEY_FILE": str(keyring)})
    flask = project.program("flask")

    def rotate() -> float:
        keyring.write_text(with_file.run(flask, "secret-key", "generate"))
        return cpu_seconds(partial(with_file.run, flask, "secret-key", "rotate"))

    floor = partial(cpu_seconds, partial(project.python, "import flask"))
    return compared("rotate", "s CPU", {"import flask": floor, "rotate": rotate}, ROUNDS)
