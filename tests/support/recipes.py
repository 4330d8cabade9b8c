"""The recipes of docs/building.md, and how they are pasted into a project."""

import ast
import re
import shlex
from dataclasses import dataclass, field

from baking import PROJECT, Bake

PAGE = PROJECT / "docs" / "building.md"
PACKAGE = "my_flask_app"
"""The package's name on the page."""
_CODE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NEEDS = re.compile(r"^(?:.*\. )?Needs \[[^]]+\]\(#([\w-]+)\)", re.MULTILINE)
_CALL = "    secure.init_app("


@dataclass(frozen=True)
class Block:
    """Lines to paste into `file`: above the line with `above`, if that is given."""

    file: str
    above: str
    text: str


@dataclass
class Recipe:
    """One section of the page."""

    name: str
    needs: list[str]
    blocks: list[Block] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)

    @property
    def packages(self) -> list[str]:
        """What `uv add` installs."""
        return [package for command in self.commands if command[:2] == ["uv", "add"] for package in command[2:]]

    @property
    def variables(self) -> dict[str, str]:
        """The variables of `.env`."""
        lines = "".join(block.text for block in self.blocks if block.file == ".env").splitlines()
        return dict(line.split("=", 1) for line in lines)


def recipes() -> dict[str, Recipe]:
    """Return the recipes of the page by the anchor of their heading."""
    sections = re.split(r"^## (.*)\n", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]
    read = [_recipe(name, text) for name, text in zip(sections[::2], sections[1::2], strict=True)]
    return {re.sub(r"[^\w\- ]", "", recipe.name.lower()).replace(" ", "-"): recipe for recipe in read if recipe.blocks}


def with_needs(*names: str) -> list[Recipe]:
    """Return the recipes with these anchors, each after those that it needs."""
    page, found = recipes(), dict[str, Recipe]()

    def add(name: str) -> None:
        for needed in page[name].needs:
            add(needed)
        found[name] = page[name]

    for name in names:
        add(name)
    return list(found.values())


def _recipe(name: str, text: str) -> Recipe:
    recipe = Recipe(name, _NEEDS.findall(text))
    for match in _CODE.finditer(text):
        before = text[: match.start()].rstrip().rpartition("\n\n")[2]
        named = re.search(r"`([\w./]+)`(?:, above `([^`]+)`)?:$", before)
        if named:
            recipe.blocks.append(Block(named[1], named[2] or "", match[2]))
        elif match[1] == "sh":
            recipe.commands += [shlex.split(line) for line in match[2].splitlines()]
    return recipe


def apply(recipe: Recipe, project: Bake) -> None:
    """Paste the blocks of a recipe into a project, by the table at the beginning of the page."""
    for block in recipe.blocks:
        text = block.text.replace(PACKAGE, project.package.name)
        path = (project.path if (project.path / block.file).exists() else project.package) / block.file
        if block.file == ".env":
            continue  # `variables`: a server in production does not read it
        path.parent.mkdir(exist_ok=True)
        old = path.read_text("utf-8") if path.exists() else ""
        path.write_text(_pasted(path.name, old, text, block.above), "utf-8")


def _pasted(name: str, old: str, text: str, above: str) -> str:
    if above:
        assert old.count(above) == 1, f"{name} has no line {above}"
        start = old.rfind("\n", 0, old.index(above)) + 1
        return old[:start] + text + old[start:]
    if not old or not name.endswith(".py"):
        return old + text
    imports, body = re.fullmatch(r"((?:(?:from|import) [^\n]*\n|\n)*)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    old = _with_imports(old, imports)
    if name == "app.py":
        return _in_create_app(old, body)
    if body.lstrip().startswith('"'):
        return old.replace("ENVIRON = {\n", f"ENVIRON = {{\n{body}", 1)
    return f"{old}\n{body}"


def _with_imports(old: str, imports: str) -> str:
    """Return `old` with more imports above its first one."""
    return re.sub(r"^(?=from )", f"{imports.strip()}\n", old, count=1, flags=re.MULTILINE) if imports else old


def _in_create_app(old: str, body: str) -> str:
    lines = body.splitlines(keepends=True)
    for statement in ast.parse(f"if 1:\n{body}").body[0].body:  # type: ignore[attr-defined]
        text = "".join(lines[statement.lineno - 2 : statement.end_lineno - 1])
        old = (
            _with_call(old, text)
            if text.startswith(_CALL)
            else old.replace("    return app\n", f"{text}    return app\n")
        )
    return old


def _with_call(old: str, statement: str) -> str:
    """Return `old`, whose call of `secure.init_app` has the arguments of both calls."""
    start = old.index(_CALL)
    theirs = next(node for node in ast.walk(ast.parse(old)) if isinstance(node, ast.Call) and _is_init(node))
    text = ast.get_source_segment(old, theirs) or ""
    both = (theirs, ast.parse(statement.strip()).body[0].value)  # type: ignore[attr-defined]
    given = {keyword.arg: ast.unparse(keyword.value) for call in both for keyword in call.keywords}
    policies = [ast.literal_eval(keyword.value) for call in both for keyword in call.keywords if keyword.arg == "csp"]
    if len(policies) > 1:
        first, second = policies
        names = dict.fromkeys([*first, *second])
        given["csp"] = repr({name: [*first.get(name, []), *second.get(name, [])] for name in names})
    arguments = [*map(ast.unparse, theirs.args), *(f"{name}={value}" for name, value in given.items())]
    assert old.startswith(text, start + 4)
    return old.replace(text, f"secure.init_app({', '.join(arguments)})", 1)


def _is_init(node: ast.Call) -> bool:
    return ast.unparse(node.func) == "secure.init_app"
