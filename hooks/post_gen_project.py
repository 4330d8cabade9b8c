"""Create the first key in `.env`, check that git ignores the file, and print the next steps.

The project's own code creates the key while this runs, so no template variable, replay file or rendered hook
ever holds it. It is never printed.
"""

import os
import re
import shlex
import subprocess
import sys
import time

# The first hook has refused a name with any other sign than letters, digits, dots, dashes and underscores.
SLUG, PACKAGE = "{{ cookiecutter.project_slug }}", "{{ cookiecutter.package_name }}"
GIT_PLACES = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR"}
GIT_PATHSPECS = {f"GIT_{kind}_PATHSPECS" for kind in ("LITERAL", "GLOB", "NOGLOB", "ICASE")}
WAIT = 10.0  # seconds for which a bake waits while another command changes the same `.env`


def create_env(package: str) -> bool:
    """Create `.env` with a new key, mode 0600; return False if there is one, which stays unchanged."""
    sys.dont_write_bytecode = True  # the new project gets no __pycache__ from this
    sys.path.insert(0, os.path.abspath(package))
    from secure.keys import files  # noqa: PLC0415 - it is there only now

    path = os.path.abspath(".env")
    if os.path.islink(path) and not os.path.exists(path):
        raise failure(".env: a link to a missing file", "remove the link, then run: flask secret-key init")
    if os.path.isdir(path):
        raise failure(".env: a folder", "remove it, then run: flask secret-key init")
    try:
        with files.locked(path, WAIT):
            return files.create(path, files.first_env(time.time()))
    except files.FileError as error:
        sys.exit(f"ERROR: {error}")


def failure(problem: str, hint: str) -> SystemExit:
    """Return what ends the hook with a message."""
    return SystemExit(f"ERROR: {problem}\nhint: {hint}")


def git(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run git on this folder, whatever repository and kind of pathspec the caller's environment asks for."""
    left_out = GIT_PLACES | GIT_PATHSPECS
    environment = {k: v for k, v in os.environ.items() if k not in left_out} | {"LC_ALL": "C"}
    command = ["git", *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)


def keep_env_out_of_git() -> bool:
    """Create a repository, unless this is in one; fail if git would not ignore `.env`. False if there is no git."""
    if not on_path("git"):
        show("git is not installed. Run 'git init' later; .gitignore keeps .env out of git.")
        return False
    if not is_in_work_tree():
        created = git("init", "--quiet")
        if created.returncode:
            raise failure(f"git init failed: {first_line(created.stderr)}", "git status")
    ignored = git("check-ignore", "--quiet", ".env")
    if ignored.returncode == 1:
        raise failure(
            ".env: git does not ignore this file, which holds the key",
            "add the line .env to .gitignore (and run git rm --cached .env if git tracks it), then bake again",
        )
    if ignored.returncode:
        raise failure(f"git cannot tell whether it ignores .env: {first_line(ignored.stderr)}", "git status")
    return True


def is_in_work_tree() -> bool:
    """Return whether a folder above is a work tree of git. The usual answer, no, needs no start of git."""
    folder = os.getcwd()
    while not os.path.lexists(os.path.join(folder, ".git")):
        above = os.path.dirname(folder)
        if above == folder:
            return False
        folder = above
    inside = git("rev-parse", "--is-inside-work-tree")
    if inside.returncode and "not a git repository" not in inside.stderr:
        raise failure(f"git cannot tell whether it ignores .env: {first_line(inside.stderr)}", "git status")
    return inside.stdout.strip() == "true"


def has_key() -> bool:
    """Return whether `.env` names a key or a key file; True for a named pipe, which may have no writer now."""
    if not os.path.isfile(".env"):
        return True
    with open(".env", encoding="utf-8", errors="replace") as file:
        return bool(re.search(r"^\s*(export\s+)?SECRET_KEY(_FILE)?\s*=\s*[^\s#]", file.read(), re.MULTILINE))


def on_path(program: str) -> bool:
    """Return whether a program is installed. Importing shutil for this would take half a percent of a bake."""
    name = f"{program}.exe" if os.name == "nt" else program
    paths = [os.path.join(folder, name) for folder in os.get_exec_path()]
    return any(os.path.isfile(path) and os.access(path, os.X_OK) for path in paths)


def first_line(text: str) -> str:
    """Return the first line of an error message, which may be empty."""
    return text.partition("\n")[0]


def show(text: str) -> None:
    """Print a text. Nobody may be there to read it (`| head`, `>&-`): a project that is complete stays."""
    try:
        # a folder's name that the terminal cannot show must not end the bake either
        print(text.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding), flush=True)
    except (AttributeError, OSError):
        sys.stdout = None  # the exit would try to write it again


def next_steps(slug: str, created: bool, has_git: bool) -> str:
    """Return what to type next."""
    folder = os.getcwd()
    if os.path.dirname(folder) == os.path.realpath(os.environ.get("PWD", "")):
        folder = os.path.basename(folder)
    activate = r".venv\Scripts\activate" if os.name == "nt" else ". .venv/bin/activate"
    if on_path("uv"):
        steps = ["uv run flask run --debug"]
    else:
        python = "py" if os.name == "nt" else "python3"
        steps = [f"{python} -m venv .venv", activate, "pip install -e .", "flask run --debug"]
    lines = "".join(f"    {step}\n" for step in [f"cd {shlex.quote(folder)}", *steps])
    key = f"a new key in .env{', which git ignores' * has_git}" if created else "its .env unchanged"
    if not created and not has_key():
        key += ", which has no key. Create one: flask secret-key init"
    return f"{slug} is ready, with {key}.\n\n{lines}\nThen open http://127.0.0.1:5000/. README.md has the next steps."


if __name__ == "__main__":
    slug, package = sys.argv[1:] or (SLUG, PACKAGE)  # copier gives them as arguments
    has_git = keep_env_out_of_git()
    show(next_steps(slug, create_env(package), has_git))
