"""Count the changes of the code around the secret key that the project's own tests do not notice.

    uv run python tools/mutation.py

Bakes a project; mutmut then changes one thing at a time in the `secret_key` folder and in `config.py`, and
runs the tests that reach it. Prints every change that no test noticed, and a table; exit 1 where there are
too many. `mutation.md` says why those that are left change nothing.
"""

import ast
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.project import UV, bake, clean_copy

MUTMUT = (UV, "run", "--quiet", "--with", "mutmut==3.8.1", "mutmut")
ENOUGH = 0.95
PACKAGE = "my_flask_app"
MUTATED = ("secret_key/*.py", "config.py")
TESTS = (
    "commands config duration environment forgeries handover key keyring live logs pages redaction"
    " scan security session_server source store"
)
UNNOTICED = {"survived", "no tests", "not checked"}
SETTINGS = """\
[mutmut]
source_paths={package}
only_mutate={mutated}
pytest_add_cli_args_test_selection={tests}
pytest_add_cli_args=--hypothesis-profile=ci
timeout_constant=20
timeout_multiplier=3
track_dependencies=false
"""


class Reachable(ast.NodeTransformer):
    """Puts code where mutmut changes it: it passes over a decorated function, and over one in an `if`."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> list[ast.stmt]:
        """The function bare, and each decorator called after it."""
        calls = [f"{node.name} = {ast.unparse(each)}({node.name})" for each in reversed(node.decorator_list)]
        node.decorator_list = []
        self.generic_visit(node)
        return [node, *ast.parse("\n".join(calls)).body]

    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt]:
        """What a POSIX system runs."""
        self.generic_visit(node)
        return node.body if ast.unparse(node.test) == "sys.platform != 'win32'" else node


@dataclass(frozen=True)
class Mutant:
    """One change, and what became of it."""

    name: str
    status: str

    @property
    def file(self) -> str:
        """Where the change is, within the package."""
        return self.name.removeprefix(f"{PACKAGE}.").rpartition(".")[0].replace(".", "/") + ".py"

    @property
    def noticed(self) -> bool:
        """Whether a test failed, or did not end."""
        return self.status not in UNNOTICED


def prepared(folder: Path) -> Path:
    """A baked project, ready for mutmut."""
    bake(clean_copy(folder / "template"), folder, folder)
    project = folder / PACKAGE.replace("_", "-")
    mutated, tests = (
        [f"{PACKAGE}/{name}" for name in MUTATED],
        [f"tests/test_{n}.py" for n in TESTS.split()],
    )
    settings = SETTINGS.format(package=PACKAGE, mutated="\n    ".join(mutated), tests="\n    ".join(tests))
    (project / "setup.cfg").write_text(settings, "utf-8")
    for path in (path for name in mutated for path in project.glob(name)):
        tree = Reachable().visit(ast.parse(path.read_text("utf-8")))
        path.write_text(ast.unparse(tree) + "\n", "utf-8")
    subprocess.run([UV, "sync", "--quiet", "--all-extras", "--python", sys.executable], cwd=project, check=True)
    return project


def mutmut(project: Path, *arguments: str) -> str:
    """What a command of mutmut prints."""
    return subprocess.run([*MUTMUT, *arguments], cwd=project, stdout=subprocess.PIPE, text=True, check=True).stdout


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
        project = prepared(Path(folder))
        subprocess.run([*MUTMUT, "run"], cwd=project, check=True)
        found = mutants(project)
        survivors = [mutmut(project, "show", each.name) for each in found if not each.noticed]
    print(*survivors, table(found), sep="\n")
    return int(len(found) - len(survivors) < ENOUGH * len(found))


if __name__ == "__main__":
    sys.exit(main())
