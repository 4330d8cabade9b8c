"""Real copier runs, with the answers in a file: copier takes them literally."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from baking import Bake, run
from warm import Warm

COPIER = str(Path(sys.executable).with_name("copier"))


def copy(
    template: Path | str,
    folder: Path,
    environment: Mapping[str, str],
    *flags: str,
    answers: Mapping[str, str] | None = None,
    check: bool = True,
    warm: Warm | None = None,
) -> Bake:
    """Copy a template to `folder`, with defaults for the questions that `answers` leaves out."""
    data = folder.parent / f"{folder.name}.answers"
    data.write_text(json.dumps(answers or {}, ensure_ascii=False), "utf-8")
    command = (COPIER, "copy", "--trust", "--defaults", "--data-file", str(data), *flags, str(template), str(folder))
    try:
        result = run(*command, cwd=folder.parent, environment=environment, check=check, warm=warm)
    finally:
        data.unlink()
    return Bake(folder, result, environment)


def tree(folder: Path, *without: str) -> dict[str, tuple[int, bytes]]:
    """Return the mode and the content of every file of a project by its path, without git's."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.relative_to(folder).parts)
    read = {str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes()) for path in files}
    return {name: content for name, content in read.items() if name not in without}
