"""Run what the project tells its users to run: the runbook for keys, the git hook, the CI workflow."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from baking import UV, Bake

PAGE = "docs/keys.md"
LEAK = "notes.txt"
IN_VARIABLES = "## Keys in variables"

MASKS = {
    "KEY": r"fsk_\d{8}T\d{6}Z_(?:…|[0-9a-f]{64}_[0-9a-f]{8})",
    "TIME": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC|\b\d{10}\b",
    "DAY": r"\d{4}-\d\d-\d\d",
    " ": r" +",
}
FINGERPRINT = re.compile(r"\b[0-9a-f]{7,8}\b")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, bake_into: Callable[..., Bake]) -> Bake:
    """A project under git with its environment; each test leaves the work tree clean."""
    project = bake_into(tmp_path_factory.mktemp("runbook")).synced()
    commit(project, "The project")
    return project


def commit(project: Bake, message: str) -> None:
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", message)


def sessions(text: str) -> list[list[tuple[str, str]]]:
    """Return the console blocks of a text, each as pairs of a command and its output."""
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE) for block in blocks]


def rough(wait: re.Match[str]) -> str:
    """Return a length of time in days or in tens of minutes, without what the run itself took."""
    units = {"d": 144, "h": 6, "min": 1 / 10, "s": 1 / 600}
    tens = round(sum(int(count) * units[unit] for count, unit in re.findall(r"(\d+) (\w+)", wait[0])))
    return f"(in {tens // 144} d)" if tens > 144 else f"(in {tens}0 min)"


def masked(text: str) -> str:
    """Return the text without what differs in every run."""
    text = re.sub(r"\(in [^)]*\)", rough, text)
    for mask, pattern in MASKS.items():
        text = re.sub(pattern, mask, text)
    return "\n".join(line.rstrip() for line in text.splitlines())


def same(shown: str, printed: str, names: dict[str, str]) -> bool:
    """Whether the two differ in times and fingerprints only; `names` maps the page's fingerprints to real ones."""
    shown, printed = masked(shown), masked(printed)
    pairs = list(zip(FINGERPRINT.findall(shown), FINGERPRINT.findall(printed), strict=False))
    consistent = all(names.setdefault(name, real) == real for name, real in pairs)
    return consistent and FINGERPRINT.sub("NAME", shown) == FINGERPRINT.sub("NAME", printed)


def test_commands(project: Bake, tmp_path: Path) -> None:
    """Every command of the runbook prints what the page says."""
    key = project.env_file()["SECRET_KEY"]
    (project.path / LEAK).write_text(f"The server's key is {key}\n")
    commit(project, "Notes on the deployment")
    path = os.pathsep.join((str(project.path / ".venv" / "bin"), project.environment["PATH"]))
    names: dict[str, str] = {}
    page = (project.path / PAGE).read_text("utf-8")
    blocks = sessions(page)
    assert len(blocks) > 10
    of_variables = sessions(page.partition(f"\n{IN_VARIABLES}\n")[2].partition("\n## ")[0])
    for block in blocks:
        script = "".join(f"{{ {command}\n}} 2>&1; printf '\\0%d\\0' $?\n" for command, _ in block)
        if block in of_variables:
            script = f"export APP_ENV=production SECRET_KEY=$(flask secret-key generate)\n{script}"
        done = project.run("bash", "-c", script, HOME=str(tmp_path), PATH=path)
        assert done.stderr == ""
        said = done.stdout.replace(str(project.path), "/srv/app").replace(str(tmp_path), "/srv/home")
        answers = said.split("\0")[:-1]
        for (command, shown), printed, status in zip(block, answers[::2], answers[1::2], strict=True):
            assert same(shown, printed, names), f"{command}\nthe page says:\n{shown}\nit printed:\n{printed}"
            assert (status == "0") == ("Error: " not in shown), f"{command} ended with {status}"
    assert len(set(names.values())) == len(names), "the page has two names for one thing"
    assert not (project.path / LEAK).exists()


SERVE = """
from time import sleep
from {package}.app import create_app
client = create_app().test_client()
for _ in range(600):
    client.get("/healthz")
    sleep(0.1)
"""


def test_log_lines(project: Bake, tmp_path: Path) -> None:
    """A running app logs a revocation as the page says."""
    page = (project.path / PAGE).read_text("utf-8")
    shown = [re.escape(line) for line in re.findall(r"`((?:The keyring has changed|Secret key): .*)`", page)]
    changed, started = (re.compile(FINGERPRINT.sub("([0-9a-f]{8})", line)) for line in shown)
    keyring = tmp_path / "keyring"
    variables = {"APP_ENV": "production", "SECRET_KEY_FILE": str(keyring), "SECRET_KEY_INTERVAL": "1s"}
    settings = ("env", *(f"{name}={value}" for name, value in variables.items()))
    flask = (*settings, project.program("flask"), "secret-key")
    project.run(*flask, "init")
    with subprocess.Popen(
        (*settings, project.program("python"), "-c", SERVE.format(package=project.package.name)),
        cwd=project.path,
        env=dict(project.environment),
        stderr=subprocess.PIPE,
        text=True,
    ) as app:
        assert app.stderr is not None
        try:
            old = next(filter(None, map(started.search, app.stderr)), ["", "not logged"])[1]
            project.run(*flask, "revoke", "--yes")
            new = next(filter(None, map(changed.search, app.stderr)), ["", "not logged"])[1]
        finally:
            app.kill()
    assert old not in (status := project.run(*flask, "status").stdout)
    assert new in status


def test_complete(project: Bake) -> None:
    """The runbook names every command and every setting of the key."""
    page = (project.path / PAGE).read_text("utf-8")
    listed = project.flask("secret-key", "--help").stdout.partition("Commands:\n")[2]
    for name in re.findall(r"^  (\w+)", listed, re.MULTILINE):
        assert f"`{name}" in page or f"secret-key {name}" in page
    settings = set(re.findall(r"^#((?:SECRET_KEY|SESSION_READ)\w*)=", example(project), re.MULTILINE))
    assert settings == set(re.findall(r"^\| `((?:SECRET_KEY|SESSION_READ)\w*)`", page, re.MULTILINE))


def example(project: Bake) -> str:
    return (project.path / ".env.example").read_text("utf-8")


def cloned(project: Bake, folder: Path) -> Bake:
    """A fresh clone, without `.env` and without an environment."""
    clone = folder / "clone"
    project.run("git", "clone", "--quiet", str(project.path), str(clone))
    return Bake(clone, project.result, project.environment)


def test_workflow(project: Bake, tmp_path: Path) -> None:
    """The steps of the CI workflow pass on a fresh clone, on a machine with no more than uv and git."""
    clone = cloned(project, tmp_path)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uv").symlink_to(UV)
    workflow = (clone.path / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    check = workflow.partition("\n  check:\n")[2].partition("\n\n  ")[0]
    steps = re.findall(r"^ +- run: (\w.*)$", check, re.MULTILINE)
    assert len(steps) == check.count("run:") > 4
    for step in steps:
        if not step.startswith("sudo apt-get"):  # what it installs is on every machine that runs these tests
            clone.run("bash", "-e", "-c", step, CI="true", PATH=f"{tools}:/usr/bin:/bin")


@pytest.fixture(scope="module")
def with_hook(project: Bake, tmp_path_factory: pytest.TempPathFactory) -> Bake:
    """A clone with the git hook that the page describes; then there is no network."""
    tmp_path = tmp_path_factory.mktemp("hook")
    clone = cloned(project, tmp_path)
    section = (clone.path / PAGE).read_text("utf-8").partition("\n## A git hook\n")[2].partition("\n## ")[0]
    [config] = re.findall(r"^```yaml\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    typed = re.findall(r"^```sh\n(.*)\n```$", section, re.MULTILINE)
    (clone.path / ".pre-commit-config.yaml").write_text(config)
    commit(clone, "A git hook")
    bin_folder = tmp_path / "bin"
    environment = {
        **clone.environment,
        "PATH": os.pathsep.join((str(bin_folder), clone.environment["PATH"])),
        "UV_TOOL_DIR": str(tmp_path / "tools"),
        "UV_TOOL_BIN_DIR": str(bin_folder),
        "PRE_COMMIT_HOME": str(tmp_path / "pre-commit"),
    }
    hooked = Bake(clone.path, clone.result, environment).synced()
    hooked.run("bash", "-e", "-c", *typed)
    return Bake(clone.path, clone.result, {**environment, "UV_OFFLINE": "1"})


@pytest.fixture
def hooked(with_hook: Bake) -> Iterator[Bake]:
    """The same clone for each test, without what another test has left there."""
    head = with_hook.run("git", "rev-parse", "HEAD").stdout.strip()
    yield with_hook
    with_hook.run("git", "reset", "--quiet", "--hard", head)
    with_hook.run("git", "clean", "--quiet", "-fd")


def test_commit_with_key(hooked: Bake) -> None:
    """The git hook refuses a key, and shows the file but not the key."""
    hooked.flask("secret-key", "init")
    key = hooked.env_file()["SECRET_KEY"]
    head = hooked.run("git", "rev-parse", "HEAD").stdout
    for name, text in ((".env", None), ("settings.py", f'"""Settings."""\n\nKEY = "{key}"\n'), (LEAK, key)):
        if text:
            (hooked.path / name).write_text(text)
        hooked.run("git", "add", "--force", name)
        done = hooked.run("git", "commit", "--message", "A leak", check=False)
        assert done.returncode == 1
        assert re.search(rf"^{re.escape(name)}:", done.stderr, re.MULTILINE)
        assert key not in done.stdout + done.stderr
        hooked.run("git", "rm", "--cached", "--force", "--quiet", name)
    assert hooked.run("git", "rev-parse", "HEAD").stdout == head


def test_clean_commit(hooked: Bake) -> None:
    """The git hook accepts a clean commit and refuses bad code."""
    module = hooked.path / "settings.py"
    module.write_text("import os\n")
    hooked.run("git", "add", "settings.py")
    done = hooked.run("git", "commit", "--message", "Bad code", check=False)
    assert done.returncode == 1
    assert "unused" in done.stderr
    module.write_text('"""Settings."""\n')
    hooked.run("git", "add", "settings.py")
    hooked.run("git", "commit", "--message", "Good code")
    assert hooked.run("git", "status", "--porcelain").stdout == ""
