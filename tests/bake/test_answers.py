"""What a user may type. An answer is data: it bakes as it is, or is refused in one line with nothing left."""

import ast
import json
import re
import shlex
import string
import tomllib
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from answers import HOSTILE, REFUSED
from baking import COOKIECUTTER, PROJECT, TEMPLATE, Bake, run
from cookiecutter.prompt import render_variable
from cookiecutter.utils import create_env_with_context
from hypothesis import assume, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pre_gen_project import problem
from warm import Warm

SETTINGS = json.loads((TEMPLATE / "cookiecutter.json").read_text("utf-8"))
ENVIRONMENT = create_env_with_context({"cookiecutter": SETTINGS})
RENDERED = {
    name: ENVIRONMENT.from_string((PROJECT / name).read_text("utf-8"))
    for name in ("pyproject.toml", "README.md", "{{cookiecutter.package_name}}/app.py")
}
"""The files that an answer of any form is written to."""
PROMPTS = [name for name in SETTINGS if not name.startswith("_")]


def answers(**typed: str) -> dict[str, str]:
    """All that cookiecutter would know, with `typed` at the prompts, which it takes literally."""
    known: dict[str, str] = {}
    for name, default in SETTINGS.items():
        if name in PROMPTS or name.startswith("__markdown"):
            known[name] = typed.get(name) or str(render_variable(ENVIRONMENT, default, known))
    return known


def test_prompts() -> None:
    """There are at most five, and each says what it asks."""
    assert len(PROMPTS) <= 5
    assert list(SETTINGS["__prompts__"]) == PROMPTS


@pytest.mark.parametrize(("prompt", "typed", "message"), REFUSED)
def test_refused_answers(prompt: str, typed: str, message: str, tmp_path: Path, bake: Callable[..., Bake]) -> None:
    """Nothing stays of a refused bake."""
    result = bake(check=False, **{prompt: typed}).result
    assert result.returncode == 1
    assert result.stderr.startswith("ERROR: ")
    assert message in result.stderr
    assert [line.partition(":")[0] for line in result.stderr.splitlines()[1:]] == ["hint"]
    assert list(tmp_path.iterdir()) == []


# cookiecutter makes the folder before any hook runs: what it can do to a path, it has done by then.
@pytest.mark.parametrize("slug", ["a/b", "../b", "..", ".", "", "/", "x" * 10_000])
def test_slug_with_a_path(slug: str, tmp_path: Path, bake_into: Callable[..., Bake]) -> None:
    """It is refused, and no file stays."""
    folder = tmp_path / "out"
    folder.mkdir()
    assert bake_into(folder, check=False, project_slug=slug).result.returncode == 1
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
    assert list(tmp_path.iterdir()) == [folder]


def test_names_of_test_modules() -> None:
    """No package may have the name of a module of the tests."""
    modules = {path.stem for path in (PROJECT / "tests").glob("*.py")}
    assert "conftest" in modules
    assert {name for name in modules if not problem(answers(package_name=name))} == set()


def test_suggested_names() -> None:
    """What the defaults suggest is not refused."""
    names = [
        "My Flask App",
        "3D Viewer",
        "2048",
        "🚀",
        "日本語",
        "Größe",
        "x" * 100,
        "a.b",
        "C++ & Co.",
        "O'Neil",
    ]
    assert {name: problem(answers(project_name=name)) for name in names} == dict.fromkeys(names)


def test_names_of_modules(shared: Bake) -> None:
    """No package may hide a module that the project installs."""
    script = "import importlib.metadata as m; print(*m.packages_distributions())"
    installed = shared.run(shared.program("python"), "-c", script).stdout.split()
    importable = {name for name in installed if name.isidentifier() and not name.startswith("_")}
    importable -= {shared.package.name}
    assert len(importable) > 10
    assert [name for name in importable if not problem(answers(package_name=name))] == []


def test_names_of_distributions(shared: Bake) -> None:
    """No name is that of a distribution that some Python or system needs.

    For example async-timeout, which redis needs below Python 3.11.3.
    """
    locked = tomllib.loads((shared.path / "uv.lock").read_text("utf-8"))["package"]
    names = {package["name"] for package in locked} - {shared.path.name}
    assert len(names) > 20
    assert [name for name in names if not problem(answers(project_slug=name, package_name="app"))] == []
    modules = {name.replace("-", "_") for name in names}
    assert [name for name in modules if not problem(answers(package_name=name))] == []


def test_names_of_recipes() -> None:
    """No project has the name of a library that a recipe adds: `uv add` would refuse it."""
    page = (PROJECT / "docs" / "building.md").read_text("utf-8")
    names = {
        re.split(r"[\[=<>]", name)[0] for line in re.findall("^uv add (.*)", page, re.M) for name in shlex.split(line)
    }
    assert len(names) > 10
    assert [name for name in names if not problem(answers(project_slug=name, package_name="app"))] == []


def test_number_as_an_answer() -> None:
    """A replay file may have one."""
    assert problem({**answers(), "author": 7}) is None  # type: ignore[dict-item]


def test_names_in_the_second_hook() -> None:
    """No accepted name ends the quotes around it in the second hook."""
    known = answers(project_name="A", project_slug="a", package_name="a")
    harmless = set(f"{string.ascii_letters}{string.digits}._-")
    for prompt in ("project_slug", "package_name"):
        accepted = {c for c in map(chr, range(0x3000)) if problem(known | {prompt: f"a{c}a"}) is None}
        assert {"0", "z"} <= accepted <= harmless


@pytest.mark.parametrize("version", ["3.9", "3.10"])
@pytest.mark.parametrize(("tool", "argument"), [("cookiecutter", ()), ("copier", ("{}",))])
def test_old_python(tool: str, argument: tuple[str, ...], version: str, environment: dict[str, str]) -> None:
    """The message names what is too old."""
    python = next(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), None)
    if python is None:
        pytest.skip(f"there is no Python {version}")
    hook = str(TEMPLATE / "hooks" / "pre_gen_project.py")
    result = run(str(python), hook, *argument, cwd=TEMPLATE, environment=environment, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith(f"ERROR: {tool} runs on Python {version}: this template needs 3.11")
    assert result.stderr.splitlines()[1:] == [f"hint: uv tool run --python 3.13 {tool}"]


def test_old_cookiecutter() -> None:
    """One that leaves private variables unrendered is refused with a hint."""
    old = answers() | {"__markdown_name": SETTINGS["__markdown_name"]}
    assert problem(old) == "cookiecutter: this version is too old\nhint: uv tool run cookiecutter"


PAGE = """
import json
from app.app import create_app
app = create_app()
page = app.test_client().get("/", base_url="https://localhost").text
print(json.dumps([app.jinja_env.globals["app_name"], app.jinja_env.globals["app_description"], page]))
"""


class Page(HTMLParser):
    """The tags of a page, in order, and each text with the tag it follows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag."""
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        """Note the text."""
        self.texts += [(tag, data) for tag in self.tags[-1:]]


@pytest.fixture(scope="module")
def plain(shared: Bake) -> Page:
    """The start page of a project with the default answers."""
    code = PAGE.replace("from app.", "from my_flask_app.")
    return Page(json.loads(shared.run(shared.program("python"), "-c", code).stdout)[2])


def readme_head(text: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """The first two blocks of a Markdown text, as CommonMark reads them: what they are, what they hold."""
    tokens = MarkdownIt().parse(text)
    blocks = [(block.tag, text.children or []) for block, text in pairwise(tokens) if text.type == "inline"]
    return [(tag, [(child.type, child.content) for child in children]) for tag, children in blocks[:2]]


def page_names(code: str) -> dict[str, str]:
    """Return the names that `app.py` gives to its pages."""
    nodes = (node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant))
    [names] = [json.loads(value) for value in nodes if isinstance(value, str) and value.startswith("{")]
    return dict(names)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_answers(
    text: str,
    tmp_path: Path,
    environment: dict[str, str],
    template: Path,
    shared: Bake,
    plain: Page,
    cookiecutter: Warm,
) -> None:
    """A hostile answer is data in every file, and never runs."""
    typed = f"{text}\napp\napp\n{text}\n{text}\n"
    command = (str(COOKIECUTTER), "-o", str(tmp_path), str(template))
    result = run(*command, cwd=tmp_path, environment=environment, input=typed, warm=cookiecutter)
    project = Bake(tmp_path / "app", result, environment)

    metadata = tomllib.loads((project.path / "pyproject.toml").read_text("utf-8"))["project"]
    assert (metadata["name"], metadata["description"], metadata["authors"]) == ("app", text, [{"name": text}])

    python = shared.program("python")
    name, description, html = json.loads(project.run(python, "-c", PAGE).stdout)
    assert (name, description) == (text, text)
    page = Page(html)
    assert page.tags == plain.tags
    assert {("title", text), ("h1", text), ("p", text)} <= set(page.texts)

    readme = (project.path / "README.md").read_text("utf-8")
    assert readme_head(readme) == [("h1", [("text", text)]), ("p", [("text", text)])]

    project.run(shared.program("ruff"), "check", "app/app.py")
    project.run(shared.program("ruff"), "format", "--check", "app/app.py")
    places = (tmp_path, template, TEMPLATE, Path(environment["HOME"]), Path(environment["TMPDIR"]))
    assert [path for place in places for path in place.rglob("pwned*")] == []


def test_answer_with_an_expression(
    bake: Callable[..., Bake],
) -> None:
    """An answer on the command line is rendered by cookiecutter; the result is data."""
    project = bake(project_name='{{ 7 * 7 }} "a"', description="{% raw %}{{ 7 * 7 }}{% endraw %}")
    metadata = tomllib.loads((project.path / "pyproject.toml").read_text("utf-8"))["project"]
    assert metadata["name"] == "49-a"
    assert metadata["description"] == "{{ 7 * 7 }}"
    names = {"app_name": '49 "a"', "app_description": "{{ 7 * 7 }}"}
    assert page_names((project.package / "app.py").read_text("utf-8")) == names


def test_answer_that_cannot_be_rendered(tmp_path: Path, bake: Callable[..., Bake]) -> None:
    """Nothing stays."""
    assert bake(check=False, project_name="{{ unknown }}").result.returncode == 1
    assert list(tmp_path.iterdir()) == []


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_accepted_answers(text: str) -> None:
    """Each is right in TOML, Python and Markdown."""
    known = answers(project_name=text, description=text, author=text, project_slug="app", package_name="app")
    assume(problem(known) is None)
    baked = {name: template.render(cookiecutter=known) for name, template in RENDERED.items()}
    metadata = tomllib.loads(baked["pyproject.toml"])["project"]
    assert (metadata["description"], metadata["authors"]) == (text, [{"name": text}])
    assert readme_head(baked["README.md"]) == [("h1", [("text", text)]), ("p", [("text", text)])]
    assert page_names(baked["{{cookiecutter.package_name}}/app.py"]) == {"app_name": text, "app_description": text}
