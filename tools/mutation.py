"""Count the changes of the code around the secret key that the tests of `secure` do not notice.

    uv run python tools/mutation.py            all of secure/keys and secure/settings.py
    uv run python tools/mutation.py keyring    the modules with this word in their path

mutmut changes one thing at a time in a copy of the folder `secure` and runs the tests that reach it. This prints every
change that no test noticed, and a table; the exit code is 1 if there are too many. `mutation.md` says why those that
are left change nothing.
"""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parent.parent
PACKAGE = TEMPLATE / "{{cookiecutter.project_slug}}" / "{{cookiecutter.package_name}}"
MUTMUT = ("uv", "run", "--quiet", "--with", "mutmut==3.8.1", "mutmut")
ENVIRONMENT = {**os.environ, "UV_PROJECT": str(TEMPLATE)}
ENOUGH = 0.95
MUTATED = ("secure/keys/*.py", "secure/settings.py")
UNNOTICED = {"survived", "no tests", "not checked"}
SETTINGS = """\
[mutmut]
source_paths=secure
only_mutate={mutated}
pytest_add_cli_args_test_selection=
    tests/keys
    tests/test_settings.py
    tests/test_web.py
pytest_add_cli_args=
    -m not slow or git
    -p no:cacheprovider
    --ignore=tests/keys/test_leaked_keys.py
also_copy=
    tests
    conftest.py
timeout_constant=20
timeout_multiplier=3
track_dependencies=false

[tool:pytest]
pythonpath=. tests
markers=
    slow
    git
"""
CONFTEST = """\
import functools, subprocess, sys
import pytest

def pytest_runtest_setup():
    # Each test calls what has a cache: mutmut asks which tests reach a function, and forks with the caches filled.
    for name, module in list(sys.modules.items()):
        if name.startswith("secure"):
            for value in vars(module).values():
                if isinstance(value, functools._lru_cache_wrapper):
                    value.cache_clear()

# A new process runs the code unchanged: a test that starts one cannot notice a change any more.
class Popen(subprocess.Popen):
    def __init__(self, args, *more, **options):
        if sys.executable in args:
            pytest.skip("starts a new process")
        super().__init__(args, *more, **options)

subprocess.Popen = Popen
"""


class Reachable(ast.NodeTransformer):
    """Puts code where mutmut changes it: it passes over a decorated function, and over one in an `if`."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> list[ast.stmt]:
        """The function bare, and each decorator called after it."""
        decorators = [ast.unparse(each) for each in reversed(node.decorator_list)]
        calls = [f"{node.name} = {each}({node.name})" for each in decorators]
        node.decorator_list = []
        self.generic_visit(node)
        return [node, *ast.parse("\n".join(calls)).body]

    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt]:
        """What a POSIX system runs."""
        self.generic_visit(node)
        test = ast.unparse(node.test)
        if test == "sys.platform == 'win32'":
            return node.orelse
        return node.body if test == "sys.platform != 'win32'" else node


@dataclass(frozen=True)
class Mutant:
    """One change, and what became of it."""

    name: str
    status: str

    @property
    def file(self) -> str:
        """Where the change is."""
        return self.name.rpartition(".")[0].replace(".", "/") + ".py"

    @property
    def noticed(self) -> bool:
        """Whether a test failed, or did not end."""
        return self.status not in UNNOTICED


def prepared(folder: Path, word: str) -> Path:
    """A copy of `secure` and its tests, ready for mutmut."""
    shutil.copytree(PACKAGE / "secure", folder / "secure", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(TEMPLATE / "tests" / "secure", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    # Read by tests, above the folder in which mutmut runs them
    shutil.copytree(PACKAGE.parent / "docs", folder / "docs")
    shutil.copytree(TEMPLATE / "tools", folder / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    mutated = [path for name in MUTATED for path in sorted(folder.glob(name)) if word in str(path.relative_to(folder))]
    if not mutated:
        sys.exit(f"{word}: no module has this word in its path")
    names = "".join(f"\n    {path.relative_to(folder)}" for path in mutated)
    (folder / "setup.cfg").write_text(SETTINGS.format(mutated=names), "utf-8")
    (folder / "conftest.py").write_text(CONFTEST, "utf-8")
    for path in mutated:
        tree = Reachable().visit(ast.parse(path.read_text("utf-8")))
        path.write_text(ast.unparse(tree) + "\n", "utf-8")
    return folder


def mutmut(project: Path, *arguments: str) -> str:
    """What a command of mutmut prints."""
    return subprocess.run(
        [*MUTMUT, *arguments], cwd=project, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def mutants(project: Path) -> list[Mutant]:
    """Every mutant of a finished run."""
    lines = mutmut(project, "results", "--all", "true").splitlines()
    return [Mutant(name.strip(), status) for name, _, status in (line.partition(": ") for line in lines)]


def table(found: list[Mutant]) -> str:
    """A Markdown table with a row for each file."""
    total, killed = Counter(each.file for each in found), Counter(each.file for each in found if each.noticed)
    return "\n".join(
        [
            "| file | mutants | killed | survived | % |",
            "|---|---:|---:|---:|---:|",
            *(row(f"`{file}`", total[file], killed[file]) for file in sorted(total)),
            row("all", total.total(), killed.total()),
        ]
    )


def row(name: str, total: int, killed: int) -> str:
    """One row of the table."""
    return f"| {name} | {total} | {killed} | {total - killed} | {100 * killed / total:.1f} |"


def main() -> int:
    """Run it; the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        project = prepared(Path(folder), "".join(sys.argv[1:2]))
        several = str(3 * (os.cpu_count() or 1))  # many tests wait
        subprocess.run([*MUTMUT, "run", "--max-children", several], cwd=project, env=ENVIRONMENT, check=True)
        found = mutants(project)
        survivors = [mutmut(project, "show", each.name) for each in found if not each.noticed]
    print(*survivors, table(found), sep="\n")
    return int(len(found) - len(survivors) < ENOUGH * len(found))


if __name__ == "__main__":
    sys.exit(main())
