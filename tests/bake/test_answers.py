"""What a user may type. An answer is data: it bakes as it is, or is refused in one line with nothing left."""

import ast
import json
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


def test_there_are_at_most_five_prompts_and_each_says_what_it_asks() -> None:
    assert len(PROMPTS) <= 5
    assert list(SETTINGS["__prompts__"]) == PROMPTS


@pytest.mark.parametrize(("prompt", "typed", "message"), REFUSED)
def test_an_answer_that_cannot_bake_is_refused_and_nothing_stays(
    prompt: str, typed: str, message: str, tmp_path: Path, bake: Callable[..., Bake]
) -> None:
    result = bake(check=False, **{prompt: typed}).result
    assert result.returncode == 1
    assert result.stderr.startswith("ERROR: ")
    assert message in result.stderr
    assert [line.partition(":")[0] for line in result.stderr.splitlines()[1:]] == ["hint"]
    assert list(tmp_path.iterdir()) == []


# cookiecutter makes the folder before any hook runs: what it can do to a path, it has done by then.
@pytest.mark.parametrize("slug", ["a/b", "../b", "..", ".", "", "/", "x" * 10_000])
def test_a_slug_that_is_a_path_is_refused_and_no_file_stays(
    slug: str, tmp_path: Path, bake_into: Callable[..., Bake]
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    assert bake_into(folder, check=False, project_slug=slug).result.returncode == 1
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
    assert list(tmp_path.iterdir()) == [folder]


def test_no_package_is_called_what_a_module_of_the_tests_is_called() -> None:
    modules = {path.stem for path in (PROJECT / "tests").glob("*.py")}
    assert "conftest" in modules
    assert {name for name in modules if not problem(answers(package_name=name))} == set()


def test_nothing_is_refused_that_the_defaults_suggest() -> None:
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


def test_no_package_hides_a_module_that_the_project_installs(shared: Bake) -> None:
    script = "import importlib.metadata as m; print(*m.packages_distributions())"
    installed = shared.run(shared.program("python"), "-c", script).stdout.split()
    importable = {name for name in installed if name.isidentifier() and not name.startswith("_")}
    importable -= {shared.package.name}
    assert len(importable) > 10
    assert [name for name in importable if not problem(answers(package_name=name))] == []


def test_no_name_is_that_of_a_distribution_which_some_python_or_system_needs(shared: Bake) -> None:
    """For example async-timeout, which redis needs below Python 3.11.3."""
    locked = tomllib.loads((shared.path / "uv.lock").read_text("utf-8"))["package"]
    names = {package["name"] for package in locked} - {shared.path.name}
    assert len(names) > 20
    assert [name for name in names if not problem(answers(project_slug=name, package_name="app"))] == []
    modules = {name.replace("-", "_") for name in names}
    assert [name for name in modules if not problem(answers(package_name=name))] == []


def test_no_accepted_name_ends_the_text_that_the_second_hook_has_it_in() -> None:
    known = answers(project_name="A", project_slug="a", package_name="a")
    harmless = set(f"{string.ascii_letters}{string.digits}._-")
    for prompt in ("project_slug", "package_name"):
        accepted = {c for c in map(chr, range(0x3000)) if problem(known | {prompt: f"a{c}a"}) is None}
        assert {"0", "z"} <= accepted <= harmless


@pytest.mark.parametrize("version", ["3.9", "3.10"])
@pytest.mark.parametrize(("tool", "argument"), [("cookiecutter", ()), ("copier", ("{}",))])
def test_an_interpreter_that_is_too_old_is_told_so(
    tool: str, argument: tuple[str, ...], version: str, environment: dict[str, str]
) -> None:
    python = next(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), None)
    if python is None:
        pytest.skip(f"there is no Python {version}")
    hook = str(TEMPLATE / "hooks" / "pre_gen_project.py")
    result = run(str(python), hook, *argument, cwd=TEMPLATE, environment=environment, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith(f"ERROR: {tool} runs on Python {version}: this template needs 3.11")
    assert result.stderr.splitlines()[1:] == [f"hint: uv tool run --python 3.13 {tool}"]


def test_a_cookiecutter_that_leaves_private_variables_unrendered_is_told_so() -> None:
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
def test_a_hostile_answer_is_data_in_every_file_and_never_runs(
    text: str,
    tmp_path: Path,
    environment: dict[str, str],
    template: Path,
    shared: Bake,
    plain: Page,
    cookiecutter: Warm,
) -> None:
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


def test_cookiecutter_renders_an_answer_on_its_command_line_and_what_it_gets_is_data(
    bake: Callable[..., Bake],
) -> None:
    project = bake(project_name='{{ 7 * 7 }} "a"', description="{% raw %}{{ 7 * 7 }}{% endraw %}")
    metadata = tomllib.loads((project.path / "pyproject.toml").read_text("utf-8"))["project"]
    assert metadata["name"] == "49-a"
    assert metadata["description"] == "{{ 7 * 7 }}"
    names = {"app_name": '49 "a"', "app_description": "{{ 7 * 7 }}"}
    assert page_names((project.package / "app.py").read_text("utf-8")) == names


def test_an_answer_that_cookiecutter_cannot_render_leaves_nothing(tmp_path: Path, bake: Callable[..., Bake]) -> None:
    assert bake(check=False, project_name="{{ unknown }}").result.returncode == 1
    assert list(tmp_path.iterdir()) == []


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_every_answer_that_is_not_refused_is_right_in_toml_python_and_markdown(text: str) -> None:
    known = answers(project_name=text, description=text, author=text, project_slug="app", package_name="app")
    assume(problem(known) is None)
    baked = {name: template.render(cookiecutter=known) for name, template in RENDERED.items()}
    metadata = tomllib.loads(baked["pyproject.toml"])["project"]
    assert (metadata["description"], metadata["authors"]) == (text, [{"name": text}])
    assert readme_head(baked["README.md"]) == [("h1", [("text", text)]), ("p", [("text", text)])]
    assert page_names(baked["{{cookiecutter.package_name}}/app.py"]) == {"app_name": text, "app_description": text}
