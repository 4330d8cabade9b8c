"""copier makes the project that cookiecutter makes, from the same files, answers and rules."""

import json
import re
import string
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from answers import HOSTILE, REFUSED
from baking import COOKIECUTTER, PROJECT, TEMPLATE, UV, run
from copying import COPIER, copy, tree
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import FileSystemLoader
from jinja2.sandbox import SandboxedEnvironment
from pre_gen_project import DEPENDENCIES, KEYWORDS, LONGEST, TAKEN, WINDOWS_RESERVED, problem
from slugify import slugify
from warm import Warm

CONFIG: dict[str, Any] = yaml.safe_load((TEMPLATE / "copier.yml").read_text("utf-8"))
SETTINGS: dict[str, Any] = json.loads((TEMPLATE / "cookiecutter.json").read_text("utf-8"))
JINJA = SandboxedEnvironment(
    loader=FileSystemLoader(TEMPLATE),
    extensions=["jinja2_ansible_filters.AnsibleCoreFiltersExtension"],
    **CONFIG["_envops"],
)
"""What copier renders with."""
RULES: Any = JINJA.get_template("hooks/copier.jinja").module
ANSWERS_FILE = ".copier-answers.yml"
OWN = "APP_ENV=development\nSECRET_KEY=6b1f0c9d2e8a4b7c5d3e9f8a7b6c5d4e3f2a1b0c\nPORT=8000\n"
ONLY_COPY = "{{cookiecutter._copier_operation == 'copy'}}"


def both(folder: Path, template: Path, cookiecutter: Warm, copier: Warm, *typed: str) -> tuple[Path, Path]:
    """Bake with cookiecutter, whose user types the answers, and copy with copier; return the two projects."""
    names = dict(zip(LONGEST, typed, strict=False))
    baked, copied = folder / "baked", folder / "copied"
    baked.mkdir()
    lines = "".join(f"{answer}\n" for answer in (*typed, *[""] * (len(LONGEST) - len(typed))))
    command = (str(COOKIECUTTER), "-o", str(baked), str(template))
    run(*command, cwd=baked, environment=cookiecutter.environment, input=lines, warm=cookiecutter)
    copy(template, copied, copier.environment, answers=names, warm=copier)
    return next(baked.iterdir()), copied


# One tree.


@pytest.mark.parametrize(
    "typed",
    [
        (),
        ("Größe & Co., 2. Teil",),
        *[(a, "app", "app", b, a) for a, b in zip(HOSTILE[::2], HOSTILE[1::2], strict=True)],
    ],
    ids=["defaults", "name", *map(str, range(len(HOSTILE) // 2))],
)
def test_same_tree(
    typed: tuple[str, ...],
    tmp_path: Path,
    template: Path,
    environment: dict[str, str],
    cookiecutter: Warm,
    copier: Warm,
) -> None:
    """Both tools write the same bytes and modes, and both create a key."""
    baked, copied = both(tmp_path, template, cookiecutter, copier, *typed)
    expected = tree(baked, ".env")
    assert len(expected) > 60
    assert tree(copied, ".env", ANSWERS_FILE) == expected
    assert {(project / ".env").stat().st_mode & 0o777 for project in (baked, copied)} == {0o600}
    saved = yaml.safe_load((copied / ANSWERS_FILE).read_text("utf-8"))
    assert {name for name in saved if not name.startswith("_")} == set(LONGEST)
    places = (tmp_path, template, Path(environment["HOME"]), Path(environment["TMPDIR"]))
    assert [path for place in places for path in place.rglob("pwned*")] == []


def test_same_questions() -> None:
    """Both tools ask the same questions in the same words and order; copier computes the rest without asking."""
    questions = {name: value for name, value in CONFIG.items() if not name.startswith("_")}
    asked = {name: question["help"] for name, question in questions.items() if question.get("when", True)}
    assert list(asked.items()) == list(SETTINGS["__prompts__"].items())
    computed = [name for name in SETTINGS if name.startswith("__") and name != "__prompts__"]
    assert [f"__{name}" for name in questions if name not in asked] == computed


def test_placeholders(template: Path) -> None:
    """Copier finds each placeholder, and nothing of its own in the files that cookiecutter only copies."""
    own = tuple(str(value) for value in CONFIG["_envops"].values())
    found, project = 0, template / PROJECT.name
    for path in filter(Path.is_file, project.rglob("*")):
        name = str(path.relative_to(project))
        text = path.read_bytes().decode("utf-8", "replace")
        places = (name, *map(str, Path(name).parents))
        if any(fnmatch(place, pattern) for place in places for pattern in SETTINGS["_copy_without_render"]):
            assert not any(delimiter in text for delimiter in own), name
        else:
            assert not re.search(r"{[{%#](?!cookiecutter\.)", text.replace("${{", "")), name
            found += text.count(own[0])
        assert path.suffix == ".bin" or "\r" not in text, f"copier would change the line ends of {name}"
    assert found > 40


LETTERS = "".join(filter(str.isalpha, map(chr, range(0xC0, 0x180)))).translate(dict.fromkeys(map(ord, "ÐðÞþĸŉĿŀŊŋſ")))
"""The letters of European languages, without a few rare ones that copier's filters do not know."""


@given(st.text(string.printable.replace("&", "") + LETTERS))
def test_slug(name: str) -> None:
    """A name in Latin letters leads to the same folder as with cookiecutter's filter."""
    assert RULES.slugify(name).strip() == (slugify(name, max_length=60) or "my-flask-app")


# The rules for answers.


@cache
def validator(name: str) -> Any:
    """The validator of a question, as copier renders it."""
    return JINJA.from_string(CONFIG[name]["validator"])


def complaint(answers: dict[str, str]) -> str | None:
    """Return what copier's validators say of answers, question by question."""
    said = (validator(name).render(answers).strip() for name in LONGEST)
    return next(filter(None, said), None)


@pytest.mark.parametrize(("prompt", "typed", "message"), REFUSED)
def test_refused(prompt: str, typed: str, message: str, tmp_path: Path, template: Path, copier: Warm) -> None:
    """A validator refuses what the hook refuses, with the same words, before anything is written."""
    typed_in = {prompt: typed}
    copied = copy(template, tmp_path / "copied", copier.environment, answers=typed_in, check=False, warm=copier)
    result = copied.result
    assert result.returncode == 1
    assert "Validation error for question" in result.stderr
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


WORDS = sorted(TAKEN | KEYWORDS | WINDOWS_RESERVED | {"test", "test_a", "app", "a.b", "a-b", "A", "a..b"})


@given(st.sampled_from(sorted(LONGEST)), st.one_of(st.text(max_size=9), st.sampled_from(WORDS), st.text(min_size=60)))
def test_same_rules(name: str, answer: str) -> None:
    """The validators say what the hook says, of any answer."""
    good = {"project_name": "A", "project_slug": "a", "package_name": "a", "description": "A", "author": "A"}
    answers = good | {name: answer}
    assert complaint(answers) == problem(answers)


def test_same_names() -> None:
    """The lists of names are the hook's, whatever Python runs this."""
    assert set(RULES.taken) == {name for name in TAKEN if not name.startswith("_")}
    assert set(RULES.keywords) == {name for name in KEYWORDS if not name.startswith("_")}
    assert set(RULES.dependencies) == DEPENDENCIES
    assert set(RULES.reserved) == WINDOWS_RESERVED


# The first key.


def test_key_in_no_other_file(tmp_path: Path, template: Path, environment: dict[str, str]) -> None:
    """The key is in `.env`, in no other file, in no output and in no commit."""
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    own = environment | {"HOME": str(home), "TMPDIR": str(temporary), "XDG_CONFIG_HOME": str(home)}
    project = copy(template, tmp_path / "copied", own)
    key = project.env_file()["SECRET_KEY"]
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "Copied")
    files = (path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".env")
    texts = [path.read_bytes() for path in files]
    texts += [project.run("git", "cat-file", "--batch-all-objects", "--batch").stdout.encode()]
    texts += [project.result.stdout.encode(), project.result.stderr.encode()]
    assert "with a new key in .env, which git ignores" in project.result.stdout
    assert len(texts) > 60
    assert [text for text in texts if key.split("_")[2].encode() in text] == []


@pytest.mark.parametrize("command", ["copy", "recopy"])
def test_key_is_kept(command: str, tmp_path: Path, template: Path, copier: Warm) -> None:
    """Another copy over a project leaves its `.env` as it is."""
    environment = copier.environment
    project = copy(template, tmp_path / "copied", environment, warm=copier)
    env = project.path / ".env"
    env.write_text(OWN)
    env.chmod(0o640)
    before = env.stat()
    places = {"copy": (str(template), str(project.path)), "recopy": (str(project.path),)}[command]
    again = (COPIER, command, "--trust", "--force", *places)
    result = run(*again, cwd=tmp_path, environment=environment, warm=copier)
    assert "with its .env unchanged" in result.stdout
    assert env.read_text() == OWN
    after = env.stat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)


def test_without_trust(tmp_path: Path, template: Path, environment: dict[str, str]) -> None:
    """Copier runs nothing and writes nothing unless the user trusts the template."""
    command = (COPIER, "copy", "--defaults", str(template), str(tmp_path / "copied"))
    result = run(*command, cwd=tmp_path, environment=environment, check=False)
    assert result.returncode == 4
    assert "--trust" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_tasks() -> None:
    """Every task runs in a new copy only: otherwise a later update deletes `.env`."""
    assert [task["when"] for task in CONFIG["_tasks"]] == [ONLY_COPY] * 2
    assert [Path(task["command"][1]).name for task in CONFIG["_tasks"]] == ["pre_gen_project.py", "post_gen_project.py"]
    assert all(isinstance(task["command"], list) for task in CONFIG["_tasks"]), "no shell"


def test_oldest_copier(tmp_path: Path, template: Path, environment: dict[str, str]) -> None:
    """The oldest copier that `copier.yml` lets in knows the condition, and the rules."""
    oldest = f"copier=={CONFIG['_min_copier_version']}"
    command = (UV, "tool", "run", "--quiet", "--from", oldest, "copier", "copy", "--trust", "--defaults", str(template))
    run(*command, "project", cwd=tmp_path, environment=environment)
    assert (tmp_path / "project" / ".env").stat().st_mode & 0o777 == 0o600
    wrong = run(*command, "--data=package_name=class", "wrong", cwd=tmp_path, environment=environment, check=False)
    assert "Validation error for question" in wrong.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["project"]
