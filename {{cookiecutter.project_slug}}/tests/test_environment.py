"""What the process environment and `.env` say, and how `.env` is changed."""

import os
from io import StringIO
from pathlib import Path

import dotenv
import pytest
from flask.cli import load_dotenv
from hypothesis import given
from hypothesis import strategies as st
from package import StoreError, edited_dotenv, project_root, read_dotenv, read_environment

# Where a variable comes from


@pytest.mark.parametrize(
    ("environ", "dotenv_text", "process", "file"),
    [
        ({}, None, {}, {}),
        ({"A": "1"}, None, {"A": "1"}, {}),
        ({}, "A=1", {}, {"A": "1"}),
        ({"A": "1"}, "A=2\nB=3", {"A": "1"}, {"A": "2", "B": "3"}),
        ({"A": "1"}, "A=1", {}, {"A": "1"}),
        ({"APP_ENV": "production", "A": "1"}, "A=2\nB=3", {"APP_ENV": "production", "A": "1"}, {}),
        ({"APP_ENV": " production\n"}, "A=1", {"APP_ENV": " production\n"}, {}),
        ({"APP_ENV": "production", "A": "1"}, "A=1", {"APP_ENV": "production"}, {}),
        ({"APP_ENV": "production"}, "APP_ENV=production\nA=1", {}, {"APP_ENV": "production", "A": "1"}),
        ({"APP_ENV": "production"}, "APP_ENV=development\nA=1", {"APP_ENV": "production"}, {}),
        ({"APP_ENV": "testing"}, "A=1", {"APP_ENV": "testing"}, {"A": "1"}),
    ],
    ids=[
        "nothing",
        "the process alone",
        ".env alone",
        "both",
        "repeated: .env",
        "production reads no .env",
        "white space around production",
        "production, and .env copied into the process",
        "production by .env itself",
        "production by the process, against .env",
        "testing",
    ],
)
def test_variables_are_parted_by_where_they_come_from(
    tmp_path: Path,
    environ: dict[str, str],
    dotenv_text: str | None,
    process: dict[str, str],
    file: dict[str, str],
) -> None:
    if dotenv_text is not None:
        (tmp_path / ".env").write_text(dotenv_text)
    environment = read_environment(environ, tmp_path)

    assert (environment.process, environment.file) == (process, file)


def test_the_process_wins_and_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=file\nB=file\nC=' '\n")
    environment = read_environment({"A": " process ", "B": ""}, tmp_path)

    assert environment.get("A") == "process"
    assert environment.get("B", "default") == "default"
    assert environment.get("C", "default") == "default"
    assert environment.get("D", "default") == "default"
    assert environment.get("D") == ""


def test_an_environment_shows_no_value(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=hidden-in-the-file\n")

    assert "hidden" not in repr(read_environment({"B": "hidden-in-the-process"}, tmp_path))


def test_reading_leaves_the_process_environment_alone(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\n")
    before = dict(os.environ)
    read_environment(os.environ, tmp_path)

    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("environ", "read"),
    [({}, {"A": "from .env"}), ({"APP_ENV": "production"}, {})],
    ids=["else", "production"],
)
def test_what_flask_copies_from_dotenv_counts_as_dotenv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], read: dict[str, str]
) -> None:
    monkeypatch.setattr(os, "environ", dict(environ))
    (tmp_path / ".env").write_text("A='from .env'\n")
    load_dotenv()
    environment = read_environment(os.environ, tmp_path)

    assert os.environ["A"] == "from .env"
    assert (environment.process, environment.file) == (environ, read)


def test_a_variable_that_repeats_dotenv_counts_as_dotenv_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    (root / ".env").write_text("A=1\n")
    monkeypatch.chdir(elsewhere)

    assert read_environment({"A": "1", "B": "1"}, root).process == {"B": "1"}


def test_a_dollar_that_flask_replaces_does_not_make_it_another_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"HOME": "/home/ann"})
    (tmp_path / ".env").write_text("SECRET_KEY='before${HOME}after'\n")
    load_dotenv()
    environment = read_environment(os.environ, tmp_path)

    assert os.environ["SECRET_KEY"] == "before/home/annafter"
    assert environment.process == {"HOME": "/home/ann"}
    assert environment.get("SECRET_KEY") == "before${HOME}after"


def test_what_was_copied_once_counts_as_dotenv_whatever_it_says_by_now(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nB=1\n")
    environ = {"A": "1", "B": "2", "C": "3"}
    first = read_environment(environ, tmp_path)
    (tmp_path / ".env").write_text("A=4\nB=1\n")
    second = read_environment(environ, tmp_path, first.copied)

    assert first.copied == second.copied == {"A"}
    assert second.process == {"B": "2", "C": "3"}
    assert second.get("A") == "4"


def test_what_flask_copies_from_another_dotenv_on_the_way_up_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"MINE": "1"})
    root = tmp_path / "there" / "deep"
    root.mkdir(parents=True)
    (tmp_path / ".env").write_text("SECRET_KEY=stray\nAPP_ENV=development\n")
    monkeypatch.chdir(root)
    load_dotenv()
    environment = read_environment(os.environ, root)

    assert os.environ["SECRET_KEY"] == "stray"
    assert (environment.process, environment.file) == ({"MINE": "1"}, {})


def test_a_stray_dotenv_that_cannot_be_read_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / ".env").write_bytes(b"\xff\xfe")
    monkeypatch.chdir(root)

    assert read_environment({"A": "1"}, root).process == {"A": "1"}


def test_a_dotenv_of_our_own_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe")
    with pytest.raises(StoreError, match="is not UTF-8 text"):
        read_environment({}, tmp_path)


def test_production_does_not_mind_a_stray_dotenv_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe")

    assert read_environment({"APP_ENV": "production"}, tmp_path).process == {"APP_ENV": "production"}


@pytest.mark.skipif(os.name != "posix", reason="the working directory cannot be removed")
def test_a_working_directory_that_is_gone_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert read_environment({"A": "1"}, tmp_path).process == {"A": "1"}


def test_the_project_is_above_the_package_in_a_checkout_and_here_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "package").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert project_root(checkout / "package") == tmp_path

    (checkout / "pyproject.toml").touch()
    assert project_root(checkout / "package") == checkout


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_dollar_has_no_meaning_in_a_dotenv(tmp_path: Path, quote: str) -> None:
    dollars = "$A${A}${HOME:-y}"
    (tmp_path / ".env").write_text(f"A=x\nB={quote}{dollars}{quote}\n")

    assert read_dotenv(str(tmp_path / ".env"))["B"] == dollars


# A change of `.env` keeps every other line, byte for byte

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
def test_a_changed_variable_keeps_its_place_and_its_comment_and_every_other_line_stays(
    edit: tuple[str, str, str], new: str
) -> None:
    text, start, finish = edit
    edited = edited_dotenv(text, {"SECRET_KEY": new})

    assert edited.startswith(start)
    assert edited.endswith(finish)
    assert values(f"A={edited[len(start) : len(edited) - len(finish)]}") == {"A": new}


@given(lines=st.lists(st.tuples(OTHER_LINES, ENDS)), new=NEW_VALUES.filter(bool))
def test_a_new_variable_goes_to_the_end(lines: list[tuple[str, str]], new: str) -> None:
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
    ],
)
def test_a_missing_newline_at_the_end_is_added_only_where_a_line_follows(text: str, edited: str) -> None:
    assert edited_dotenv(text, {"KEY": "new"}) == edited


@given(st.text(st.sampled_from("AB= \n\r'\"#\\$export")), NEW_VALUES)
def test_any_text_is_changed_as_meant_or_not_at_all(text: str, new: str) -> None:
    try:
        edited = edited_dotenv(text, {"A": new, "B": ""})
    except StoreError:
        return
    kept = {name: value for name, value in values(text).items() if name not in ("A", "B")}
    assert values(edited) == kept | ({"A": new} if new or "A" in values(text) else {}) | (
        {"B": ""} if "B" in values(text) else {}
    )


@pytest.mark.parametrize(
    ("text", "changes"), [("OPEN='no end", {"KEY": "it's"}), ("'WITH SPACE'=old", {"WITH SPACE": "new"})]
)
def test_a_text_that_cannot_be_changed_as_meant_is_refused(text: str, changes: dict[str, str]) -> None:
    with pytest.raises(StoreError) as caught:
        edited_dotenv(text, changes)

    assert str(caught.value) == "`.env` has lines that cannot be kept as they are: change it by hand"


def values(text: str) -> dict[str, str]:
    read = dotenv.dotenv_values(stream=StringIO(text), interpolate=False)
    return {name: value or "" for name, value in read.items()}
