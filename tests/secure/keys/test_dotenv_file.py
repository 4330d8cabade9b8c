"""Read a `.env` file, and change its keys without touching any other line."""

import os
import threading
from io import StringIO
from pathlib import Path

import dotenv
import pytest
from hypothesis import given
from hypothesis import strategies as st
from secure.keys import files
from secure.keys.environment import edited_dotenv, read_dotenv

# Read


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_dollar(tmp_path: Path, quote: str) -> None:
    """It has no meaning in `.env`, as everywhere a key is pasted."""
    dollars = "$A${A}${HOME:-y}"

    assert read_dotenv(write(tmp_path, f"A=x\nB={quote}{dollars}{quote}\n"))["B"] == dollars


@pytest.mark.parametrize(
    "content",
    [
        b"A=1\nB=2\n",
        b"A=1\nB=2",
        b"\xef\xbb\xbfA=1\nB=2\n",
        b"A=1\r\nB=2\r\n",
        b"A=1\rB=2\r",
        b" A = 1 # comment\nexport B='2'\n",
        b'A=0\nA=1\nB="2"\n',
    ],
    ids=["plain", "no newline", "BOM", "CRLF", "CR", "spaces, comment, export", "duplicate, quotes"],
)
def test_read(tmp_path: Path, content: bytes) -> None:
    assert read_dotenv(write(tmp_path, content)) == {"A": "1", "B": "2"}


@pytest.mark.parametrize(
    ("content", "public"),
    [
        ("A=größe".encode("latin-1"), 0),
        ("A=1".encode("utf-16"), 0),
        (b"A=1\0", 0),
        (b"A=1", 0o022),
        (b"A=1", 0o002),
    ],
    ids=["Latin-1", "UTF-16", "NUL", "others can write", "the world can write"],
)
def test_refused(tmp_path: Path, content: bytes, public: int) -> None:
    path = write(tmp_path, content, 0o600 | public)
    with pytest.raises(files.FileError, match=r"^cannot read .*\.env: .*\nhint: (save the file as|chmod go-w)"):
        read_dotenv(path)


@pytest.mark.skipif(os.name != "posix", reason="named pipes are POSIX's")
def test_named_pipe(tmp_path: Path) -> None:
    """1Password makes `.env` one; python-dotenv reads it as well."""
    path = tmp_path / ".env"
    os.mkfifo(path, 0o600)
    for read in (read_dotenv, dotenv.dotenv_values):
        program = threading.Thread(target=path.write_text, args=("A=1\n",))
        program.start()
        assert read(str(path)) == {"A": "1"}
        program.join()


def write(folder: Path, content: str | bytes, mode: int = 0o600) -> str:
    path = folder / ".env"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return str(path)


# Change

OTHER_LINES = st.sampled_from(
    [
        "",
        "   ",
        "# a comment with SECRET_KEY=nothing",
        "  # an indented one",
        "APP_ENV=development",
        "export DEBUG=1",
        "MAIL_PASSWORD='it''s'",
        "EMPTY=",
        "NO_VALUE",
        "SPACES = around   # and a comment",
        "QUOTED='with # no comment, and \\' a quote' # and one",
        'LINES="one\ntwo\n"',
        "URL=https://${HOST}:80/#part",
        "MY_SECRET_KEY=other",
        "SECRET_KEY_OLD=other",
        "ümlaut=größe",
        "'a quoted name'=1",
    ]
)
"""Lines that are no assignment of SECRET_KEY, without their end."""

ENDS = st.sampled_from(["\n", "\r\n"])
BEFORE_NAME = st.sampled_from(["", "  ", "export ", "\texport  "])
OLD_VALUES = st.sampled_from(
    [
        "",
        "=",
        "= ",
        "=old",
        " = old",
        "=#old",
        "='old'",
        "= 'o # \\'ld'",
        '="old"',
        "='two\nlines # of it'",
        "=a'b\"c",
    ]
)
COMMENTS = st.sampled_from(["", " # comment", '\t# it\'s a "comment" = x'])
PRINTABLE = st.characters(exclude_categories=["Cc", "Cs"])
NEW_VALUES = (st.text(PRINTABLE) | st.text("a'\"\\#$ ")).map(str.strip)


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, str, str]:
    """A text that assigns SECRET_KEY once or more, and what stands before and behind its new value."""
    lines = st.lists(st.tuples(OTHER_LINES, ENDS).map("".join))
    text, start = "", ""
    for line in draw(lines):
        text, start = text + line, start + line
        if draw(st.booleans()):
            text += f"SECRET_KEY{draw(OLD_VALUES)}{draw(ENDS)}"
    name = f"{draw(BEFORE_NAME)}SECRET_KEY"
    finish = draw(COMMENTS) + draw(ENDS) + "".join(draw(lines))
    return text + name + draw(OLD_VALUES) + finish, f"{start}{name}=", finish


@given(edits(), NEW_VALUES)
def test_change(edit: tuple[str, str, str], new: str) -> None:
    """It keeps the variable's place and comment, and every other line."""
    text, start, finish = edit
    edited = edited_dotenv(text, {"SECRET_KEY": new})

    assert edited.startswith(start)
    assert edited.endswith(finish)
    assert values(f"A={edited[len(start) : len(edited) - len(finish)]}") == {"A": new}


@given(lines=st.lists(st.tuples(OTHER_LINES, ENDS)), new=NEW_VALUES.filter(bool))
def test_new_variable(lines: list[tuple[str, str]], new: str) -> None:
    text = "".join(map("".join, lines))
    edited = edited_dotenv(text, {"SECRET_KEY": new, "EMPTY_AND_NEW": ""})

    assert edited.startswith(f"{text}SECRET_KEY=")
    assert values(edited) == {**values(text), "SECRET_KEY": new}


@pytest.mark.parametrize(
    ("text", "edited"),
    [
        ("A=1", "A=1\nKEY=new\n"),
        ("KEY=old", "KEY=new"),
        ("KEY=old\n# the end", "KEY=new\n# the end"),
        ("", "KEY=new\n"),
        ("A=1\r\nB=2", "A=1\r\nB=2\r\nKEY=new\r\n"),
        ("A=1\r\n", "A=1\r\nKEY=new\r\n"),
        ("KEY=old\r\nA=1", "KEY=new\r\nA=1"),
        ("A=1\rKEY=old\r", "A=1\rKEY=new\r"),
        ("A=1\r", "A=1\rKEY=new\n"),
        ("A=1\nA=2\nKEY=old", "A=1\nA=2\nKEY=new"),
        ("KEY=older\n\nKEY=old\n", "\nKEY=new\n"),
    ],
)
def test_line_endings(text: str, edited: str) -> None:
    assert edited_dotenv(text, {"KEY": "new"}) == edited


@given(st.text(st.sampled_from("AB= \n\r'\"#\\$export")), NEW_VALUES)
def test_any_text(text: str, new: str) -> None:
    """It is changed so that it reads back, or not at all."""
    try:
        edited = edited_dotenv(text, {"A": new, "B": ""})
    except files.FileError:
        return
    kept = {name: value for name, value in values(text).items() if name not in ("A", "B")}
    assert values(edited) == kept | ({"A": new} if new or "A" in values(text) else {}) | (
        {"B": ""} if "B" in values(text) else {}
    )


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("OPEN='no end", {"KEY": "it's"}),
        ("OPEN='no end", {"KEY": "it's", "OTHER": "new"}),
        ("'WITH SPACE'=old", {"WITH SPACE": "new"}),
    ],
)
def test_text_that_cannot_be_changed(text: str, changes: dict[str, str]) -> None:
    with pytest.raises(files.FileError) as caught:
        edited_dotenv(text, changes)

    names = " and ".join(changes)
    assert str(caught.value) == (
        f"cannot edit .env: a change of {names} would change other lines\nhint: set {names} with an editor"
    )


@given(edits())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, edit: tuple[str, str, str]) -> None:
    """What is on the disk after a change differs in the changed assignment alone, byte for byte."""
    text, start, finish = edit
    path = write(tmp_path_factory.mktemp("round"), text)
    with files.locked(path):
        files.replace(path, edited_dotenv(files.read_text(path), {"SECRET_KEY": "new"}))
    assert Path(path).read_bytes() == f"{start}new{finish}".encode()


def values(text: str) -> dict[str, str]:
    read = dotenv.dotenv_values(stream=StringIO(text), interpolate=False)
    return {name: value or "" for name, value in read.items()}
