"""Every command on every page is run by a test, which is named here. A page with another one fails."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from baking import PROJECT, TEMPLATE, Bake, run
from markdown_it import MarkdownIt
from secure.keys.key_format import generate_text

MARKDOWN = MarkdownIt("commonmark").enable("table")
PAGES = [*TEMPLATE.glob("*.md"), *TEMPLATE.glob("docs/*.md"), *TEMPLATE.glob("tools/*.md"), *PROJECT.rglob("*.md")]
LANGUAGES = ("sh", "console", "crontab")
PROGRAMS = re.compile(
    r"(?:\w+=\S* )*(?!uv run$)(?:\.|aws|bao|bash|cd|chmod|copier|cp|cruft|curl|docker|env|export|flask|fly|gcloud|git"
    r"|grep|gunicorn|heroku|kubectl|mkdir|mv|openssl|pip|pkcs11-tool|pre-commit|python3?|rm|scp|sudo|systemctl|uvx?) \S"
)
"""What a command in a sentence or in a table begins with."""

RUN_BY = {
    # every block of a page
    "CONTRIBUTING.md sh": "bake/test_contributing.py::test_command",
    "docs/adopting.md sh": "bake/test_adoption.py::test_whole_of_secure",
    "docs/updating.md sh": "bake/test_updates.py::test_fork",
    "{{cookiecutter.project_slug}}/README.md sh": "bake/test_readme.py::test_project",
    "{{cookiecutter.project_slug}}/docs/keys.md console": "serving/test_runbook.py::test_commands",
    # blocks of docs/deploy.md, by the comment above them
    "bao: first key": "deploy/test_recipes.py::test_secret_manager",
    "bao: rotation": "deploy/test_recipes.py::test_secret_manager",
    "compose: deploy": "deploy/test_container.py::test_compose",
    "compose: start": "deploy/test_container.py::test_compose",
    "cron": "deploy/test_recipes.py::test_cron",
    "gcloud: rotation": "deploy/test_variables.py::test_cloud_run",
    "kubernetes: install": "deploy/test_kubernetes.py::test_first_key",
    "kubernetes: revoke": "deploy/test_kubernetes.py::test_revocation",
    "pkcs11: once": "deploy/test_recipes.py::test_security_module",
    "pkcs11: open": "deploy/test_recipes.py::test_security_module",
    "pkcs11: seal": "deploy/test_recipes.py::test_security_module",
    "systemd: database": "deploy/test_systemd.py::test_database",
    "systemd: install": "deploy/test_systemd.py::test_first_start",
    "systemd: port": "deploy/test_systemd.py::test_another_port",
    "systemd: rotate sealed": "deploy/test_recipes.py::test_credential_that_systemd_seals",
    "systemd: seal": "deploy/test_recipes.py::test_credential_that_systemd_seals",
    # commands, by their beginning
    ". .venv/bin/activate": "bake/test_readme.py::test_project",
    "APP_ENV=production TRUSTED_HOSTS=example.org SECRET_KEY=$(": "bake/test_day_one.py::test_audit",
    "aws ecs update-service": "deploy/test_variables.py::test_by_hand",
    "bash .ci/run": "bake/test_contributing.py::test_release",
    "chmod 600 .env": "bake/test_adoption.py::test_existing_env",
    "copier update": "bake/test_updates.py::test_three_versions",
    "cruft update": "bake/test_updates.py::test_three_versions",
    "docker compose exec": "deploy/test_container.py::test_compose",
    "docker compose up": "deploy/test_container.py::test_compose",
    "docker inspect": "deploy/test_container.py::test_compose",
    "docker run -v ./keyring:/run/keyring": "deploy/test_container.py::test_mounted_file",
    "export APP_ENV=production SECRET_KEY_FILE=": "deploy/test_systemd.py::test_first_start",
    "flask db upgrade": "deploy/test_container.py::test_compose",
    "flask run": "bake/test_readme.py::test_project",
    "flask secret-key generate | gcloud secrets create": "deploy/test_variables.py::test_cloud_run",
    "flask secret-key generate | sed": "deploy/test_variables.py::test_variables",
    "fly ssh console": "deploy/test_variables.py::test_variables",
    "git add --all": "bake/test_updates.py::test_three_versions",
    'git commit --all --message "release: ': "bake/test_contributing.py::test_release",
    'git commit --message "Created"': "bake/test_updates.py::test_three_versions",
    "git push origin": "bake/test_contributing.py::test_release",
    "git status": "bake/test_updates.py::test_own_work",
    "git tag --sign": "bake/test_contributing.py::test_release",
    "heroku config:set": "deploy/test_variables.py::test_variables",
    "kubectl create job": "deploy/test_kubernetes.py::test_rotation_now",
    "kubectl create secret generic settings": "deploy/test_container.py::test_pod",
    "kubectl exec deploy/app": "deploy/test_container.py::test_pod",
    "pip install -e '.[": "bake/test_readme.py::test_project",
    "python3 -m pip install uv && python3 -m uv run pytest": "bake/test_contributing.py::test_release",
    "python3 -m pip install uv && python3 -m uv tool run": "bake/test_readme.py::test_clone",
    "python3 -m venv ~/.venv": "bake/test_readme.py::test_clone",
    "sudo -E .venv/bin/flask secret-key": "deploy/test_systemd.py::test_revocation",
    'sudo "$(command -v uv)" sync': "deploy/test_systemd.py::test_first_start",
    "sudo systemctl reload $NAME": "deploy/test_systemd.py::test_no_request_is_lost",
    "sudo systemctl restart $NAME": "deploy/test_systemd.py::test_database",
    "uv add ": "bake/test_building.py::test_alone",
    "uv lock": "bake/test_updates.py::test_three_versions",
    "uv run --group dev pytest": "bake/test_readme.py::test_project",
    "uv run --group dev ruff": "bake/test_building.py::test_checks",
    "uv run -m benchmarks": "bake/test_contributing.py::test_command",
    "uv run cookiecutter": "bake/test_contributing.py::test_command",
    "uv run flask add-user": "bake/test_building.py::test_sign_in",
    "uv run flask api-token": "bake/test_building.py::test_api",
    "uv run flask db ": "bake/test_building.py::test_sign_in",
    "uv run flask send-link": "bake/test_building.py::test_mail",
    "uv run flask worker": "bake/test_building.py::test_worker",
    "uv run pytest": "bake/test_contributing.py::test_command",
    "uv run python tools/mutation.py": "bake/test_contributing.py::test_command",
    "uv run tools/": "bake/test_contributing.py::test_command",
    "uv sync --extra": "bake/test_readme.py::test_project",
    "uv tool install pre-commit": "serving/test_runbook.py::test_clean_commit",
    "uvx cookiecutter": "bake/test_readme.py::test_uvx",
    "uvx copier": "bake/test_updates.py::test_three_versions",
    "uvx cruft": "bake/test_updates.py::test_three_versions",
}
"""The test that runs a command."""
SHORT = re.compile(r"(?:\S+=\S* )*(?:uv run )?(?:flask secret-key|flask secure-audit|gunicorn --check-config)\b")
"""The commands that `test_short` runs by their text, wherever they are; a longer name in `RUN_BY` goes first."""


class Command(NamedTuple):
    """A command, with the page and the language, or the comment, of its block."""

    text: str
    place: str


def commands(name: str, page: str) -> Iterator[Command]:
    """Return each command of a page that a reader can paste: a block with a comment counts as one."""
    comment = ""
    for token in MARKDOWN.parse(page):
        if token.type == "fence" and token.info in LANGUAGES:
            lines = [line for line in token.content.splitlines() if not re.fullmatch(r"\w+=\S*", line)]
            if token.info == "console":
                lines = [line[2:] for line in lines if line.startswith("$ ")]
            for line in lines[:1] if comment else lines:
                yield Command(line, comment or f"{name} {token.info}")
        named = re.fullmatch("<!-- (.*) -->", token.content.strip())
        comment = named[1] if named and token.type == "html_block" else ""
        for child in token.children or []:
            if child.type == "code_inline" and PROGRAMS.match(child.content):
                yield Command(child.content, name)


def key_of(command: Command, run_by: Mapping[str, str] = RUN_BY) -> str:
    """Return the key of the table that covers a command, or nothing."""
    beginnings = (key for key in run_by if command.text.startswith(key))
    return command.place if command.place in run_by else max(beginnings, key=len, default="")


EVERY = [
    command for page in PAGES for command in commands(page.relative_to(TEMPLATE).as_posix(), page.read_text("utf-8"))
]
TYPED = sorted({command.text for command in EVERY if not key_of(command) and SHORT.match(command.text)})


def test_every_command() -> None:
    """A test runs each command, and the table has no other."""
    assert len(PAGES) > 12
    assert [command for command in EVERY if not key_of(command) and command.text not in TYPED] == []
    assert {key_of(command) for command in EVERY} - {""} == set(RUN_BY)


def missing(run_by: Mapping[str, str]) -> list[str]:
    """Return the tests that do not exist."""
    named = [test.split("::") for test in run_by.values()]
    return [test for file, test in named if f"\ndef {test}(" not in (TEMPLATE / "tests" / file).read_text("utf-8")]


def test_named_tests() -> None:
    """Each test of the table exists."""
    assert missing(RUN_BY) == []
    assert missing({"new": "bake/test_every_command.py::test_nothing"}) == ["test_nothing"], "negative control"


def test_new_command() -> None:
    """A command that no test runs is found in a sentence, in a table and in a block."""
    blocks = "```sh\nfrob\n```\n\n<!-- new -->\n```sh\n(\n    a\n)\n```\n"
    found = list(commands("new.md", f"Run `git frob`.\n\n| a |\n|---|\n| `A=1 uv frob \\| cat` |\n\n{blocks}"))
    assert [command.text for command in found] == ["git frob", "A=1 uv frob | cat", "frob", "("]
    assert [key_of(command) for command in found] == [""] * 4


@pytest.fixture(scope="module")
def project(shared: Bake, tmp_path_factory: pytest.TempPathFactory) -> Bake:
    """A project under git, with a key and the environment of another one."""
    copy = shared.copied(tmp_path_factory.mktemp("short") / "app")
    path = f"{copy.path / '.venv' / 'bin'}:{copy.environment['PATH']}"
    return replace(copy, environment={**copy.environment, "PATH": path, "PYTHONPATH": str(copy.path)})


@pytest.mark.parametrize("command", TYPED)
def test_short(project: Bake, tmp_path: Path, command: str) -> None:
    """Each short command works as it is written, on a server with a key file."""
    keyring = tmp_path / "keyring"
    variables = {"APP_ENV": "production", "SECRET_KEY_FILE": str(keyring), "TRUSTED_HOSTS": "example.org"}
    environment = {**project.environment, **variables, "UV_NO_SYNC": "1"}
    if not command.endswith(" init"):
        keyring.write_text(generate_text(int(time.time()) - 60) + "\n")
        keyring.chmod(0o600)
    before = "flask secret-key rotate;" if command.endswith(" cancel") else ""
    typed = command.replace("SECRET_KEY_FILE=…", f"SECRET_KEY_FILE={keyring}")
    assert "…" not in typed
    run("bash", "-ec", f"{before} {typed}", cwd=project.path, environment=environment, input="y\n")
    assert keyring.exists()
