"""What a team does in its first week keeps the project's own checks green: each step alone, and all together."""

import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from baking import UV, Bake
from readme import OF_PROJECT, blocks

CHECKS = next(block for block in blocks(OF_PROJECT) if any("pytest" in command for command in block))
"""The commands of the README's Test section."""
CHECKS.remove("uv run --group dev pytest")  # coverage runs it


def add(path: Path, text: str) -> None:
    """Add code to the end of a file."""
    path.write_text(path.read_text("utf-8") + textwrap.dedent(text), "utf-8")


def insert(path: Path, after: str, text: str) -> None:
    """Add lines after a line that begins with `after`."""
    content = path.read_text("utf-8")
    changed = re.sub(rf"^({after}.*\n)", rf"\g<1>{text}", content, count=1, flags=re.MULTILINE)
    assert changed != content, f"{path.name} has no line {after}"
    path.write_text(changed, "utf-8")


def front_page_replaced(project: Bake) -> None:
    """The views that came with the project go, and a page of the team's comes."""
    (project.package / "views.py").write_text(
        textwrap.dedent(
            '''\
            """Our pages."""

            from flask import Blueprint

            bp = Blueprint("ours", __name__)


            @bp.get("/")
            def index() -> str:
                """Show our page."""
                return "<h1>Ours</h1>"
            '''
        )
    )


def template_deleted(project: Bake) -> None:
    front_page_replaced(project)
    (project.package / "templates" / "home.html").unlink()


def required_setting(project: Bake) -> None:
    """One line in config.py and one in conftest.py."""
    add(project.package / "config.py", "\n    database_url: str = secure.setting(secret=True)\n")
    insert(project.path / "tests" / "conftest.py", '    "APP_ENV": "testing",', '    "DATABASE_URL": "sqlite://",\n')


def untested_view(project: Bake) -> None:
    add(
        project.package / "views.py",
        '''

        @bp.get("/reports/<int:year>")
        def report(year: int) -> str:
            """Show a report that no test asks for."""
            return f"Report of {year}" if year > 2000 else "No report"
        ''',
    )


def bare_view(project: Bake) -> None:
    """Three lines without types or a docstring."""
    add(
        project.package / "views.py",
        """

        @bp.get("/about")
        def about():
            return "About us"
        """,
    )


def cdn_in_csp(project: Bake) -> None:
    app = project.package / "app.py"
    text = app.read_text("utf-8")
    loaded = "settings or Settings.load())"
    assert loaded in text
    policy = 'settings or Settings.load(), csp={"script-src": ["https://cdn.example.org"]})'
    app.write_text(text.replace(loaded, policy), "utf-8")


def form_class(project: Bake) -> None:
    (project.package / "forms.py").write_text(
        textwrap.dedent(
            '''\
            """Our forms."""

            from flask_wtf import FlaskForm
            from wtforms import StringField
            from wtforms.validators import DataRequired


            class NameForm(FlaskForm):
                """Ask for a name."""

                name = StringField(validators=[DataRequired()])
            '''
        )
    )
    add(
        project.package / "views.py",
        '''

        @bp.route("/name", methods=["GET", "POST"])
        def name() -> str:
            """Greet a visitor by name."""
            from .forms import NameForm

            form = NameForm()
            return f"Hello {form.name.data}" if form.validate_on_submit() else str(form.hidden_tag())
        ''',
    )


def extension_that_warns(project: Bake) -> None:
    project.run(UV, "add", "--quiet", "flask-limiter")
    app = project.package / "app.py"
    imports = "from flask_limiter import Limiter\nfrom flask_limiter.util import get_remote_address\n"
    insert(app, "from flask import Flask", imports)
    limiter = '    Limiter(get_remote_address, app=app, default_limits=["1000 per minute"])\n'
    insert(app, "    app.register_blueprint", limiter)


def migration(project: Bake) -> None:
    """Flask-Migrate writes files in Alembic's own style."""
    project.run(UV, "add", "--quiet", "flask-sqlalchemy", "flask-migrate")
    (project.package / "models.py").write_text(
        textwrap.dedent(
            '''\
            """Our tables."""

            from flask_migrate import Migrate
            from flask_sqlalchemy import SQLAlchemy
            from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


            class Base(DeclarativeBase):
                """The base of all tables."""


            db = SQLAlchemy(model_class=Base)
            migrate = Migrate()


            class User(db.Model):  # type: ignore[name-defined]
                """Somebody who can sign in."""

                id: Mapped[int] = mapped_column(primary_key=True)
                name: Mapped[str]
            '''
        )
    )
    app = project.package / "app.py"
    insert(app, "from .config import Settings", "from .models import db, migrate\n")
    database = '    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"\n'
    insert(app, "    app.register_blueprint", f"{database}    db.init_app(app)\n    migrate.init_app(app, db)\n")
    for command in (["init"], ["migrate", "--message", "Users"]):
        project.run(UV, "run", "--quiet", "flask", "db", *command)


STEPS: list[Callable[[Bake], None]] = [
    front_page_replaced,
    template_deleted,
    required_setting,
    untested_view,
    bare_view,
    cdn_in_csp,
    form_class,
    extension_that_warns,
    migration,
]


class Team(NamedTuple):
    """A project that goes back to its first commit after each test."""

    project: Bake

    def failing(self) -> dict[str, str]:
        """The checks of the README that fail, with what they print."""
        self.project.run(UV, "run", "--quiet", "--group", "dev", "ruff", "format", "--quiet")
        done = {command: self.project.run("sh", "-c", command, check=False) for command in CHECKS}
        return {command: result.stdout + result.stderr for command, result in done.items() if result.returncode}


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory, bake_into: Callable[..., Bake]) -> Bake:
    project = bake_into(tmp_path_factory.mktemp("week")).synced()
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "Baked")
    return project


@pytest.fixture
def team(committed: Bake) -> Iterator[Team]:
    yield Team(committed)
    committed.run("git", "reset", "--quiet", "--hard")
    committed.run("git", "clean", "--quiet", "-fd")


def test_checks_are_real(team: Team) -> None:
    """The control: a syntax error, a wrong type and a broken policy make the checks fail."""
    add(team.project.package / "views.py", "\nx: int = 'text'\n")
    add(team.project.path / "tests" / "test_security.py", "\n\ndef test_wrong() -> None:\n    assert unknown\n")
    assert {command.split()[4] for command in team.failing()} >= {"coverage", "ruff", "mypy"}


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_step(team: Team, step: Callable[[Bake], None]) -> None:
    step(team.project)
    assert team.failing() == {}


def test_all_steps_together(team: Team) -> None:
    for step in STEPS[1:]:
        step(team.project)
    assert team.failing() == {}
