"""A key from a public word list is refused, by a file that anyone can make again."""

import subprocess
import sys
from pathlib import Path

import flask_unsign_wordlist
import pytest
from secure.keys.files import leaked_hashes
from secure.keys.key import LEAKED_HASH_BYTES, InvalidKeyError, validate_key

TOOLS = Path(__file__).resolve().parents[3] / "tools"
sys.path.insert(0, str(TOOLS))

import leaked_keys  # noqa: E402
from leaked_keys import leaked_bin, public_keys  # noqa: E402

LEAKED = leaked_hashes()


def accepted(text: str) -> bool:
    """Whether a project would start with this key."""
    try:
        validate_key(text, LEAKED)
    except InvalidKeyError:
        return False
    return True


@pytest.mark.slow
def test_reproducible() -> None:
    """The script makes the file that is there, byte for byte."""
    assert leaked_bin() == LEAKED
    script = (sys.executable, "-B", str(TOOLS / "leaked_keys.py"))
    assert subprocess.run((*script, "--check"), check=False).returncode == 0


@pytest.mark.slow
def test_check_fails_on_another_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "leaked.bin"
    other.write_bytes(LEAKED[:-1])
    monkeypatch.setattr(leaked_keys, "LEAKED_BIN", other)
    monkeypatch.setattr(sys, "argv", ["leaked_keys.py", "--check"])
    assert leaked_keys.main() == 1


def test_sorted_without_duplicates() -> None:
    hashes = [LEAKED[at : at + LEAKED_HASH_BYTES] for at in range(0, len(LEAKED), LEAKED_HASH_BYTES)]
    assert len(hashes) > 1000
    assert hashes == sorted(set(hashes))


@pytest.mark.slow
def test_no_leaked_key_is_accepted() -> None:
    """Neither a line of the word list, nor the Python literal on it, nor either without white space around it."""
    lines = Path(flask_unsign_wordlist.get("all")).read_text("utf-8").split("\n")
    entries = [line for line in lines if line]
    assert len(entries) == 55_982
    texts = {*entries, *public_keys()}
    assert [text for text in texts | {text.strip() for text in texts} if accepted(text)] == []


def test_other_key_is_accepted() -> None:
    assert accepted("91d0c6b8f37e4a0256c9d81ef0b47a3c6d2258ef")
