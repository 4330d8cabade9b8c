"""The boundary of `secure`: it imports nothing of the team, and the hook can import its light part without Flask."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import secure

ROOT = Path(secure.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if "__pycache__" not in path.parts)
ALLOWED = {"click", "dotenv", "flask", "flask_wtf", "itsdangerous", "werkzeug", "jinja2", "markupsafe", "_typeshed"}
"""What any part may import beside the standard library: the project's dependencies."""
PARTS = {
    "server.py": {"gunicorn"},
    "tokens.py": {"cryptography"},
    "sessions/redis_store.py": {"redis"},
    "sessions/__init__.py": {"flask_login"},
    "store_address.py": {"redis"},
}
"""What one file may import as well."""
WITH_FLASK = {"keys/watcher.py"}
"""The only file of `keys` that may import Flask."""
JINJA = re.compile(r"\{\{-?\s*[a-z_][\w.]*\s*(?:\||-?\}\})|\{%-?\s*[a-z]+|cookiecutter")


def breaches(path: Path, source: str) -> Iterator[str]:
    """Give what is wrong in a module of `secure`; `path` is relative to its folder."""
    for found in JINJA.finditer(source):
        yield f"Jinja or a placeholder: {found[0]}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"imports {each.name}" for each in node.names if not _is_allowed(path, each.name))
        elif isinstance(node, ast.ImportFrom):
            inside = len(path.parts) - ("keys" in path.parts[:1])
            if node.level > inside:
                yield f"leaves its folder: {'.' * node.level}{node.module or ''}"
            if not node.level and not _is_allowed(path, node.module or ""):
                yield f"imports {node.module}"


def _is_allowed(path: Path, name: str) -> bool:
    top = name.partition(".")[0]
    allowed = ALLOWED | PARTS.get(str(path), set())
    if path.parts[0] == "keys" and str(path) not in WITH_FLASK:
        allowed = {"click", "dotenv"}
    return top in sys.stdlib_module_names or top in allowed


def test_modules_are_found() -> None:
    assert {"settings.py", "watcher.py", "interface.py"} <= {path.name for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_boundary(path: Path) -> None:
    assert list(breaches(path.relative_to(ROOT), path.read_text())) == []


@pytest.mark.parametrize(
    ("path", "source", "breach"),
    [
        ("web.py", "from .. import config", "leaves its folder: .."),
        ("sessions/interface.py", "from ...views import x", "leaves its folder: ...views"),
        ("sessions/interface.py", "from .. import web", ""),
        ("keys/git.py", "from ..settings import Settings", "leaves its folder: ..settings"),
        ("keys/git.py", "from .key import Key", ""),
        ("keys/git.py", "def f():\n    import flask", "imports flask"),
        ("keys/watcher.py", "import flask", ""),
        ("web.py", "import my_flask_app.config", "imports my_flask_app.config"),
        ("web.py", "from secure import settings", "imports secure"),
        ("web.py", "import redis", "imports redis"),
        ("web.py", "from os import path", ""),
        ("web.py", "NAME = '{{ name }}'", "Jinja or a placeholder: {{ name }}"),
        ("web.py", "if True:  # {% if x %}\n    pass", "Jinja or a placeholder: {% if"),
        ("web.py", "# made by cookiecutter", "Jinja or a placeholder: cookiecutter"),
        ("web.py", "x = f'{{{1}}}'", ""),
    ],
)
def test_breaches(path: str, source: str, breach: str) -> None:
    """A control: the check finds what it is there for."""
    assert list(breaches(Path(path), source)) == ([breach] if breach else [])


def test_names(tmp_path: Path) -> None:
    """No module, template or style sheet of `secure` has the name of a project."""
    texts = {path: path.read_text() for path in ROOT.rglob("*") if path.suffix in (".py", ".html", ".css", ".md")}

    assert texts
    assert [path for path, text in texts.items() if re.search(r"my[_-]flask[_-]app|cookiecutter\.", text)] == []


def imported(module: str, *, alone: bool = True) -> set[str]:
    """Return the top-level names of the modules that a fresh Python has after the import of `module`."""
    code = f"import sys; sys.path.insert(0, {str(ROOT.parent)!r}); import {module}; print(*sys.modules)"
    flags = ["-S", "-I"] if alone else []
    places = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, check=True, env=places)
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.slow
@pytest.mark.parametrize("module", ["files", "key_format", "text", "keyring"])
def test_standard_library_alone(module: str) -> None:
    """The hook that creates the first key runs where no library is installed."""
    loaded = imported(f"secure.keys.{module}")

    assert loaded - sys.stdlib_module_names <= {"__main__", "secure"}
    assert not loaded & {"flask", "click", "dotenv", "werkzeug"}
    with pytest.raises(subprocess.CalledProcessError):
        imported("secure.keys.environment")  # a control: it needs click


@pytest.mark.slow
def test_settings_without_flask() -> None:
    """Nor python-dotenv, before there is a `.env`."""
    loaded = imported("secure.settings", alone=False)

    assert "click" in loaded
    assert not loaded & {"flask", "werkzeug", "redis", "gunicorn", "cryptography", "dotenv"}
    assert "flask" in imported("secure.web", alone=False), "a control"


def test_public_names() -> None:
    """Each is what it says, whatever was imported before: a submodule of the same name would hide it."""
    for path in ROOT.glob("*.py"):
        if path.stem not in ("__init__", "server"):  # gunicorn's hooks import a server
            import_module(f"secure.{path.stem}")
    assert secure.__all__
    for name in secure.__all__:
        value = getattr(secure, name)
        assert callable(value) or name in ("sessions", "tokens", "csrf"), name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        secure.nothing  # noqa: B018
