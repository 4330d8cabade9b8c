"""The project's folder: which one an app belongs to, and which one a command acts on."""

import os
import shlex
from contextlib import suppress
from pathlib import Path

import click

from .environment import Environment
from .files import is_absent
from .text import message

PACKAGE = Path(__file__).resolve().parents[__name__.count(".") - 1]
"""The folder of the top-level package that contains this code."""
CODE = f"*/{Path(__file__).resolve().relative_to(PACKAGE)}"
"""What identifies a project with this code."""


class ProjectError(Exception):
    """The command or app cannot tell which project it belongs to. The message names the folders."""


def project_root(package: Path = PACKAGE) -> Path:
    """Return the folder of the project in a checkout, else the working directory. Raises ProjectError."""
    return _checkout(package) or _working_directory()


def find_project(flask_app: str = "", package: Path = PACKAGE) -> Path:
    """Return the folder with the `.env` of the project in which a command is run.

    Two projects may share an environment, so `package`, the one that contains this code, need not belong to it.
    `flask_app` is the value of FLASK_APP or --app. Raises ProjectError.
    """
    checkout, folder = _checkout(package), _working_directory()
    found = _nearest(folder, "pyproject.toml")
    if found and found != checkout and not _has_code(found):
        raise _unclear(folder, f"it belongs to {found}, not to {checkout or package}", _cd(checkout))
    if checkout and not found:  # a command that is run outside any project
        from importlib.metadata import entry_points  # noqa: PLC0415 - slow, and rarely needed

        packages = {each.module.partition(".")[0] for each in entry_points(group="flask.commands", name="secret-key")}
        if len(packages) > 1:
            reason = f"several projects share this environment: {', '.join(sorted(packages))}"
            raise _unclear(folder, reason, "change to the folder of the project")
    elif not found and (above := _nearest(folder, ".env", "gunicorn.conf.py")) not in (None, folder):
        raise _unclear(folder, f"the app seems to run in {above}", _cd(above))
    found = found or checkout or folder  # the last for an installed app
    if flask_app and not _belongs(flask_app, found, package):
        reason = f"not in {found}, where the command is run"
        raise ProjectError(message(f"FLASK_APP={flask_app}", reason, "unset FLASK_APP, or change to its folder"))
    return found


def foreign_dotenv(environment: Environment) -> str:
    """Return a problem if Flask has copied the `.env` of another folder into this process, else "".

    The `flask` command searches the working directory and the folders above, and so does `app.run()` before its
    reloader starts the app again. Nothing tells such a copy from a real variable.
    """
    context = click.get_current_context(silent=True)
    script_info = context.find_root().obj if context else None
    process, own, found = environment.process, os.fspath(environment.dotenv_path), ""
    reloaded = process.get("WERKZEUG_RUN_MAIN") == "true" and not process.get("FLASK_SKIP_DOTENV")
    if getattr(script_info, "load_dotenv_defaults", reloaded):
        from dotenv import find_dotenv  # noqa: PLC0415 - Flask has imported it, if this is its command

        with suppress(OSError):  # the working directory is gone
            found = find_dotenv(usecwd=True)
    if not found or os.path.realpath(found) == os.path.realpath(own):
        return ""
    # Flask takes the first file that it finds: an empty one in the project keeps the other one away.
    create = is_absent(own) and Path.cwd().is_relative_to(environment.root)
    hint = f"touch {shlex.quote(own)}" if create else _cd(environment.root)
    return message(found, "Flask has read this .env of another folder", hint)


def _working_directory() -> Path:
    try:
        return Path.cwd().resolve()
    except OSError:
        hint = "change to the project's folder"
        raise ProjectError(message("working directory", "it no longer exists", hint)) from None


def _belongs(flask_app: str, project: Path, package: Path) -> bool:
    """Whether FLASK_APP, a path or the name of a module, is in `project`, or is `package` where that is installed."""
    name = flask_app.partition(":")[0]
    if os.sep in name:
        return Path(name).resolve().is_relative_to(project)
    module = name.partition(".")[0]
    installed = module == package.name and not _has_code(project)
    places = (place / each for place in (project, project / "src") for each in (module, f"{module}.py"))
    return installed or any(place.exists() for place in places)


def _checkout(package: Path) -> Path | None:
    """Return the folder above `package`, or above its `src`, if it has a pyproject.toml."""
    above = package.parents[1] if package.parent.name == "src" else package.parent
    return next((folder for folder in (package.parent, above) if (folder / "pyproject.toml").is_file()), None)


def _has_code(project: Path) -> bool:
    return any([*project.glob(CODE), *project.glob(f"src/{CODE}")])


def _nearest(folder: Path, *names: str) -> Path | None:
    found = (each for each in (folder, *folder.parents) if any(os.path.exists(each / name) for name in names))
    return next(found, None)


def _unclear(folder: Path, reason: str, hint: str) -> ProjectError:
    return ProjectError(message(f"working directory {folder}", reason, hint))


def _cd(folder: Path | None) -> str:
    return f"cd {shlex.quote(str(folder))}" if folder else "change to the folder in which the app runs"
