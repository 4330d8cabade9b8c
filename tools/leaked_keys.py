"""Make `leaked.bin`, the list of public keys that a project refuses, from flask-unsign-wordlist.

    uv run tools/leaked_keys.py            writes the file
    uv run tools/leaked_keys.py --check    exit 1 where the file is not what this would write

The list is by Luke Paris (Paradoxis), MIT licence; see NOTICE.md. Only keys that are long enough to be
accepted otherwise are kept, each as a truncated SHA-256 hash, sorted: the same input, the same bytes.
"""

import ast
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import flask_unsign_wordlist

TEMPLATE = Path(__file__).resolve().parent.parent
PACKAGE = TEMPLATE / "{{cookiecutter.project_slug}}" / "{{cookiecutter.package_name}}"
LEAKED_BIN = PACKAGE / "secure" / "keys" / "leaked.bin"
sys.path.insert(0, str(PACKAGE))

from secure.keys.foreign import MIN_LENGTH  # noqa: E402
from secure.keys.key import leaked_hash  # noqa: E402


def public_keys() -> Iterator[str]:
    """Every entry of the word list: Python literals, one a line, some of them cut off."""
    for line in Path(flask_unsign_wordlist.get("all")).read_bytes().decode("utf-8").split("\n"):
        try:
            yield literal(line)
        except SyntaxError:
            yield from (line, line.strip("'\""))


def literal(line: str) -> str:
    """The text that a Python literal means. Raises SyntaxError."""
    with warnings.catch_warnings(action="ignore"):  # an unknown escape such as \% must not depend on -W
        return str(ast.literal_eval(line))


def leaked_bin() -> bytes:
    """The content of the file: the sorted hashes of all keys that are long enough."""
    keys = {text for key in public_keys() for text in (key, key.strip())}
    return b"".join(sorted({leaked_hash(key) for key in keys if len(key) >= MIN_LENGTH}))


def main() -> int:
    """Write or check the file; the exit code."""
    path, content = LEAKED_BIN, leaked_bin()
    if "--check" in sys.argv[1:]:
        return int(path.read_bytes() != content)
    path.write_bytes(content)
    print(f"{path.name}: {len(content)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
