"""Files that hold keys: read with suspicion, written whole or not at all."""

import errno
import os
import shlex
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from io import StringIO
from pathlib import Path

import dotenv
import pytest
from hypothesis import given
from hypothesis import strategies as st
from package import judge, mint, store

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes, owners and locks are POSIX's")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")

TEXT = "SECRET_KEY=größer\r\n# a comment\n"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


# Made once, never over anything


@pytest.mark.parametrize("value", [0o000, 0o022, 0o077, 0o777])
def test_a_new_file_is_its_owners_alone_under_any_umask(tmp_path: Path, value: int) -> None:
    path = tmp_path / ".env"
    with umask(value), store.locked(str(path)):
        assert store.create(str(path), TEXT)

    assert mode(path) == 0o600
    assert path.read_bytes() == TEXT.encode()
    assert names(tmp_path) == {".env"}


def test_a_new_file_is_private_before_a_byte_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes, chmod = [], os.fchmod

    def looking_chmod(descriptor: int, mode: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        chmod(descriptor, mode)

    monkeypatch.setattr(os, "fchmod", looking_chmod)
    path = str(tmp_path / ".env")
    with umask(0), store.locked(path):
        store.create(path, TEXT)

    assert modes == [0o600]


def make_file(path: Path) -> None:
    path.write_text("mine")


def make_link(path: Path) -> None:
    path.with_name("elsewhere").write_text("mine")
    path.symlink_to("elsewhere")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [make_file, make_link, make_dangling_link, Path.mkdir, os.mkfifo])
@pytest.mark.parametrize("hard_links", [True, False])
def test_a_name_that_is_taken_is_never_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], hard_links: bool
) -> None:
    path = tmp_path / ".env"
    make(path)
    before = names(tmp_path), path.lstat()
    if not hard_links:
        monkeypatch.setattr(os, "link", no_hard_links)

    with store.locked(str(path)):
        assert not store.create(str(path), TEXT)

    assert (names(tmp_path), path.lstat()) == before


def no_hard_links(_: str, __: str) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_hard_links)
    path = tmp_path / ".env"
    with store.locked(str(path)):
        assert store.create(str(path), TEXT)

    assert path.read_bytes() == TEXT.encode()
    assert names(tmp_path) == {".env"}


def test_a_first_env_has_a_key_that_signs_now_and_the_development_environment() -> None:
    text = store.first_env(1_800_000_000.9)
    values = dotenv.dotenv_values(stream=StringIO(text))

    assert text.startswith("# This machine's settings. Git ignores this file")
    assert "\n# .env.example explains every variable, docs/secret-key.md the life of the key.\n" in text
    assert set(values) == {"APP_ENV", "SECRET_KEY"}
    assert values["APP_ENV"] == "development"
    assert judge(values["SECRET_KEY"] or "", store.leaked_hashes()).signs_from == 1_800_000_000


# Replaced whole, with nothing else changed


def replace(path: Path) -> None:
    with store.locked(str(path)):
        store.replace(str(path), TEXT)


@pytest.mark.parametrize("before", [0o400, 0o600, 0o640, 0o644])
def test_a_replaced_file_keeps_its_mode(tmp_path: Path, before: int) -> None:
    path = tmp_path / ".env"
    make_file(path)
    path.chmod(before)
    with umask(0o077):
        replace(path)

    assert path.read_bytes() == TEXT.encode()
    assert mode(path) == before
    assert names(tmp_path) == {".env"}


@as_root
def test_a_replaced_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    make_file(path)
    os.chown(path, 12345, 23456)
    replace(path)

    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


@pytest.mark.parametrize("make", [make_link, make_dangling_link, Path.mkdir, os.mkfifo])
def test_only_a_regular_file_is_replaced(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / ".env"
    make(path)
    before = names(tmp_path), path.lstat()
    with pytest.raises(store.StoreError, match="not a regular file; it is as it was"):
        replace(path)

    assert (names(tmp_path), path.lstat()) == before


def test_a_file_that_is_gone_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    with pytest.raises(store.StoreError, match="no such file"):
        replace(path)

    assert names(tmp_path) == set()


@contextmanager
def no_space_left() -> Iterator[None]:
    """No file can grow beyond a byte."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    make_file(path)
    with pytest.raises(store.StoreError, match="file too large; it is as it was"), no_space_left():
        replace(path)

    assert path.read_text() == "mine"
    assert names(tmp_path) == {".env"}


def test_a_folder_that_cannot_be_flushed_is_told_of_with_the_change_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync

    def flush_files_alone(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", flush_files_alone)
    path = tmp_path / ".env"
    make_file(path)
    with pytest.raises(store.StoreError, match="its folder cannot be flushed: input/output error"):
        replace(path)

    assert path.read_bytes() == TEXT.encode()


# One change at a time

HOLD = f"""
import sys
from {store.__name__} import locked
with locked(sys.argv[1]):
    open(sys.argv[1] + ".fsk-tmp", "w").write("half a key")
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holding(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the lock, half way through a change, until it is killed or its input ends."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


def test_a_second_process_is_refused_while_the_first_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    with another_process_holding(path):
        with pytest.raises(store.StoreError, match="is locked by another command: try again"):
            store.locked(str(path)).__enter__()

        assert (tmp_path / ".env.fsk-tmp").read_text() == "half a key"


def test_what_a_killed_process_leaves_is_cleared_away_by_the_next_change(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    with another_process_holding(path) as holder:
        holder.kill()
        holder.wait()

        assert names(tmp_path) == {".env.fsk-tmp"}
        with store.locked(str(path)):
            assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "no space left on device"),
        (OSError(), "unknown error"),
    ],
)
def test_the_lock_is_free_after_an_error(tmp_path: Path, error: OSError, reason: str) -> None:
    path = str(tmp_path / ".env")
    with pytest.raises(store.StoreError) as caught, store.locked(path):
        raise error
    assert str(caught.value) == f"{path} cannot be changed: {reason}; it is as it was"

    with store.locked(path):
        pass


def test_a_folder_that_is_not_there_has_no_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "missing" / ".env")
    with pytest.raises(store.StoreError) as caught:
        store.locked(path).__enter__()
    _, _, command = str(caught.value).partition(f"{path}: its folder is not there; run: ")
    subprocess.run(shlex.split(command), check=True)
    with store.locked(path):
        assert mode(tmp_path / "missing") == 0o700


def test_a_pipe_in_the_place_of_a_folder_does_not_hang_a_command(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(store.StoreError, match="cannot be changed: not a directory"):
        store.locked(str(tmp_path / "pipe" / ".env")).__enter__()


def test_a_file_in_the_working_directory_needs_no_folder(tmp_path: Path) -> None:
    with pytest.raises(store.StoreError, match="env cannot be changed: "), store.locked(".env"):
        raise OSError(errno.EIO, "input/output error")
    with store.locked(".env"):
        assert store.create(".env", TEXT)
        store.replace(".env", "")

    assert (tmp_path / ".env").read_text() == ""


# Read with suspicion

ONE, TWO = mint(1_800_000_000).text, mint(1_700_000_000).text


@pytest.mark.parametrize(
    "content",
    [
        f"{ONE}\n{TWO}\n",
        f"{ONE}\n{TWO}",
        f"{ONE}\r\n{TWO}\r\n",
        f"\ufeff{ONE}\n{TWO}\n",
    ],
    ids=["plain", "no newline at the end", "CRLF", "byte order mark"],
)
def test_a_key_file_has_one_key_a_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ring"
    path.write_bytes(content.encode())
    path.chmod(0o600)

    assert store.read_key_file(str(path)) == [ONE, TWO]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (f"{ONE}\n\n{TWO}\n", [ONE, "", TWO]),
        (f"{ONE}\n\n", [ONE, ""]),
        (f"\n{ONE}\n", ["", ONE]),
        (f" {ONE}\n{TWO}\t\n", [f" {ONE}", f"{TWO}\t"]),
        (f"{ONE}\u2028{TWO}\n", [f"{ONE}\u2028{TWO}"]),
    ],
    ids=["a blank line", "a blank line at the end", "a blank line first", "white space", "no newline"],
)
def test_what_is_odd_in_a_key_file_is_kept_for_the_judge(
    tmp_path: Path, content: str, lines: list[str]
) -> None:
    path = tmp_path / "ring"
    path.write_bytes(content.encode())
    path.chmod(0o600)

    assert store.read_key_file(str(path)) == lines


@given(starts=st.lists(st.integers(0, 2**32), min_size=1))
def test_a_key_file_reads_back(tmp_path_factory: pytest.TempPathFactory, starts: list[int]) -> None:
    keys = [mint(start).text for start in starts]
    path = tmp_path_factory.getbasetemp() / "read-back"
    path.write_text(store.key_file_text(keys))
    path.chmod(0o600)

    assert store.read_key_file(str(path)) == keys


def make_socket(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        os.chdir(path.parent)  # a socket's whole path may be too long
        listener.bind(path.name)


def make_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate((1 << 20) + 1)


def make_utf16(path: Path) -> None:
    path.write_text(f"SECRET_KEY={ONE}", "utf-16")


def make_unreadable(path: Path) -> None:
    path.write_text(ONE)
    path.chmod(0)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_dangling_link, "cannot be read: no such file or directory"),
        (Path.mkdir, "cannot be read: is a directory"),
        (os.mkfifo, "cannot be read: not a regular file"),
        (make_socket, "cannot be read: no such device or address"),
        (make_large, "cannot be read: larger than 1048576 bytes"),
        (make_utf16, "is not UTF-8 text: save it as UTF-8"),
        pytest.param(make_unreadable, "cannot be read: permission denied", marks=not_as_root),
    ],
)
def test_what_is_no_text_file_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "ring"
    make(path)
    for read in (store.read_text, store.read_key_file):
        with pytest.raises(store.StoreError) as caught:
            read(str(path))

        assert str(caught.value) == f"{path} {reason}"
        assert caught.value.__suppress_context__


def test_a_file_of_a_mebibyte_is_not_too_large(tmp_path: Path) -> None:
    (tmp_path / "ring").write_bytes(b"x" * (1 << 20))

    assert len(store.read_text(str(tmp_path / "ring"))) == 1 << 20


def test_a_name_is_absent_only_where_it_can_be_seen_to_be(tmp_path: Path) -> None:
    make_file(tmp_path / "file")
    make_dangling_link(tmp_path / "link")

    assert store.is_absent(str(tmp_path / "nothing"))
    assert not store.is_absent(str(tmp_path / "file"))
    assert not store.is_absent(str(tmp_path / "link"))
    assert not store.is_absent(str(tmp_path / "file" / "below"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the open descriptors are not to be seen")
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, make_large, make_utf16])
def test_a_file_that_is_refused_again_and_again_costs_no_descriptor(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "ring"
    make(path)
    before = os.listdir("/proc/self/fd")
    for _ in range(10):
        with pytest.raises(store.StoreError):
            store.read_text(str(path))

    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("content", ["", " \n", "\ufeff", "\r\n\r\n"])
def test_an_empty_key_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ring"
    path.write_bytes(content.encode())
    path.chmod(0o600)
    with pytest.raises(store.StoreError, match="is empty: write one key a line, the newest first"):
        store.read_key_file(str(path))


@pytest.mark.parametrize("private", [0o400, 0o440, 0o600, 0o640, 0o644])
def test_a_key_file_that_others_cannot_write_is_read(tmp_path: Path, private: int) -> None:
    path = tmp_path / "ring"
    path.write_text(ONE)
    path.chmod(private)

    assert store.read_key_file(str(path)) == [ONE]


@pytest.mark.parametrize("public", [0o602, 0o620, 0o622, 0o666, 0o777])
def test_a_key_file_that_others_can_write_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, public: int
) -> None:
    path = tmp_path / "the app's ring"
    path.write_text(ONE)
    path.chmod(public)
    with pytest.raises(store.StoreError, match="can be written by others: run ") as caught:
        store.read_key_file(str(path))

    subprocess.run(shlex.split(str(caught.value).partition("run ")[2]), check=True)
    assert store.read_key_file(str(path)) == [ONE]
