"""Keys, and `.env` files, among what git tracks."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secure.keys import key
from secure.keys.git import ScanError, scan, would_track
from secure.keys.key import Key, generate_key

pytestmark = [
    pytest.mark.skipif(not shutil.which("git"), reason="git is not installed"),
    pytest.mark.slow,
    pytest.mark.git,
]

KEY = generate_key(1_800_000_000)
OTHER = generate_key(1_700_000_000)
PACKAGE = str(Path(key.__file__).parents[2])
HINT = "\nhint: remove the key, then replace it on every machine: flask secret-key revoke"


def found(where: str, what: str = "", key: Key = KEY) -> str:
    """Return the message of a finding."""
    return f"{where}: {what}the secret key {key.fingerprint}{HINT}"


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """An empty repository."""
    repo = tmp_path / "repo"
    repo.mkdir()
    git(repo, "init", "--quiet")
    return repo


def tracked(repo: Path, name: str, content: str | bytes) -> Path:
    path = repo / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    git(repo, "--literal-pathspecs", "add", "--force", "--", name)
    return path


def test_no_findings(repo: Path) -> None:
    assert scan(repo) == []

    tracked(repo, "app.py", "print('hello')\n")
    assert scan(repo) == []


def test_key(repo: Path) -> None:
    tracked(repo, "conf/app.py", f"\n\nA = '{KEY.text}'; B = '{OTHER.text}'\nC = '{KEY.text}'\n")

    assert scan(repo) == [
        found("conf/app.py:3"),
        found("conf/app.py:3", key=OTHER),
        found("conf/app.py:4"),
    ]


def test_staged(repo: Path) -> None:
    path = tracked(repo, "staged", KEY.text)
    path.write_text("clean")

    assert scan(repo) == [found("staged:1")]
    path.unlink()
    assert scan(repo) == [found("staged:1")]


def test_not_staged(repo: Path) -> None:
    tracked(repo, "tracked", "clean").write_text(KEY.text)

    assert scan(repo) == [found("tracked:1")]


def test_not_tracked(repo: Path) -> None:
    tracked(repo, ".gitignore", ".env*\n")
    (repo / ".env").write_text(f"SECRET_KEY={KEY.text}")
    (repo / "notes").write_text(KEY.text)

    assert scan(repo) == []


@pytest.mark.parametrize("folder", [".", "deep/down", ".git"])
def test_any_folder(repo: Path, folder: str) -> None:
    tracked(repo, "key", KEY.text)
    tracked(repo, "deep/down/other", OTHER.text)
    if folder == ".git":
        with pytest.raises(ScanError, match="git cannot scan: this operation must be run in a work tree"):
            scan(repo / folder)
        return

    assert scan(repo / folder) == [
        found("deep/down/other:1", key=OTHER),
        found("key:1"),
    ]


@settings(max_examples=20)
@given(st.binary(), st.binary())
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, before: bytes, after: bytes) -> None:
    repo = tmp_path_factory.mktemp("repo")
    git(repo, "init", "--quiet")
    tracked(repo, "bytes", before + KEY.text.encode() + after)

    line = before.count(b"\n") + 1
    assert scan(repo) == [found(f"bytes:{line}")]


@pytest.mark.parametrize("attributes", ["* binary", "* -diff", "* diff=nothing", "key working-tree-encoding=UTF-16"])
def test_git_attributes(repo: Path, attributes: str) -> None:
    git(repo, "config", "diff.nothing.textconv", "true")
    tracked(repo, ".gitattributes", attributes)
    encoding = "utf-16" if "UTF-16" in attributes else "ascii"
    tracked(repo, "key", KEY.text.encode(encoding))

    assert scan(repo) == [found("key:1")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("color.ui", "always"),
        ("core.quotePath", "true"),
        ("grep.column", "true"),
        ("grep.fullName", "false"),
        ("grep.lineNumber", "false"),
        ("grep.patternType", "fixed"),
        ("grep.patternType", "perl"),
        ("submodule.recurse", "true"),
    ],
)
def test_git_settings(repo: Path, name: str, value: str) -> None:
    git(repo, "config", name, value)
    tracked(repo, "größe", KEY.text)

    assert scan(repo) == [found("größe:1")]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("with a space", "with a space"),
        ('it\'s "quoted"', 'it\'s "quoted"'),
        ("-n", "-n"),
        (":1:colons:2:", ":1:colons:2:"),
        ("größe", "größe"),
        ("new\nline:1: not a finding", "'new\\nline:1: not a finding'"),
        ("\x1b[2Jclear", "'\\x1b[2Jclear'"),
        ("with\ttwo\ttabs", "'with\\ttwo\\ttabs'"),
    ],
)
def test_any_file_name(repo: Path, name: str, shown: str) -> None:
    tracked(repo, name, KEY.text)

    assert scan(repo) == [found(f"{shown}:1")]


@pytest.mark.parametrize("name", ["with a space ", "new\nline\n", "XX"])
def test_any_repository_name(repo: Path, name: str) -> None:
    tracked(repo, "key", KEY.text)

    assert scan(repo.rename(repo.with_name(name))) == [found("key:1")]


def damage(text: str) -> str:
    return text[:-1] + ("0" if text[-1] != "0" else "1")


@pytest.mark.parametrize(
    "harmless",
    [
        damage(KEY.text),
        KEY.text[:-1],
        KEY.text[1:],
        KEY.text.upper(),
        "fsk_20261122T193000Z_" + "0" * 64 + "_00000000",
        KEY.text.split("_")[2],
    ],
    ids=["damaged", "cut", "no prefix", "upper case", "an example", "a hash"],
)
def test_not_a_key(repo: Path, harmless: str) -> None:
    tracked(repo, "docs", harmless)

    assert scan(repo) == []


def test_key_after_a_damaged_one(repo: Path) -> None:
    tracked(repo, "docs", f"{damage(KEY.text)}\n{KEY.text}\n")

    assert scan(repo) == [found("docs:2")]


@pytest.mark.parametrize(
    "name",
    [".env", ".env.production", "deep/.env", "it's/.env", ".ENV", ".Env.Local", ".envrc", ".env~", ".env.bak",
     ".env-old", ".env_prod", ".env.sample.local"],
)  # fmt: skip
def test_tracked_dotenv(repo: Path, name: str) -> None:
    """It is found with the command that removes it from git, and from the disk not."""
    tracked(repo, name, "APP_ENV=production\n")
    (repo / "deep").mkdir(exist_ok=True)
    (finding,) = scan(repo / "deep")
    start, _, command = finding.partition("\nhint: ")
    subprocess.run(shlex.split(command), check=True, capture_output=True)

    assert start == f"{name}: git tracks this file"
    assert scan(repo) == []
    assert (repo / name).exists()


def test_tracked_dotenv_with_an_odd_name(repo: Path) -> None:
    tracked(repo, "new\nline/.env", "APP_ENV=production\n")
    (finding,) = scan(repo)

    assert finding.startswith("'new\\nline/.env': git tracks this file\nhint: ")
    assert len(finding.splitlines()) == 2


@pytest.mark.parametrize(
    "name",
    [".env.example", ".env.sample", ".env.template", ".env.dist", ".env.defaults", ".ENV.EXAMPLE",
     ".env.production.example", ".env-sample", "x.env", ".env.d/readme", "deep/.env.example", ".environment",
     ".envelope", ".flaskenv", "env"],
)  # fmt: skip
def test_not_a_dotenv(repo: Path, name: str) -> None:
    tracked(repo, name, "APP_ENV=production\n")

    assert scan(repo) == []


@pytest.mark.parametrize(
    "text",
    [
        "x{}",
        "{}abc",
        "_{}_",
        "A{}Z",
        "0{}0",
        "%22{}%22",
        "fsk_{}",
        "SECRET_KEY={}&next=1",
        '{{"key":"{}"}}',
        "\0{}\0",
    ],
)
def test_glued(repo: Path, text: str) -> None:
    """No boundary is needed on either side of a key."""
    tracked(repo, "glued", text.format(KEY.text))

    assert scan(repo) == [found("glued:1")]


@pytest.mark.parametrize("name", ["{}", "backup-{}.txt", "folder-{}/readme", "x{}abc"])
def test_file_name(repo: Path, name: str) -> None:
    """A key in a file's name is found, and not shown."""
    tracked(repo, name.format(KEY.text), "text\n")

    assert scan(repo) == [found(name.format("<secret key>"), "its name has ")]


def test_link_target(repo: Path) -> None:
    """A staged target counts, and one on the disk."""
    link = repo / "link"
    link.symlink_to(f"/run/keys/{KEY.text}")
    git(repo, "add", "link")
    assert scan(repo) == [found("link", "it links to ")]

    link.unlink()
    link.symlink_to(f"/run/keys/{OTHER.text}")
    assert scan(repo) == [
        found("link", "it links to "),
        found("link", "it links to ", OTHER),
    ]
    git(repo, "add", "link")
    link.unlink()
    assert scan(repo) == [found("link", "it links to ", OTHER)]


@pytest.mark.parametrize("recurse", ["true", "false"])
def test_submodules(repo: Path, tmp_path: Path, recurse: str) -> None:
    """What a submodule tracks counts, at any depth; what it does not track does not."""
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    for other in (inner, outer):
        other.mkdir()
        git(other, "init", "--quiet")
    tracked(inner, "key", KEY.text)
    tracked(inner, ".env", "A=1")
    commit(inner)
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "in")
    commit(outer)
    add = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(outer), "out")
    git(repo, *add)
    git(repo, "config", "submodule.recurse", recurse)
    assert scan(repo) == []

    git(repo, "-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init", "--recursive")
    (repo / "out" / "in" / "notes").write_text(OTHER.text)
    dotenv, key = scan(repo)
    assert dotenv.startswith("out/in/.env: git tracks this file\nhint: ")
    assert key == found("out/in/key:1")


def commit(folder: Path) -> None:
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    git(folder, *author, "commit", "--quiet", "--message", "It")


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"GIT_DIR": ".git"},
        {"GIT_DIR": "{other}/.git", "GIT_WORK_TREE": "{other}"},
        {"GIT_INDEX_FILE": ".git/index"},
        {"GIT_DIR": "{repo}/.git", "GIT_INDEX_FILE": "{repo}/.git/next-index-1.lock"},
    ],
)
def test_variables_of_git(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """A hook's variables do not change which repository is scanned: the one around the folder."""
    tracked(repo, "deep/key", KEY.text)
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    tracked(other, "other", OTHER.text)
    monkeypatch.chdir(repo / "deep")
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(repo=repo, other=other))

    assert scan(Path.cwd()) == [found("deep/key:1")]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the hook is a shell script")
@pytest.mark.parametrize("arguments", [(), ("--all",), ("deep/key",)])
@pytest.mark.parametrize("worktree", [False, True])
def test_pre_commit_hook(repo: Path, tmp_path: Path, arguments: tuple[str, ...], worktree: bool) -> None:
    """A commit with a key is stopped, one without is made."""
    tracked(repo, "deep/key", "clean")
    commit(repo)
    code = f"import sys; sys.path.insert(0, {PACKAGE!r})"
    code += "; from pathlib import Path; from secure.keys.git import scan"
    script = shlex.join([sys.executable, "-c", f"{code}; sys.exit(len(scan(Path.cwd())))"])
    hook = repo / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nexec {script}\n")
    hook.chmod(0o700)
    here = repo
    if worktree:
        here = tmp_path / "tree"
        git(repo, "worktree", "add", "--quiet", str(here))
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org")

    for text, status in [("clean too", 0), (KEY.text, 1)]:
        (here / "deep" / "key").write_text(text)
        if not arguments:
            git(here, "add", "--all")
        command = ["git", "-C", str(here), *author, "commit", "-m", "It", *arguments]
        assert subprocess.run(command, check=False, capture_output=True).returncode == status


# Where git cannot be asked


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="git cannot scan: not a git repository"):
        scan(tmp_path)


@pytest.mark.parametrize("mode", [None, 0o600], ids=["missing", "not to be run"])
def test_git_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int | None) -> None:
    if mode is not None:
        (tmp_path / "git").touch(mode)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ScanError) as caught:
        scan(tmp_path)

    assert str(caught.value) == "cannot scan: git is missing or cannot be run\nhint: install git"


@pytest.mark.skipif(os.name != "posix", reason="the git of this test is a shell script")
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo >&2 'warning: one'; echo >&2 'fatal: two'; echo >&2 'hint: three'; exit 128", "two"),
        ("echo >&2 'one'; echo >&2 'two'; exit 1", "two"),
        ("exit 3", "unknown error"),
        ("printf >&2 'fatal: no \\377 text'; exit 128", "no \ufffd text"),
        ("kill -9 $$", "unknown error"),
    ],
)
def test_git_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str) -> None:
    stub = tmp_path / "git"
    stub.write_text(f"#!/bin/sh\n{script}\n")
    stub.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ScanError) as caught:
        scan(tmp_path)

    assert str(caught.value) == f"git cannot scan: {message}"


# Other scanners

PAGE = (Path(PACKAGE).parent / "docs" / "keys.md").read_text("utf-8")
CONFIGURATION = PAGE.partition("```toml\n")[2].partition("```")[0]
HITS = ["{}", "{}\n", "\n{}\n", "SECRET_KEY={}", "SECRET_KEY='{}' # comment", '{{"keys": ["{}"]}}', "x{}", "{}abc",
        "SECRET_KEY_FALLBACKS=a,{},b", "{}é", "\xff{}"]  # fmt: skip
MISSES = [
    "",
    "fsk_",
    KEY.text[1:],
    KEY.text[:-1],
    KEY.text.upper(),
    KEY.text.replace("Z_", "_"),
    KEY.text.replace("_", "-"),
    KEY.text.split("_")[2],
    "fsk_20261122T193000Z_<64 hex digits>_<8 hex digits>",
]


def expressions() -> tuple[str, str]:
    """Return the expression for gitleaks, and the one that GitHub makes of its three."""
    (rule,) = tomllib.loads(CONFIGURATION)["rules"]
    secret, before, after = (
        re.search(rf"^{name}: +(.*)$", PAGE, re.MULTILINE)[1]  # type: ignore[index]
        for name in ("Secret format", "Before secret", "After secret")
    )
    return rule["regex"], f"(?:{before})(?:{secret})(?:{after})"


def test_gitleaks_configuration() -> None:
    configuration = tomllib.loads(CONFIGURATION)
    (rule,) = configuration["rules"]

    assert configuration["extend"] == {"useDefault": True}
    assert set(configuration) == {"title", "extend", "rules"}
    assert set(rule) == {"id", "description", "regex", "keywords"}
    assert all(word in KEY.text for word in rule["keywords"])


def with_re(expression: str) -> Callable[[str], bool]:
    compiled = re.compile(expression.replace(r"\z", r"\Z"))
    return lambda text: bool(compiled.search(text))


def with_re2(expression: str) -> Callable[[str], bool]:
    """Go's syntax: gitleaks is written in Go."""
    compiled = pytest.importorskip("re2").compile(expression)
    return lambda text: bool(compiled.search(text))


def with_hyperscan(expression: str) -> Callable[[str], bool]:
    """The library of GitHub's secret scanning."""
    hyperscan = pytest.importorskip("hyperscan")
    database = hyperscan.Database()
    database.compile(expressions=[expression.encode()], flags=[hyperscan.HS_FLAG_SINGLEMATCH])

    def found_in(text: str) -> bool:
        hits: list[int] = []
        database.scan(text.encode(), match_event_handler=lambda number, *_: hits.append(number))
        return bool(hits)

    return found_in


@pytest.mark.parametrize(("which", "engine"), [(0, with_re), (0, with_re2), (1, with_re), (1, with_hyperscan)])
def test_expressions(which: int, engine: Callable[[str], Callable[[str], bool]]) -> None:
    is_found = engine(expressions()[which])

    assert [text for text in HITS if not is_found(text.format(KEY.text))] == []
    assert [text for text in MISSES if is_found(text)] == []


@pytest.mark.skipif(not shutil.which("gitleaks"), reason="gitleaks is not installed")
def test_gitleaks(repo: Path) -> None:
    """Its own rules miss a bare line of a key file; this configuration finds it."""
    tracked(repo, "keyring", f"{KEY.text}\n")
    commit(repo)
    path = repo.parent / "gitleaks.toml"
    path.write_text(CONFIGURATION)
    counts = []
    for configuration in ([], ["--config", str(path)]):
        report = repo.parent / "report.json"
        command = ["gitleaks", "git", "--report-path", str(report), *configuration, str(repo)]
        subprocess.run(command, check=False, capture_output=True)
        counts.append([finding["RuleID"] for finding in json.loads(report.read_text())])

    assert counts == [[], ["flask-secret-key"]]


def test_git_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What git says of a folder without a repository is no news."""
    assert not would_track(str(tmp_path / ".env"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, "core.fsmonitor"])
def test_no_program_of_a_repository(tmp_path: Path, key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that root runs beside another user's key file runs no program which that user has configured."""
    folder, ran, program = tmp_path / "theirs", tmp_path / "ran", tmp_path / "program"
    folder.mkdir()
    program.write_text(f"#!/bin/sh\nenv > {ran}\nexit 1\n")
    program.chmod(0o700)

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(folder), *arguments], check=False, capture_output=True)

    git("init")
    git("config", key or "core.sshCommand", str(program))
    if not key:  # a partial clone, which fetches what it lacks when git wants to read it
        git("config", "core.repositoryformatversion", "1")
        git("config", "extensions.partialClone", "origin")
        git("config", "remote.origin.url", "ssh://localhost/x")
        git("config", "remote.origin.promisor", "true")
        git("config", "protocol.ssh.allow", "always")
        git("update-index", "--add", "--info-only", "--cacheinfo", f"100644,{'1' * 40},.gitignore")
        git("update-index", "--skip-worktree", ".gitignore")
    else:
        git("update-index", "--add", "--cacheinfo", f"100644,{'1' * 40},a")
    ran.unlink(missing_ok=True)
    git("check-ignore", "--quiet", "keyring")
    assert ran.exists(), "a control: git alone runs it"
    ran.unlink()
    monkeypatch.setenv("SECRET_KEY", KEY.text)

    would_track(str(folder / "keyring"))

    assert not ran.exists()


@pytest.mark.slow
@pytest.mark.parametrize("call", [lambda folder: would_track(str(folder / "keyring")), scan])
def test_environment_of_git(call: Callable[[Path], object], repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flask may have copied the key of `.env` into the process; git does not need it."""
    seen, program = repo.parent / "seen", repo.parent / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nenv >> {seen}\nPATH="${{PATH#*:}}"\nexec git "$@"\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for name in ("SECRET_KEY", "SECRET_KEY_FALLBACKS"):
        monkeypatch.setenv(name, KEY.text)

    call(repo)

    assert "PATH=" in seen.read_text()
    assert KEY.text not in seen.read_text()
