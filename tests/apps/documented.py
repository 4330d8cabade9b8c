"""Run the Python of docs/sessions.md in a project: documented.py PAGE PACKAGE."""

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import select
from sqlalchemy.orm import Mapped, mapped_column

page, package_name = sys.argv[1:]
in_a_view, model, in_create_app, new_version, tokens = re.findall(
    r"^```python\n(.*?)^```$", Path(page).read_text("utf-8"), re.MULTILINE | re.DOTALL
)
db = SQLAlchemy()


class Base(db.Model):  # type: ignore[name-defined, misc]
    """What the page's users have: an ID."""

    __abstract__ = True
    id: Mapped[int] = mapped_column(primary_key=True)


names: dict[str, Any] = {
    "__package__": package_name,  # the page's relative imports
    "__name__": f"{package_name}.documented",
    **{"db": db, "Base": Base, "Mapped": Mapped, "mapped_column": mapped_column, "select": select},
}


def run(code: str, names: dict[str, Any]) -> None:
    """Run a part of the page."""
    exec(code, names)  # noqa: S102


def create_app() -> Flask:
    """Return the project's own app, created with the line of the page instead of its own."""
    own = "secure.init_app(app, settings or Settings.load())\n"
    module = import_module(f"{package_name}.app")
    source = inspect.getsource(module.create_app)
    assert source.count(own) == 1
    inside = {**vars(module), "session_version": names["session_version"]}
    run(source.replace(own, in_create_app), inside)
    app: Flask = inside["create_app"]()
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db.init_app(app)
    return app


run(model, names)
with create_app().test_request_context():
    db.create_all()
    names["user"] = user = names["User"]()
    db.session.add(user)
    db.session.commit()

    run(in_a_view, names)
    assert names["sessions"].user() is None, "signed out"

    before = user.session_version
    run(new_version, names)
    assert user.session_version == before + 1
    assert names["sessions"].user() == user.id

    run(tokens, names)
    assert (names["user_id"], names["version"]) == (user.id, user.session_version)
print("ran")
