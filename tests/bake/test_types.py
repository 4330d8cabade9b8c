"""A type checker knows the type of each setting that a team declares."""

import sys
from pathlib import Path

import secure
from baking import run

TYPED = """
import secure

class Settings(secure.Settings):
    database_url: str = secure.setting(secret=True)
    page_size: int = secure.setting(20)
    limit: int | None = secure.setting(None)
    level: float = secure.setting(parse=float)
    dsn: str = secure.setting("", required_in_production=True)

settings = Settings.load()
reveal_type(settings)
reveal_type(settings.database_url)
reveal_type(settings.page_size)
reveal_type(settings.limit)
reveal_type(settings.environment)
settings.page_size = 3
settings.nothing

class Wrong(secure.Settings):
    page_size: int = secure.setting("20")
    level: int = secure.setting(1, parse=str)
"""


def test_types(tmp_path: Path, environment: dict[str, str]) -> None:
    """A type checker knows each setting, and finds a wrong default."""
    (tmp_path / "config.py").write_text(TYPED)
    found = environment | {"MYPYPATH": str(Path(secure.__file__).parents[1])}
    command = (sys.executable, "-m", "mypy", "--strict", "--cache-dir", "cache", "config.py")
    done = run(*command, cwd=tmp_path, environment=found, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("config.py")]
    number = TYPED.splitlines().index("reveal_type(settings)") + 1

    assert [line.split('"')[1] for line in lines if "Revealed type" in line] == [
        "config.Settings",
        "str",
        "int",
        "int | None",
        "Literal['production'] | Literal['development'] | Literal['testing']",
    ]
    assert [int(line.split(":")[1]) - number for line in lines if ": error:" in line] == [5, 6, 9, 10], lines
