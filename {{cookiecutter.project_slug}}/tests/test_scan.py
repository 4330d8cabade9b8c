"""Keys, and `.env` files, among what git tracks."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from package import ScanError, mint, scan

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")

KEY = mint(1_800_000_000)
OTHER = mint(1_700_000_000)


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


def test_a_repository_without_keys_has_no_findings(repo: Path) -> None:
    assert scan(repo) == []

    tracked(repo, "app.py", "print('hello')\n")
    assert scan(repo) == []


def test_a_key_is_found_by_file_and_line_and_named_by_its_fingerprint(repo: Path) -> None:
    tracked(repo, "conf/app.py", f"\n\nA = '{KEY.text}'; B = '{OTHER.text}'\nC = '{KEY.text}'\n")

    assert scan(repo) == [
        f"conf/app.py:3: the secret key {KEY.fingerprint}",
        f"conf/app.py:3: the secret key {OTHER.fingerprint}",
        f"conf/app.py:4: the secret key {KEY.fingerprint}",
    ]


def test_what_is_staged_counts_although_it_is_gone_from_the_folder(repo: Path) -> None:
    path = tracked(repo, "staged", KEY.text)
    path.write_text("clean")

    assert scan(repo) == [f"staged:1: the secret key {KEY.fingerprint}"]
    path.unlink()
    assert scan(repo) == [f"staged:1: the secret key {KEY.fingerprint}"]


def test_what_is_in_a_tracked_file_counts_before_it_is_staged(repo: Path) -> None:
    tracked(repo, "tracked", "clean").write_text(KEY.text)

    assert scan(repo) == [f"tracked:1: the secret key {KEY.fingerprint}"]


def test_what_git_does_not_track_does_not_count(repo: Path) -> None:
    tracked(repo, ".gitignore", ".env*\n")
    (repo / ".env").write_text(f"SECRET_KEY={KEY.text}")
    (repo / "notes").write_text(KEY.text)

    assert scan(repo) == []


@pytest.mark.parametrize("folder", [".", "deep/down", ".git"])
def test_the_whole_repository_is_scanned_from_any_folder(repo: Path, folder: str) -> None:
    tracked(repo, "key", KEY.text)
    tracked(repo, "deep/down/other", OTHER.text)
    if folder == ".git":
        with pytest.raises(ScanError, match="git says: fatal: this operation must be run in a work tree"):
            scan(repo / folder)
        return

    assert scan(repo / folder) == [
        f"deep/down/other:1: the secret key {OTHER.fingerprint}",
        f"key:1: the secret key {KEY.fingerprint}",
    ]


@settings(max_examples=20)
@given(st.binary(), st.binary())
def test_a_key_is_found_among_any_bytes(
    tmp_path_factory: pytest.TempPathFactory, before: bytes, after: bytes
) -> None:
    repo = tmp_path_factory.mktemp("repo")
    git(repo, "init", "--quiet")
    tracked(repo, "bytes", before + KEY.text.encode() + after)

    line = before.count(b"\n") + 1
    assert scan(repo) == [f"bytes:{line}: the secret key {KEY.fingerprint}"]


@pytest.mark.parametrize(
    "attributes", ["* binary", "* -diff", "* diff=nothing", "key working-tree-encoding=UTF-16"]
)
def test_no_attribute_hides_a_key(repo: Path, attributes: str) -> None:
    git(repo, "config", "diff.nothing.textconv", "true")
    tracked(repo, ".gitattributes", attributes)
    encoding = "utf-16" if "UTF-16" in attributes else "ascii"
    tracked(repo, "key", KEY.text.encode(encoding))

    assert scan(repo) == [f"key:1: the secret key {KEY.fingerprint}"]


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
def test_no_setting_of_git_hides_a_key(repo: Path, name: str, value: str) -> None:
    git(repo, "config", name, value)
    tracked(repo, "größe", KEY.text)

    assert scan(repo) == [f"größe:1: the secret key {KEY.fingerprint}"]


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
    ],
)
def test_any_file_name_is_shown_on_one_line(repo: Path, name: str, shown: str) -> None:
    tracked(repo, name, KEY.text)

    assert scan(repo) == [f"{shown}:1: the secret key {KEY.fingerprint}"]


@pytest.mark.parametrize("name", ["with a space ", "new\nline\n", "XX"])
def test_a_repository_may_have_any_name(repo: Path, name: str) -> None:
    tracked(repo, "key", KEY.text)

    assert scan(repo.rename(repo.with_name(name))) == [f"key:1: the secret key {KEY.fingerprint}"]


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
def test_what_is_no_key_gives_no_alarm(repo: Path, harmless: str) -> None:
    tracked(repo, "docs", harmless)

    assert scan(repo) == []


def test_what_is_no_key_hides_none_behind_it(repo: Path) -> None:
    tracked(repo, "docs", f"{damage(KEY.text)}\n{KEY.text}\n")

    assert scan(repo) == [f"docs:2: the secret key {KEY.fingerprint}"]


@pytest.mark.parametrize("name", [".env", ".env.production", "deep/.env", "it's/.env"])
def test_a_tracked_dotenv_is_found_with_the_command_that_mends_it(repo: Path, name: str) -> None:
    tracked(repo, name, "APP_ENV=production\n")
    (repo / "deep").mkdir(exist_ok=True)
    (finding,) = scan(repo / "deep")
    command = shlex.split(finding.partition("; run: ")[2])
    subprocess.run(command, check=True, cwd=repo / "deep", capture_output=True)

    assert scan(repo) == []
    assert (repo / name).exists()


def test_a_tracked_dotenv_in_a_folder_with_an_odd_name_is_shown_on_one_line(repo: Path) -> None:
    tracked(repo, "new\nline/.env", "APP_ENV=production\n")
    (finding,) = scan(repo)

    assert finding.startswith("'new\\nline/.env': git tracks this file")
    assert finding.isprintable()


@pytest.mark.parametrize("name", [".env.example", ".envrc", "x.env", ".env.d/readme", "deep/.env.example"])
def test_what_only_looks_like_a_dotenv_gives_no_alarm(repo: Path, name: str) -> None:
    tracked(repo, name, "APP_ENV=production\n")

    assert scan(repo) == []


# Where git cannot be asked


def test_a_folder_that_is_no_repository_is_told(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="git says: fatal: not a git repository"):
        scan(tmp_path)


@pytest.mark.parametrize("mode", [None, 0o600], ids=["missing", "not to be run"])
def test_git_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int | None) -> None:
    if mode is not None:
        (tmp_path / "git").touch(mode)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ScanError) as caught:
        scan(tmp_path)

    assert str(caught.value) == "git is not installed or cannot be run; it knows which files to scan"


@pytest.mark.skipif(os.name != "posix", reason="a script stands in for git")
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo >&2 'warning: one'; echo >&2 'fatal: two'; echo >&2 'hint: three'; exit 128", "fatal: two"),
        ("echo >&2 'one'; echo >&2 'two'; exit 1", "two"),
        ("exit 3", "nothing, but failed"),
        ("printf >&2 'fatal: no \\377 text'; exit 128", "fatal: no \ufffd text"),
        ("kill -9 $$", "nothing, but failed"),
    ],
)
def test_a_git_that_fails_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    stub = tmp_path / "git"
    stub.write_text(f"#!/bin/sh\n{script}\n")
    stub.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ScanError) as caught:
        scan(tmp_path)

    assert str(caught.value) == f"git says: {message}"
