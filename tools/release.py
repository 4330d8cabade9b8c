"""Write `release.sha256`: the version of `secure` and the SHA-256 of each of its files, for `flask secure-audit`.

uv run tools/release.py
"""

import hashlib
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "{{cookiecutter.project_slug}}" / "{{cookiecutter.package_name}}"))

from secure.status import FOLDER, RELEASE, code  # noqa: E402 - its folder is on the path only now


def release() -> str:
    """Return the text of the list."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    digests = {each.relative_to(FOLDER).as_posix(): hashlib.sha256(each.read_bytes()) for each in code(FOLDER)}
    lines = (f"{digest.hexdigest()}  {name}\n" for name, digest in sorted(digests.items()))
    return f"# secure {version}\n{''.join(lines)}"


if __name__ == "__main__":
    text = release()
    (FOLDER / RELEASE).write_text(text, "utf-8", newline="\n")
    print(f"SHA-256 of {RELEASE}: {hashlib.sha256(text.encode()).hexdigest()}")
