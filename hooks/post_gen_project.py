"""Make the first key in `.env`, see to it that git ignores it, and say what to do next.

The key is made while this runs, by the project's own code, so that no template variable, replay file
or rendered hook ever holds it. It is never printed.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time

ANSWERS = r'{{ cookiecutter | tojson }}'  # fmt: skip
GIT_PLACES = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR"}


def make_env(package: str) -> bool:
    """Make `.env` with a fresh key, mode 0600; False where there is one, which stays as it is."""
    sys.dont_write_bytecode = True  # the new project gets no __pycache__ from this
    sys.path.insert(0, os.path.abspath(package))
    from secret_key import store  # noqa: PLC0415 - it is there only now

    path = os.path.abspath(".env")
    if os.path.islink(path) and not os.path.exists(path):
        sys.exit(
            "ERROR: .env is a link to a file that is not there: remove it, then run: flask secret-key init"
        )
    try:
        with store.locked(path):
            return store.create(path, store.first_env(time.time()))
    except store.StoreError as error:
        sys.exit(f"ERROR: {error}")


def git(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run git on this folder, whatever repository the caller's environment points to."""
    environment = {k: v for k, v in os.environ.items() if k not in GIT_PLACES} | {"LC_ALL": "C"}
    command = ["git", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", env=environment, check=False
    )


def keep_env_out_of_git() -> None:
    """Make a repository, unless this is in one; stop where git would not ignore `.env`."""
    if not shutil.which("git"):
        print("git is not installed: run 'git init' once it is. .gitignore keeps .env out.")
        return
    inside = git("rev-parse", "--is-inside-work-tree")
    if inside.returncode and "not a git repository" not in inside.stderr:
        sys.exit(f"ERROR: git cannot tell whether it ignores .env: {first_line(inside.stderr)}")
    if inside.stdout.strip() != "true":
        made = git("init", "--quiet")
        if made.returncode:
            sys.exit(f"ERROR: git init failed: {first_line(made.stderr)}")
    ignored = git("check-ignore", "--quiet", ".env")
    if ignored.returncode == 1:
        sys.exit(
            "ERROR: git does not ignore .env, which holds the key: add a line .env to .gitignore"
            " (and run git rm --cached .env where git tracks it), then bake again"
        )
    if ignored.returncode:
        sys.exit(f"ERROR: git cannot tell whether it ignores .env: {first_line(ignored.stderr)}")


def first_line(text: str) -> str:
    """The first line of a complaint; there may be none."""
    return text.partition("\n")[0]


def next_steps(slug: str, made: bool) -> str:
    """What to type next."""
    folder = os.getcwd()
    if os.path.dirname(folder) == os.path.realpath(os.environ.get("PWD", "")):
        folder = slug
    activate = r".venv\Scripts\activate" if os.name == "nt" else ". .venv/bin/activate"
    if shutil.which("uv"):
        steps = ["uv run flask run --debug"]
    else:
        python = "py" if os.name == "nt" else "python3"
        steps = [f"{python} -m venv .venv", activate, "pip install -e .", "flask run --debug"]
    lines = "".join(f"    {step}\n" for step in [f"cd {shlex.quote(folder)}", *steps])
    kept = "its .env as it was: see flask secret-key status"
    key = "a fresh key in .env, which git ignores" if made else kept
    return f"{slug} is ready, with {key}.\n\n{lines}\nThen open http://127.0.0.1:5000/; README.md goes on."


if __name__ == "__main__":
    answers = json.loads(ANSWERS)
    keep_env_out_of_git()
    steps = next_steps(answers["project_slug"], make_env(answers["package_name"]))
    # a folder's name that the terminal cannot show must not end the bake
    print(steps.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding))
