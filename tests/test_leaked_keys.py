"""A key that stands in a public word list is refused, by a file that anyone can make again, byte for byte."""

import subprocess
import sys
from pathlib import Path

import flask_unsign_wordlist
import leaked_keys
import pytest
from conftest import TEMPLATE
from leaked_keys import SECRET_KEY, leaked_bin, public_keys
from secret_key.key import LEAKED_HASH_BYTES, KeyRefused, judge

LEAKED = (SECRET_KEY / "leaked.bin").read_bytes()


def accepted(text: str) -> bool:
    """Whether a project would start with this key."""
    try:
        judge(text, LEAKED)
    except KeyRefused:
        return False
    return True


def test_the_file_is_what_the_script_makes() -> None:
    assert leaked_bin() == LEAKED
    script = (sys.executable, "-B", str(TEMPLATE / "tools" / "leaked_keys.py"))
    assert subprocess.run((*script, "--check"), check=False).returncode == 0


def test_the_script_notices_a_file_that_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "leaked.bin").write_bytes(LEAKED[:-1])
    monkeypatch.setattr(leaked_keys, "SECRET_KEY", tmp_path)
    monkeypatch.setattr(sys, "argv", ["leaked_keys.py", "--check"])
    assert leaked_keys.main() == 1


def test_the_file_is_a_sorted_list_with_no_hash_twice() -> None:
    hashes = [LEAKED[at : at + LEAKED_HASH_BYTES] for at in range(0, len(LEAKED), LEAKED_HASH_BYTES)]
    assert len(hashes) > 1000
    assert hashes == sorted(set(hashes))


def test_no_entry_of_the_word_list_is_accepted_as_it_stands_or_as_it_is_meant() -> None:
    lines = Path(flask_unsign_wordlist.get("all")).read_text("utf-8").split("\n")
    entries = [line for line in lines if line]
    assert len(entries) == 55_982
    texts = {*entries, *public_keys()}
    assert [text for text in texts | {text.strip() for text in texts} if accepted(text)] == []


def test_a_key_that_is_in_no_list_is_accepted() -> None:
    assert accepted("6b1f0c9d2e8a4b7c5d3e9f8a7b6c5d4e3f2a1b0c")
