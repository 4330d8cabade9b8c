"""Refuse answers that would bake a broken project, with a message and what to type instead.

An answer is data: it is read as JSON from a raw string (`tojson` leaves no quote in it) or, with copier, from the
first argument. It is never pasted into code. This file is valid Python before it is rendered: a test imports it and
calls `problem`. `copier.jinja` repeats the rules for copier, which runs a hook only after it has written files.
"""

import json
import keyword
import re
import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the interpreter is the tool's, not the project's
    TOOL = "copier" if sys.argv[1:] else "cookiecutter"
    sys.exit(
        "ERROR: {0} runs on Python {1}.{2}: this template needs 3.11 or newer\n"
        "hint: uv tool run --python 3.13 {0}".format(TOOL, *sys.version_info)
    )

ANSWERS = r'{{ cookiecutter | tojson }}'  # fmt: skip

LONGEST = {"project_name": 100, "project_slug": 60, "package_name": 64, "description": 400, "author": 200}
WINDOWS_RESERVED = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}
PROJECT_FOLDERS = {"tests", "docs", "deploy", "secure", "build", "dist", "htmlcov", "venv", "migrations", "instance"}
PROJECT_MODULES = {"conftest"}
DEPENDENCIES = {
    "flask", "werkzeug", "jinja2", "click", "itsdangerous", "blinker", "markupsafe", "dotenv", "gunicorn",
    "flask_wtf", "wtforms", "redis", "valkey", "cryptography", "cffi", "packaging", "pytest", "hypothesis",
    "mypy", "ruff", "coverage", "pip", "setuptools", "uv", "uv_build", "python_dotenv",
    "attr", "attrs", "pluggy", "iniconfig", "pygments", "sortedcontainers", "pathspec", "mypyc",
    "typing_extensions", "mypy_extensions", "colorama", "py", "librt", "ast_serialize",
    "python_json_logger", "pythonjsonlogger", "pycparser", "async_timeout",
    # of the recipes in docs/building.md
    "flask_sqlalchemy", "sqlalchemy", "flask_migrate", "alembic", "mako", "psycopg", "flask_login", "authlib",
    "requests", "flask_limiter", "limits", "flask_caching", "cachelib", "sentry_sdk", "prometheus_flask_exporter",
    "prometheus_client", "opentelemetry", "opentelemetry_sdk", "opentelemetry_instrumentation_flask",
    "opentelemetry_exporter_otlp_proto_http", "flask_debugtoolbar", "flask_admin", "flask_security",
}  # fmt: skip
OF_SOME_PYTHONS = {
    "aifc", "annotationlib", "asynchat", "asyncore", "audioop", "cgi", "cgitb", "chunk", "compression", "crypt",
    "distutils", "imghdr", "imp", "lib2to3", "mailcap", "msilib", "nis", "nntplib", "nturl2path", "ossaudiodev",
    "pipes", "profiling", "smtpd", "sndhdr", "spwd", "sre_compile", "sre_constants", "sre_parse", "sunau", "telnetlib",
    "uu", "xdrlib",
}  # fmt: skip
"""Standard modules that not every Python from 3.11 on has: the tool's own Python makes no difference."""
TAKEN = DEPENDENCIES | PROJECT_FOLDERS | PROJECT_MODULES | sys.stdlib_module_names | OF_SOME_PYTHONS
UNSEEN_LETTERS = "[\u00a0\u2000-\u200a\u200c\u200d\u202f\u205f\u3000]"
"""Spaces of other scripts, and what joins or parts letters: names of people and French sentences have them."""
KEYWORDS = {word.lower() for word in (*keyword.kwlist, *keyword.softkwlist)} | {"lazy", "type"}
"""Python's keywords in lowercase, with those of later versions."""


def problem(answers: dict[str, str]) -> str | None:
    """Return what is wrong with the answers and what to type instead, or None."""
    if answers.get("__markdown_name", "").startswith("{"):  # unrendered
        return "cookiecutter: this version is too old\nhint: uv tool run cookiecutter"
    answers = {name: str(answer) for name, answer in answers.items()}  # a replay file may have a number
    for name, longest in LONGEST.items():
        answer = answers[name]
        if not re.sub(UNSEEN_LETTERS, "", answer).strip():
            return f"{name}: empty\nhint: type something, for example {example(name)}"
        if len(answer) > longest:
            return f"{name}: {len(answer)} characters long\nhint: type at most {longest}"
        for sign in re.sub(UNSEEN_LETTERS, "", answer):
            if not sign.isprintable():
                return f"{name}: contains a line break or an invisible character\nhint: type it without {sign!r}"
        if answer != answer.strip():
            return f"{name}: begins or ends with a space\nhint: remove the space"
    return slug_problem(answers["project_slug"]) or package_problem(answers["package_name"])


def example(name: str) -> str:
    """Return a valid answer, to show."""
    return {
        "project_slug": "my-flask-app",
        "package_name": "my_flask_app",
        "description": "A Flask app.",
        "author": "Ann Example",
    }.get(name, "My Flask App")


def slug_problem(slug: str) -> str | None:
    """Return what is wrong with the name of a folder, distribution (PyPA) and container image (OCI), or None."""
    if not re.fullmatch(r"[A-Za-z0-9]+((\.|_{1,2}|-+)[A-Za-z0-9]+)*", slug):
        return (
            f"project_slug {slug!r}: not a valid folder name\n"
            "hint: use letters and digits, with a dot or a dash between words, like my-flask-app"
        )
    if slug.lower().partition(".")[0] in WINDOWS_RESERVED:
        return f"project_slug {slug!r}: reserved on Windows\nhint: type another name, for example my-{slug}"
    if re.sub(r"[-_.]+", "_", slug).lower() in DEPENDENCIES:
        return f"project_slug {slug!r}: the name of a library that the project uses\nhint: type another, like my-{slug}"
    return None


def package_problem(package: str) -> str | None:
    """Return what is wrong with the name of the Python package, or None."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", package):
        return (
            f"package_name {package!r}: not a valid module name\n"
            "hint: use lowercase letters, digits and underscores, beginning with a letter, like my_flask_app"
        )
    if package in KEYWORDS:
        return f"package_name {package!r}: a keyword of Python\nhint: type another name, for example my_{package}"
    if package in WINDOWS_RESERVED:
        return f"package_name {package!r}: reserved on Windows\nhint: type another name, for example my_{package}"
    if package in TAKEN or package == "test" or package.startswith("test_"):
        return (
            f"package_name {package!r}: would hide another module or folder of that name\n"
            f"hint: type another name, for example my_{package}"
        )
    return None


if __name__ == "__main__":
    message = problem(json.loads(sys.argv[1] if sys.argv[1:] else ANSWERS))
    if message:
        sys.exit(f"ERROR: {message}")
