"""Files that hold keys: read with suspicion, replaced whole or not at all."""

import errno
import itertools
import os
import shlex
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import dotenv
import pytest
from hypothesis import given
from hypothesis import strategies as st
from secure.keys import files
from secure.keys.key import generate_key, validate_key

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="modes, owners and locks are POSIX's"),
    # Python 3.12 and later warn when a process with threads forks; a child here needs no lock of another thread.
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")

TEXT = "SECRET_KEY=größer\r\n# a comment\n"
ONE, TWO = generate_key(1_800_000_000).text, generate_key(1_700_000_000).text
OWNER, GROUP, READER, STRANGER = 12345, 23456, 34567, 45678
"""Numbers of users and groups that this machine does not have."""


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


def create(path: Path) -> bool:
    with files.locked(str(path)):
        return files.create(str(path), TEXT)


def replace(path: Path) -> None:
    with files.locked(str(path)):
        files.replace(str(path), TEXT)


def refusal(call: Callable[[], object]) -> str:
    """Return the message of the FileError that `call` raises."""
    with pytest.raises(files.FileError) as caught:
        call()
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def attempt(call: Callable[[], object], user: int, group: int | None = None, groups: tuple[int, ...] = ()) -> str:
    """Return what `call` raises when an unprivileged user calls it in a process of its own; "" for nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        text = ""
        try:
            os.setgroups(groups)
            os.setgid(user if group is None else group)
            os.setuid(user)
            call()
        except BaseException as error:
            text = f"{error}" if isinstance(error, files.FileError) else repr(error)
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can enter; pytest's own are private."""
    parent = Path(tempfile.mkdtemp(dir="/tmp"))
    parent.chmod(0o755)
    path = parent / "folder"
    path.mkdir(0o755)
    yield path
    shutil.rmtree(parent)


# Create


@pytest.mark.parametrize("value", [0o000, 0o022, 0o077, 0o777])
def test_new_file_is_private(tmp_path: Path, value: int) -> None:
    """A new file is its owner's alone, under any umask."""
    path = tmp_path / ".env"
    with umask(value):
        assert create(path)

    assert mode(path) == 0o600
    assert path.read_bytes() == TEXT.encode()
    assert names(tmp_path) == {".env"}


def make_file(path: Path) -> None:
    path.write_text("mine")


def make_link(path: Path) -> None:
    path.with_name("elsewhere").write_text("mine")
    path.symlink_to("elsewhere")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def no_hard_links(_: str, __: str) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize("make", [make_file, make_link, make_dangling_link, Path.mkdir, os.mkfifo])
@pytest.mark.parametrize("hard_links", [True, False])
def test_create_never_overwrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], hard_links: bool
) -> None:
    path = tmp_path / ".env"
    make(path)
    before = names(tmp_path), path.lstat()
    if not hard_links:
        monkeypatch.setattr(os, "link", no_hard_links)

    assert not create(path)
    assert (names(tmp_path), path.lstat()) == before


def test_first_env() -> None:
    """It has a key that signs now and the development environment, and names no other file."""
    text = files.first_env(1_800_000_000.9)
    values = dotenv.dotenv_values(stream=StringIO(text))

    assert {"APP_ENV", "SECRET_KEY"} == set(values)
    assert values["APP_ENV"] == "development"
    assert validate_key(values["SECRET_KEY"] or "", files.leaked_hashes()).activation == 1_800_000_000
    assert "docs" not in text
    assert "example" not in text


# Replace


@pytest.mark.parametrize("before", [0o400, 0o600, 0o640, 0o644])
def test_mode_is_kept(tmp_path: Path, before: int) -> None:
    path = tmp_path / ".env"
    make_file(path)
    path.chmod(before)
    with umask(0o077):
        replace(path)

    assert path.read_bytes() == TEXT.encode()
    assert mode(path) == before
    assert names(tmp_path) == {".env"}


@as_root
def test_owner_is_kept(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    make_file(path)
    os.chown(path, OWNER, GROUP)
    replace(path)

    assert (path.stat().st_uid, path.stat().st_gid) == (OWNER, GROUP)


@pytest.mark.parametrize("make", [make_link, make_dangling_link, Path.mkdir, os.mkfifo])
def test_only_a_regular_file_is_replaced(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / ".env"
    make(path)
    before = names(tmp_path), path.lstat()
    told = refusal(lambda: replace(path))

    is_pipe = make is os.mkfifo
    assert told.startswith(
        f"cannot write {path}: {'a named pipe' if is_pipe else 'not a regular file'} (file unchanged)"
    )
    assert ("\nhint: use --print" in told) == is_pipe
    assert (names(tmp_path), path.lstat()) == before


def test_missing_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / ".env"

    assert refusal(lambda: replace(path)) == f"cannot write {path}: no such file or directory (file unchanged)"
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


def test_full_disk(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    make_file(path)
    with no_space_left():
        told = refusal(lambda: replace(path))

    assert told == f"cannot write {path}: file too large (file unchanged)"
    assert path.read_text() == "mine"
    assert names(tmp_path) == {".env"}


@pytest.mark.parametrize("change", [create, replace])
def test_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]) -> None:
    """The new file has its whole text when the system is told to flush it; then the folder is flushed."""
    path, sizes, fsync = tmp_path / "keyring", list[int](), os.fsync
    if change is replace:
        make_file(path)

    def note(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    change(path)

    assert len(sizes) == 2
    assert sizes[0] == len(TEXT.encode())


def test_planted_new_file(tmp_path: Path) -> None:
    """Another user who can write to the folder makes the new file first: no key is written to it."""
    path, planted = tmp_path / "keyring", tmp_path / "planted"
    make_file(path)
    planted.touch()

    def change() -> None:
        with files.locked(str(path)):
            os.link(planted, f"{path}.fsk-tmp")
            files.replace(str(path), TEXT)

    assert refusal(change) == f"cannot write {path}: file exists (file unchanged)"
    assert (path.read_text(), planted.read_text()) == ("mine", "")


# Read access never grows

linux = pytest.mark.skipif(sys.platform != "linux", reason="Python has extended attributes on Linux only")
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
USER_OBJ, USER, GROUP_OBJ, GROUP_ENTRY, MASK, OTHER = 1, 2, 4, 8, 16, 32
NOBODY = 0xFFFFFFFF


def acl(owner: int, group: int, other: int, mask: int, users: dict[int, int], groups: dict[int, int]) -> bytes:
    """Return an access control list as the kernel takes it (linux/posix_acl_xattr.h)."""
    entries = [
        (USER_OBJ, owner, NOBODY),
        *((USER, access, user) for user, access in sorted(users.items())),
        (GROUP_OBJ, group, NOBODY),
        *((GROUP_ENTRY, access, number) for number, access in sorted(groups.items())),
        (MASK, mask, NOBODY),
        (OTHER, other, NOBODY),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


READER_ONLY = acl(6, 0, 0, 4, {READER: 4}, {})
"""One more user can read the file, its group cannot; st_mode shows the mask: 0640."""
OPEN_DEFAULT = acl(7, 7, 7, 7, {STRANGER: 7}, {STRANGER: 7})


def set_attribute(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value)  # type: ignore[attr-defined,unused-ignore]
    except OSError as error:
        pytest.skip(f"this file system has no {name}: {error}")


def attributes(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}  # type: ignore[attr-defined,unused-ignore]


def readers(path: Path) -> set[str]:
    """Return who can read the file, found by opening it as each."""

    def open_it() -> None:
        path.open("rb").close()

    people = {
        "owner": (OWNER, None),
        "group": (STRANGER + 1, GROUP),
        "reader": (READER, None),
        "stranger": (STRANGER, None),
    }
    return {who for who, (user, group) in people.items() if not attempt(open_it, user, group)}


@pytest.mark.slow
@linux
@as_root
@pytest.mark.parametrize(
    ("before", "lists", "setgid", "allowed"),
    [
        (0o600, {}, False, {"owner"}),
        (0o640, {}, False, {"owner", "group"}),
        (0o640, {ACCESS: READER_ONLY}, False, {"owner", "reader"}),
        (0o600, {DEFAULT: OPEN_DEFAULT}, True, {"owner"}),
        (0o640, {DEFAULT: OPEN_DEFAULT}, True, {"owner", "group"}),
        (0o640, {ACCESS: READER_ONLY, DEFAULT: OPEN_DEFAULT}, True, {"owner", "reader"}),
    ],
    ids=["private", "group", "list", "default list", "group, default list", "both lists"],
)
@pytest.mark.parametrize("command_of", [0, OWNER], ids=["root", "owner"])
def test_nobody_gains_access_at_any_moment(
    folder: Path, before: int, lists: dict[str, bytes], setgid: bool, allowed: set[str], command_of: int
) -> None:
    """Every user opens the file and the new one beside it after each call of the system; so does the end."""
    path = folder / "keyring"
    make_file(path)
    os.chown(path, OWNER, GROUP)
    path.chmod(before)
    os.chown(folder, OWNER, STRANGER)
    folder.chmod(0o2755 if setgid else 0o755)
    for name, value in lists.items():
        set_attribute(folder if name == DEFAULT else path, name, value)
    set_attribute(path, "user.note", b"kept")
    found, kept, inode = path.stat(), attributes(path), path.stat().st_ino
    assert readers(path) == allowed

    seen: list[Path] = []

    def look(_: object, event: str, called: object) -> None:
        temporary = folder / "keyring.fsk-tmp"
        if event == "c_return" and getattr(called, "__module__", "") == "posix" and temporary.exists():
            seen.append(temporary)
            with umask(0):
                assert not access_beyond(temporary, allowed), called

    if command_of:
        assert not attempt(lambda: replace(path), OWNER, OWNER, (GROUP,))
    else:
        sys.setprofile(look)
        try:
            replace(path)
        finally:
            sys.setprofile(None)
        assert len(seen) > 5

    assert path.read_bytes() == TEXT.encode()
    assert path.stat().st_ino != inode
    assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode) == (OWNER, GROUP, found.st_mode)
    assert attributes(path) == kept
    assert readers(path) == allowed


def access_beyond(path: Path, allowed: set[str]) -> set[str]:
    """Return who can read a file although they should not."""
    return readers(path) - allowed


@linux
@as_root
def test_look_sees_a_grant(folder: Path) -> None:
    """A negative control: what copies only the mode grants the mask of the list to the group."""
    path = folder / "keyring"
    make_file(path)
    os.chown(path, OWNER, GROUP)
    set_attribute(path, ACCESS, READER_ONLY)
    copy = folder / "copy"
    make_file(copy)
    os.chown(copy, OWNER, GROUP)
    copy.chmod(mode(path))

    assert readers(path) == {"owner", "reader"}
    assert access_beyond(copy, readers(path)) == {"group"}


@linux
@as_root
def test_new_file_takes_no_default_list(folder: Path) -> None:
    set_attribute(folder, DEFAULT, OPEN_DEFAULT)
    path = folder / "keyring"

    assert create(path)
    assert (mode(path), attributes(path)) == (0o600, {})
    path.chmod(0o644)
    assert "stranger" in readers(path)


@as_root
@pytest.mark.parametrize(
    ("user", "groups", "run_as"),
    [(OWNER, (), "root"), (STRANGER, (GROUP,), f"'#{OWNER}'"), (STRANGER, (), f"'#{OWNER}'")],
    ids=["owner outside the group", "member of the group", "stranger"],
)
def test_owner_and_group_that_cannot_be_kept(folder: Path, user: int, groups: tuple[int, ...], run_as: str) -> None:
    """The command is refused and says as whom it can be run; so it can."""
    path = folder / "keyring"
    make_file(path)
    os.chown(path, OWNER, GROUP)
    path.chmod(0o640)
    folder.chmod(0o777)
    os.chown(folder, user, -1)
    folder.chmod(0o755)

    assert attempt(lambda: replace(path), user, user, groups) == (
        f"cannot write {path}: you cannot keep its owner, group, mode or attributes (file unchanged)\n"
        f"hint: run the same command as {run_as}, for example with sudo -u {run_as}"
    )
    assert (path.read_text(), names(folder)) == ("mine", {"keyring"})
    replace(path)
    assert path.read_bytes() == TEXT.encode()


@as_root
@pytest.mark.parametrize(
    ("owner", "hint"),
    [(0, "run the same command as root, for example with sudo -u root"), (STRANGER, "chmod u+wx {}")],
)
def test_folder_that_cannot_be_written(folder: Path, owner: int, hint: str) -> None:
    path = folder / "keyring"
    os.chown(folder, owner, -1)
    folder.chmod(0o555)

    assert attempt(lambda: create(path), STRANGER) == (
        f"cannot write {path}: permission denied (file unchanged)\nhint: {hint.format(folder)}"
    )


# What a file system answers

Answer = Callable[..., None]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """A function: `answer(name, error, when)` has a call of the system fail, the `when`th time or always (0)."""

    def answer(name: str, error: int, when: int = 0) -> None:
        module = pytest.importorskip("fcntl") if name == "flock" else os
        if not hasattr(module, name):
            pytest.skip(f"this system has no {name}")
        call, count = getattr(module, name), itertools.count(1)

        def fail(*arguments: object, **options: object) -> object:
            if when in (0, next(count)):
                raise OSError(error, os.strerror(error))
            return call(*arguments, **options)

        monkeypatch.setattr(module, name, fail)

    return answer


FEATURES = ["fsync", "flock", "fchmod", "link", "listxattr", "getxattr", "setxattr", "removexattr"]


@pytest.mark.parametrize("change", [create, replace])
@pytest.mark.parametrize("error", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
@pytest.mark.parametrize("calls", [*([name] for name in FEATURES), FEATURES], ids=" ".join)
def test_missing_feature(
    tmp_path: Path, answer: Answer, change: Callable[[Path], object], error: int, calls: list[str]
) -> None:
    path = tmp_path / "keyring"
    if change is replace:
        make_file(path)
        path.chmod(0o600)
    for call in calls:
        answer(call, error)
    with umask(0o277 if "fchmod" in calls else 0o022):
        change(path)

    assert names(tmp_path) == {"keyring"}
    path.chmod(0o600)
    assert path.read_bytes() == TEXT.encode()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EROFS, errno.ENOLCK, errno.EPERM, errno.EACCES])
@pytest.mark.parametrize("call", ["fsync", "flock", "fchmod", "link", "replace", "rename", "open", "fdopen"])
def test_failing_call(tmp_path: Path, answer: Answer, call: str, error: int) -> None:
    """The file is unchanged, nothing is left beside it, and the lock is free."""
    path = tmp_path / "keyring"
    change = create if call in ("link", "rename") else replace
    if change is replace:
        make_file(path)
        path.chmod(0o640)
    if call == "rename":
        answer("link", errno.EPERM)
    answer(call, error, when=call == "fsync")
    tolerated = {("flock", errno.ENOLCK), ("link", errno.EPERM)}
    with umask(0o077):
        if (call, error) in tolerated:
            change(path)
            return
        told = refusal(lambda: change(path))

    reason = os.strerror(error).lower()
    if call == "fchmod" and error in (errno.EPERM, errno.EACCES):
        reason = "you cannot keep its owner, group, mode or attributes"
    assert told.startswith(f"cannot write {path}: {reason} (file unchanged)")
    left = {"keyring.lock.fsk-tmp"} if call == "flock" else set()  # the lock itself could not be had
    assert names(tmp_path) - left == ({"keyring"} if change is replace else set())
    if change is replace:
        assert (path.read_text(), mode(path)) == ("mine", 0o640)


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES])
@pytest.mark.parametrize("call", ["fsync", "open"])
@pytest.mark.parametrize("change", [create, replace])
def test_folder_that_cannot_be_flushed(
    tmp_path: Path, answer: Answer, change: Callable[[Path], object], call: str, error: int
) -> None:
    """The change is made, and the message says so."""
    path = tmp_path / "keyring"
    if change is replace:
        make_file(path)
    answer(call, error, when=2 if call == "fsync" else 3)
    before = set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()

    assert refusal(lambda: change(path)) == (
        f"{path} is changed, but its folder cannot be flushed: {os.strerror(error).lower()}"
    )
    assert path.read_bytes() == TEXT.encode()
    assert names(tmp_path) == {"keyring"}
    assert sys.platform != "linux" or set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("before", "error", "after"),
    [(0o640, errno.EOPNOTSUPP, 0o600), (0o600, errno.EPERM, 0o600), (0o640, errno.EPERM, None)],
    ids=["not supported: narrower", "not allowed: equal", "not allowed: another mode"],
)
def test_failing_chmod(tmp_path: Path, answer: Answer, before: int, error: int, after: int | None) -> None:
    """The change is made if nobody gains access; a mode that this user may not set is not lost."""
    path = tmp_path / "keyring"
    make_file(path)
    path.chmod(before)
    answer("fchmod", error)
    if after is None:
        assert "you cannot keep its owner, group, mode" in refusal(lambda: replace(path))
        assert (path.read_text(), mode(path)) == ("mine", before)
    else:
        replace(path)
        assert (path.read_bytes(), mode(path)) == (TEXT.encode(), after)


@linux
@pytest.mark.parametrize("error", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM])
@pytest.mark.parametrize("is_list", [False, True])
def test_failing_setxattr(tmp_path: Path, answer: Answer, error: int, is_list: bool) -> None:
    """Only one that does not say who may read the file can be lost, and only if the file system cannot keep it."""
    path = tmp_path / "keyring"
    make_file(path)
    set_attribute(path, *((ACCESS, READER_ONLY) if is_list else ("user.note", b"lost")))
    answer("setxattr", error)
    if is_list or error == errno.EPERM:
        assert refusal(lambda: replace(path)).startswith(f"cannot write {path}: ")
        assert (path.read_text(), names(tmp_path)) == ("mine", {"keyring"})
    else:
        replace(path)
        assert (path.read_bytes(), attributes(path)) == (TEXT.encode(), {})


@linux
def test_attributes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "keyring"
    make_file(path)
    set_attribute(path, "user.note", b"kept")
    set_attribute(path, ACCESS, READER_ONLY)
    before = attributes(path), mode(path)
    replace(path)

    assert (attributes(path), mode(path)) == before == ({"user.note": b"kept", ACCESS: READER_ONLY}, 0o640)


def test_new_file_whose_mode_cannot_be_set(tmp_path: Path, answer: Answer) -> None:
    """A file system without modes refuses chmod to everybody but root."""
    path = tmp_path / "keyring"
    answer("fchmod", errno.EPERM)
    with umask(0o277):
        assert create(path)
    assert names(tmp_path) == {"keyring"}


@pytest.mark.parametrize("shown", [0o600, 0o640, 0o641, 0o644, 0o660])
def test_file_system_that_shows_another_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: int) -> None:
    """A change is refused if more users could read the new file than the old one."""
    path = tmp_path / "keyring"
    make_file(path)
    path.chmod(0o640)
    fchmod = os.fchmod
    monkeypatch.setattr(os, "fchmod", lambda file, _: fchmod(file, shown))
    if shown <= 0o640:
        replace(path)
        assert (path.read_bytes(), mode(path)) == (TEXT.encode(), shown)
    else:
        assert refusal(lambda: replace(path)) == (
            f"cannot write {path}: the file system would let more users read it (file unchanged)"
        )
        assert (path.read_text(), mode(path)) == ("mine", 0o640)


# What a real system answers, in a process of its own

strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
CHANGE = """
import sys
from secure.keys import files
path, change = sys.argv[1:]
try:
    with files.locked(path):
        files.replace(path, "new") if change == "replace" else files.create(path, "new")
except files.FileError as error:
    sys.exit(str(error))
"""


def changed_under(path: Path, change: str, *faults: str) -> tuple[str, int]:
    """Change a file in a process to which the system answers as `faults` say; what it says, and their number."""
    python = [sys.executable, "-c", CHANGE, str(path), change]
    only_here = (
        "-P",
        str(path),
        "-P",
        f"{path}.fsk-tmp",
        "-P",
        f"{path}.lock.fsk-tmp",
        "-P",
        str(path.parent),
    )
    injected = [part for fault in faults for part in ("-e", f"inject={fault}")]
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[2])}
    done = subprocess.run(
        ["strace", "-y", *only_here, "-o", "trace", *injected, *python],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    return done.stderr, Path("trace").read_text().count("(INJECTED)")


CALLS = ["fsync", "flock", "fchmod", "/^link", "/listxattr", "/^(fsync|flock|fchmod|link|linkat|.*xattr)$"]


@pytest.mark.slow
@strace
@pytest.mark.parametrize("change", ["create", "replace"])
@pytest.mark.parametrize("call", CALLS)
def test_missing_feature_of_a_system(tmp_path: Path, call: str, change: str) -> None:
    path = tmp_path / "keys" / "keyring"
    path.parent.mkdir()
    if change == "replace":
        make_file(path)
        path.chmod(0o600)
    with umask(0o277 if call == "fchmod" else 0o022):
        told, injected = changed_under(path, change, f"{call}:error=EOPNOTSUPP")

    unused = (call == "/^link" and change == "replace") or (call == "/listxattr" and sys.platform != "linux")
    assert (told, injected > 0) == ("", not unused)
    assert names(path.parent) == {"keyring"}
    path.chmod(0o600)
    assert path.read_text() == "new"


@pytest.mark.slow
@strace
@pytest.mark.parametrize("call", ["fsync", "flock", "fchmod", "/^link", "/^rename", "write"])
def test_failure_of_a_system(tmp_path: Path, call: str) -> None:
    """The file is unchanged, except when only the folder could not be flushed."""
    path = tmp_path / "keys" / "keyring"
    path.parent.mkdir()
    change = "create" if "link" in call else "replace"
    if change == "replace":
        make_file(path)
        path.chmod(0o640)
    which = {"write": ":when=2", "fsync": ":when=1"}.get(call, "")  # the first write tells who holds the lock
    told, injected = changed_under(path, change, f"{call}:error=EIO{which}")

    assert injected
    assert told.startswith(f"cannot write {path}: ")
    assert " (file unchanged)" in told
    left = names(path.parent) - {"keyring.lock.fsk-tmp"}  # it stays if the lock itself cannot be had
    assert left == ({"keyring"} if change == "replace" else set())
    assert change == "create" or path.read_text() == "mine"


@pytest.mark.slow
@strace
def test_folder_that_a_system_cannot_flush(tmp_path: Path) -> None:
    path = tmp_path / "keyring"
    make_file(path)
    told, injected = changed_under(path, "replace", "fsync:error=EIO:when=2")

    assert injected == 1
    assert told.startswith(f"{path} is changed, but its folder cannot be flushed: ")
    assert path.read_text() == "new"


@pytest.mark.slow
@strace
@pytest.mark.parametrize(
    ("before", "error", "after"),
    [
        (0o640, "EOPNOTSUPP", 0o600),
        (0o600, "EPERM", 0o600),
        (0o640, "EPERM", None),
    ],
    ids=["not supported: narrower", "not allowed: equal", "not allowed: another mode"],
)
def test_chmod_that_fails(tmp_path: Path, before: int, error: str, after: int | None) -> None:
    """The change is made if nobody gains access; a mode that this user may not set is not lost."""
    path = tmp_path / "keyring"
    make_file(path)
    path.chmod(before)
    told, _ = changed_under(path, "replace", f"fchmod:error={error}")

    if after is None:
        assert "you cannot keep its owner, group, mode" in told
        assert (path.read_text(), mode(path)) == ("mine", before)
    else:
        assert (told, path.read_text(), mode(path)) == ("", "new", after)


@pytest.mark.slow
@strace
def test_new_file_without_chmod(tmp_path: Path) -> None:
    """A bake succeeds where chmod is not allowed, because the file system has no modes."""
    path = tmp_path / "keys" / "keyring"
    path.parent.mkdir()
    with umask(0o277):
        told, injected = changed_under(path, "create", "fchmod:error=EPERM")

    assert (told, injected) == ("", 1)
    path.chmod(0o600)
    assert path.read_text() == "new"


@pytest.mark.slow
@strace
@linux
@pytest.mark.parametrize("error", ["EINVAL", "EOPNOTSUPP", "ENOSYS", "EPERM"])
@pytest.mark.parametrize("is_list", [False, True])
def test_attribute_that_cannot_be_set(tmp_path: Path, error: str, is_list: bool) -> None:
    """Only one that does not say who may read the file can be lost, and only if the file system cannot keep it."""
    path = tmp_path / "keyring"
    make_file(path)
    set_attribute(path, *((ACCESS, READER_ONLY) if is_list else ("user.note", b"lost")))
    told, injected = changed_under(path, "replace", f"/setxattr:error={error}")

    assert injected == 1
    if is_list or error == "EPERM":
        assert told.startswith(f"cannot write {path}: ")
        assert "(file unchanged)" in told
        assert path.read_text() == "mine"
    else:
        assert (told, path.read_text(), attributes(path)) == ("", "new", {})


@contextmanager
def mounted(folder: Path, kind: str, *options: str) -> Iterator[Path]:
    """A file system that keeps no modes, on a folder for the time of the block."""
    image, place = folder / "image", folder / "mount"
    place.mkdir()
    device = ""
    if kind == "bindfs":
        (folder / "below").mkdir()
        options = options or ("--perms=0777", "--chmod-ignore")
        command = ["bindfs", *options, str(folder / "below"), str(place)]
    else:
        with image.open("wb") as file:
            file.truncate(8 << 20)
        make, mount = {
            "exfat": ("mkfs.exfat", "mount.exfat-fuse"),
            "ntfs": ("mkfs.ntfs", "ntfs-3g"),
            "vfat": ("mkfs.vfat", "mount"),
        }[kind]
        if not shutil.which(make) or not shutil.which(mount):
            pytest.skip(f"{make} or {mount} is not installed")
        loop = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True, check=False)
        if loop.returncode:
            pytest.skip("no loop device")
        device = loop.stdout.strip()
        force = ["-F", "-q"] if kind == "ntfs" else []
        subprocess.run([make, *force, device], check=True, capture_output=True)
        command = [mount, *(["-t", "vfat", "-o", "umask=0"] if kind == "vfat" else []), device, str(place)]
    try:
        if not shutil.which(command[0]) or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip(f"{kind} cannot be mounted here")
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)
    finally:
        if device:
            subprocess.run(["losetup", "-d", device], check=True)


@pytest.mark.slow
@as_root
@pytest.mark.parametrize("kind", ["exfat", "ntfs", "vfat", "bindfs"])
def test_file_system_without_modes(folder: Path, kind: str) -> None:
    """A key is created and replaced there; reading it is refused with the mount options, chmod would not help."""
    with mounted(folder, kind) as place:
        path = place / "keyring"
        assert create(path)
        assert mode(path) == 0o777
        replace(path)
        assert path.read_bytes() == TEXT.encode()
        assert names(place) == {"keyring"}
        assert refusal(lambda: files.read_key_file(str(path))) == (
            f"cannot read {path}: other users can write to it\n"
            f"hint: mount {place} with the option umask=077 (WSL: metadata,umask=077)"
        )


@pytest.mark.slow
@as_root
def test_file_system_that_widens_new_files(folder: Path) -> None:
    """A change is refused there if more users could read the new file than the old one."""
    with mounted(folder, "bindfs", "--create-with-perms=0666", "--chmod-ignore") as place:
        path = place / "keyring"
        make_file(folder / "below" / "keyring")
        (folder / "below" / "keyring").chmod(0o600)

        assert refusal(lambda: replace(path)) == (
            f"cannot write {path}: the file system would let more users read it (file unchanged)"
        )
        assert (path.read_text(), names(place)) == ("mine", {"keyring"})


@pytest.mark.parametrize(
    ("kind", "device", "mode", "hinted"),
    [
        ("fuse.sshfs", None, 0o777, True),
        ("9p", None, 0o777, True),
        ("ext4", None, 0o777, False),
        ("9p", "0:0", 0o777, False),
        ("9p", None, 0o666, False),
        ("", None, 0o777, False),  # a system that does not tell
    ],
)
def test_mount_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, device: str | None, mode: int, hinted: bool
) -> None:
    """The hint is for a file system without modes, and names where it is mounted."""
    path = tmp_path / "keyring"
    write(path, ONE, mode)
    number = path.stat().st_dev
    device = device or f"{os.major(number)}:{os.minor(number)}"
    lines = [
        f"20 1 {device} / / rw shared:1 - ext4 /dev/root rw",
        "21 1 0:0 / /mnt/other rw - 9p other rw",
        f"22 1 {device} / /mnt/here rw master:1 - {kind} here rw",
    ]
    mounts = tmp_path / "mountinfo"
    if kind:
        mounts.write_text("\n".join(lines))
    opened = open

    def open_(name: str, *arguments: object, **options: object) -> object:
        return opened(mounts if name == "/proc/self/mountinfo" else name, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(files, "open", open_, raising=False)
    hint = refusal(lambda: files.read_key_file(str(path))).partition("\nhint: ")[2]
    assert hint == (
        "mount /mnt/here with the option umask=077 (WSL: metadata,umask=077)" if hinted else f"chmod go-w {path}"
    )


def test_mode_0777_on_a_file_system_with_modes(tmp_path: Path) -> None:
    path = tmp_path / "keyring"
    path.write_text(ONE)
    path.chmod(0o777)

    assert refusal(lambda: files.read_key_file(str(path))).endswith(f"\nhint: chmod go-w {path}")


# Lock

HOLD = """
import sys
from secure.keys.files import locked
with locked(sys.argv[1]):
    open(sys.argv[1] + ".fsk-tmp", "w").write("half a key")
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holding(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the lock, half way through a change, until it is killed or its input ends."""
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[2])}
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        try:
            yield holder
        finally:
            holder.kill()


def take(path: Path, wait: float = 0) -> None:
    with files.locked(str(path), wait):
        pass


def descriptors() -> int:
    """Return how many files this process has open, where the system tells."""
    return len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0


def test_lock_that_is_held(tmp_path: Path) -> None:
    """The second one is refused, in the same process too, and takes nothing from the first."""
    path, before = tmp_path / ".env", descriptors()
    with files.locked(str(path)):
        (tmp_path / ".env.fsk-tmp").write_text("half a key")
        start = time.monotonic()
        for wait in (0, 0.2):
            assert refusal(partial(take, path, wait)) == (
                f"cannot write {path}: process {os.getpid()} is changing it\n"
                f"hint: try again; if that process hangs: kill {os.getpid()}"
            )
        assert time.monotonic() - start >= 0.2
        assert names(tmp_path) == {".env.fsk-tmp", ".env.lock.fsk-tmp"}
        assert mode(tmp_path / ".env.lock.fsk-tmp") == 0o600
    assert names(tmp_path) == {".env.fsk-tmp"}
    take(path)
    assert names(tmp_path) == set()
    assert descriptors() == before


def test_lock_that_is_given_back(tmp_path: Path) -> None:
    path = str(tmp_path / ".env")
    taken, back = threading.Event(), threading.Event()

    def hold() -> None:
        with files.locked(path):
            taken.set()
            back.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait(60)
    threading.Timer(0.1, back.set).start()
    take(tmp_path / ".env", wait=60)
    holder.join()


@pytest.mark.parametrize("text", ["", "no number", "12 or so", "-1", "0", "1"])
def test_lock_of_nobody_known(tmp_path: Path, text: str) -> None:
    """The lock file does not say whose it is, as on a full disk, or names what must not be killed."""
    path, lock = tmp_path / "the app's .env", tmp_path / "the app's .env.lock.fsk-tmp"
    fcntl = pytest.importorskip("fcntl")
    with lock.open("w") as file:
        file.write(text)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        start, _, command = refusal(lambda: take(path)).partition("\nhint: if no other command is running: ")
        assert start == f"cannot write {path}: {lock} is in use"
    subprocess.run(shlex.split(command), check=True)
    take(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(("owner", "named"), [(65534, False), (0, True)])
def test_lock_that_names_a_process(tmp_path: Path, owner: int, named: bool) -> None:
    """Another user could name any process, which root would then kill."""
    path, lock = tmp_path / ".env", tmp_path / ".env.lock.fsk-tmp"
    fcntl = pytest.importorskip("fcntl")
    with lock.open("w") as file:
        file.write("12345")
        file.flush()
        os.chown(lock, owner, 0)
        fcntl.flock(file, fcntl.LOCK_EX)
        assert ("12345" in refusal(lambda: take(path))) is named


def test_lock_on_a_full_disk(tmp_path: Path, answer: Answer) -> None:
    path = tmp_path / ".env"
    answer("write", errno.ENOSPC)
    with files.locked(str(path)):
        assert refusal(lambda: take(path)).startswith(f"cannot write {path}: {path}.lock.fsk-tmp is in use\n")


def test_lock_is_removed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is still held then; afterwards its name could be that of the next holder's lock."""
    fcntl = pytest.importorskip("fcntl")
    path, lock, unlink, free = tmp_path / "keyring", tmp_path / "keyring.lock.fsk-tmp", os.unlink, list[bool]()

    def note(name: str) -> None:
        if name == str(lock):
            with lock.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    free.append(True)
                except BlockingIOError:
                    free.append(False)
        unlink(name)

    monkeypatch.setattr(os, "unlink", note)
    take(path)

    assert free == [False]


def test_link_in_the_place_of_the_lock(tmp_path: Path) -> None:
    """Nothing is made where it leads to."""
    path = tmp_path / "keyring"
    Path(f"{path}.lock.fsk-tmp").symlink_to("elsewhere")

    assert refusal(lambda: take(path)).startswith(f"cannot write {path}: ")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
def test_lock_of_another_process(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    with another_process_holding(path) as holder:
        assert refusal(lambda: take(path)) == (
            f"cannot write {path}: process {holder.pid} is changing it\n"
            f"hint: try again; if that process hangs: kill {holder.pid}"
        )
        assert (tmp_path / ".env.fsk-tmp").read_text() == "half a key"


@pytest.mark.slow
def test_lock_waits_briefly(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    with another_process_holding(path) as holder:
        start = time.monotonic()
        refusal(lambda: take(path, wait=0.3))
        assert time.monotonic() - start >= 0.3

        threading.Timer(0.2, holder.kill).start()
        take(path, wait=10)


@pytest.mark.slow
def test_lock_hint(tmp_path: Path) -> None:
    """The hint's command ends the process that hangs, and the next change is made."""
    path = tmp_path / ".env"
    with another_process_holding(path) as holder:
        told = refusal(lambda: take(path))
        subprocess.run(shlex.split(told.partition("hangs: ")[2]), check=True)
        assert holder.wait() == -signal.SIGTERM
        assert create(path)
        assert names(tmp_path) == {".env"}


@pytest.mark.slow
def test_killed_process(tmp_path: Path) -> None:
    """What it leaves is named in .gitignore, and the next change removes it."""
    path = tmp_path / ".env"
    with another_process_holding(path) as holder:
        holder.kill()
        holder.wait()

        assert names(tmp_path) == {".env.fsk-tmp", ".env.lock.fsk-tmp"}
        assert mode(tmp_path / ".env.lock.fsk-tmp") == 0o600
        take(path)
        assert names(tmp_path) == set()


@as_root
def test_reader_of_the_folder_cannot_hold_the_lock(folder: Path) -> None:
    """Another user locks all that it can open: the folder, the file, and what a command leaves there."""
    path = folder / "keyring"
    make_file(path)
    path.chmod(0o644)
    (folder / "keyring.lock.fsk-tmp").touch(0o600)

    holding, done = os.pipe(), os.pipe()

    def hold_all() -> None:
        import fcntl  # noqa: PLC0415 - POSIX only

        held = []
        for name in (folder, *folder.iterdir()):
            with suppress(PermissionError):
                held.append(os.open(name, os.O_RDONLY))
                fcntl.flock(held[-1], fcntl.LOCK_EX)
        os.write(holding[1], b"x")
        os.read(done[0], 1)
        raise KeyError(len(held))

    result: list[str] = []
    thread = threading.Thread(target=lambda: result.append(attempt(hold_all, STRANGER)))
    thread.start()
    os.read(holding[0], 1)
    try:
        replace(path)
    finally:
        os.write(done[1], b"x")
        thread.join()
        for end in (*holding, *done):
            os.close(end)
    assert result == ["KeyError(2)"], "the folder and the file, but not what locks them"
    assert path.read_bytes() == TEXT.encode()


@as_root
@pytest.mark.parametrize(("user", "owner"), [(STRANGER, 0), (0, STRANGER)], ids=["root's", "a stranger's"])
def test_lock_file_of_another_user(folder: Path, user: int, owner: int) -> None:
    """It is left by another user's killed command, or made by one who may not change the file."""
    path, lock = folder / "it's a keyring", folder / "it's a keyring.lock.fsk-tmp"
    os.chown(folder, user, -1)
    lock.touch(0o666)
    lock.chmod(0o600)
    os.chown(lock, owner, -1)
    told = attempt(lambda: take(path), user) if user else refusal(lambda: take(path))
    start, _, command = told.partition("\nhint: if no other command is running: ")

    assert start == f"cannot write {path}: {lock} is in use"
    subprocess.run(shlex.split(command), check=True)
    take(path)


@as_root
def test_lock_of_another_user_in_a_sticky_folder(folder: Path) -> None:
    """In a folder like /tmp, only its owner can remove it: no hint says to try."""
    path, lock = folder / "keyring", folder / "keyring.lock.fsk-tmp"
    folder.chmod(0o1777)
    lock.touch(0o600)
    os.chown(lock, READER, -1)

    assert attempt(lambda: take(path), STRANGER) == (
        f"cannot write {path}: {lock} is in use\nhint: move the file to a folder that only its owner can write to"
    )


@pytest.mark.slow
def test_one_of_many_at_a_time(tmp_path: Path) -> None:
    """Processes that add a line each lose none, although every one removes the lock file."""
    path = tmp_path / "keyring"
    path.touch(0o600)
    children = []
    for number in range(8):
        child = os.fork()
        if not child:
            status = 1
            with suppress(BaseException):
                for turn in range(5):
                    with files.locked(str(path), wait=60):
                        files.replace(str(path), path.read_text() + f"{number}.{turn}\n")
                status = 0
            os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert sorted(path.read_text().split()) == sorted(f"{a}.{b}" for a, b in itertools.product(range(8), range(5)))
    assert names(tmp_path) == {"keyring"}


@pytest.mark.slow
def test_lock_file_that_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that opened it just before its holder removed it, and another made it anew, has no lock."""
    fcntl = pytest.importorskip("fcntl")
    path, lock, flock = tmp_path / ".env", tmp_path / ".env.lock.fsk-tmp", fcntl.flock
    with ExitStack() as stack:

        def slow_flock(descriptor: int, how: int) -> None:
            lock.unlink()
            holders.append(stack.enter_context(another_process_holding(path)))
            flock(descriptor, how)

        holders: list[subprocess.Popen[str]] = []
        monkeypatch.setattr(fcntl, "flock", slow_flock)
        told = refusal(lambda: take(path))
        assert told.startswith(f"cannot write {path}: process {holders[0].pid} is changing it\n")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "no space left on device"),
        (OSError(), "unknown error"),
        (OSError(errno.EBUSY, "Busy"), "busy"),
    ],
)
def test_lock_is_free_after_an_error(tmp_path: Path, error: OSError, reason: str) -> None:
    path = str(tmp_path / ".env")
    with pytest.raises(files.FileError) as caught, files.locked(path):
        raise error
    hint = "\nhint: mount the folder of the file, not the file alone" if reason == "busy" else ""
    assert str(caught.value) == f"cannot write {path}: {reason} (file unchanged){hint}"

    with files.locked(path):
        pass


def test_missing_folder(tmp_path: Path) -> None:
    path = tmp_path / "missing" / ".env"
    start, _, command = refusal(lambda: take(path)).partition("\nhint: ")

    assert start == f"cannot write {path}: no such file or directory (file unchanged)"
    subprocess.run(shlex.split(command), check=True)
    take(path)
    assert mode(tmp_path / "missing") == 0o700


def test_pipe_in_the_place_of_a_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    assert "not a directory" in refusal(lambda: take(tmp_path / "pipe" / ".env"))


def test_working_directory(tmp_path: Path) -> None:
    with pytest.raises(files.FileError, match=r"cannot write \.env: "), files.locked(".env"):
        raise OSError(errno.EIO, "input/output error")
    with files.locked(".env"):
        assert files.create(".env", TEXT)
        files.replace(".env", "")

    assert (tmp_path / ".env").read_text() == ""


def test_hint_for_the_working_directory() -> None:
    told = refusal(partial(fail_under_lock, PermissionError(errno.EACCES, "Permission denied")))
    assert told == "cannot write .env: permission denied (file unchanged)\nhint: chmod u+wx ."


def fail_under_lock(error: OSError) -> None:
    with files.locked(".env"):
        raise error


# Read


def write(path: Path, content: str | bytes, mode: int = 0o600) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (f"{ONE}\n{TWO}\n", [ONE, TWO]),
        (f"{ONE}\n{TWO}", [ONE, TWO]),
        (f"{ONE}\r\n{TWO}\r\n", [ONE, TWO]),
        (f"{ONE}\r{TWO}\r", [ONE, TWO]),
        (f"{ONE}\r{TWO}\r\n", [ONE, TWO]),
        (f"\ufeff{ONE}\n{TWO}\n", [ONE, TWO]),
        (f" {ONE}\n{TWO}\t\n", [ONE, TWO]),
        (f"{ONE}\n\n \r\n", [ONE]),
        (f"{ONE}\n\n{TWO}\n", [ONE, "", TWO]),
        (f"\n{ONE}\n", ["", ONE]),
        (f"{ONE}\u2028{TWO}\n", [f"{ONE}\u2028{TWO}"]),
        (f"'{ONE}'\n", [f"'{ONE}'"]),
        (f"X{ONE}X\n{TWO}X", [f"X{ONE}X", f"{TWO}X"]),
        (f"{ONE}\xa0\n{TWO}\xa0", [f"{ONE}\xa0", f"{TWO}\xa0"]),
    ],
    ids=["plain", "no newline", "CRLF", "CR", "CR and CRLF", "BOM", "white space", "blank end", "blank line",
         "blank start", "no line ending", "quotes", "letters", "other white space"],
)  # fmt: skip
def test_key_file(tmp_path: Path, content: str, lines: list[str]) -> None:
    assert files.read_key_file(write(tmp_path / "keyring", content)) == lines


@pytest.mark.parametrize("kind", ["CERTIFICATE", "PRIVATE KEY", "OPENSSH PRIVATE KEY"])
def test_file_of_another_program(tmp_path: Path, kind: str) -> None:
    """Its lines look random, and those of a certificate are public: no hint leads to a file of them."""
    path = tmp_path / "server.pem"
    write(path, f"\n-----BEGIN {kind}-----\n{ONE}\n{TWO}\n-----END {kind}-----\n")

    assert refusal(lambda: files.read_key_file(str(path))) == (
        f"cannot read {path}: a certificate or a key of another program\n"
        "hint: set SECRET_KEY_FILE to a file of its own for this app"
    )


def test_comment_in_a_key_file(tmp_path: Path) -> None:
    """It would be lost by the next change. The hint loses nothing: without the line the file is read."""
    path = tmp_path / "keyring"
    write(path, f"{ONE}\n # the old one\n{TWO}\n")

    assert refusal(lambda: files.read_key_file(str(path))) == (
        f"cannot read {path}: line 2 is a comment\nhint: remove line 2; a key file has only keys"
    )
    lines = path.read_text().splitlines(keepends=True)
    assert files.read_key_file(write(path, lines[0] + lines[2])) == [ONE, TWO]


@given(starts=st.lists(st.integers(0, 2**32), min_size=1))
def test_key_file_reads_back(tmp_path_factory: pytest.TempPathFactory, starts: list[int]) -> None:
    keys = [generate_key(start).text for start in starts]
    path = tmp_path_factory.mktemp("read") / "keyring"

    assert files.read_key_file(write(path, "".join(f"{key}\n" for key in keys))) == keys


@pytest.mark.parametrize("content", ["", " \n", "\ufeff", "\r\n\r\n", "\r"])
def test_empty_key_file(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "keyring", content)

    assert refusal(lambda: files.read_key_file(path)) == (
        f"cannot read {path}: empty\nhint: put the keys back, one per line, newest first"
    )


def make_socket(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        os.chdir(path.parent)  # a socket's whole path may be too long
        listener.bind(path.name)


def make_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate((1 << 20) + 1)


def make_unreadable(path: Path) -> None:
    write(path, ONE, 0)


def make_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


NOT_TEXT = "not UTF-8 text, or it has NUL characters\nhint: save the file as UTF-8, without changing its contents"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no such file or directory"),
        (make_dangling_link, "no such file or directory"),
        (make_link_to_itself, "too many levels of symbolic links"),
        (Path.mkdir, "is a directory"),
        (lambda path: path.symlink_to("/dev/null"), "not a regular file"),
        (make_socket, "no such device or address"),
        (make_large, "larger than 1048576 bytes"),
        (lambda path: write(path, f"KEY={ONE}".encode("utf-16")), NOT_TEXT),
        (lambda path: write(path, f"KEY={ONE}".encode("utf-16-le")), NOT_TEXT),
        (lambda path: write(path, "KEY=größe".encode("latin-1")), NOT_TEXT),
        (lambda path: write(path, f"KEY={ONE}\n\0\0\0"), NOT_TEXT),
        pytest.param(make_unreadable, "permission denied", marks=not_as_root),
    ],
    ids=["nothing", "dangling link", "link loop", "folder", "device", "socket", "large", "UTF-16 with BOM",
         "UTF-16", "Latin-1", "NUL", "unreadable"],
)  # fmt: skip
def test_no_text_file(tmp_path: Path, make: Callable[[Path], object], reason: str) -> None:
    path = tmp_path / "keyring"
    with umask(0o077):
        make(path)
    for read in (files.read_text, files.read_key_file):
        assert refusal(partial(read, str(path))) in (
            f"cannot read {path}: {reason}",
            f"cannot read {path.with_name('nowhere')}: {reason}",
        )


def test_file_of_a_mebibyte(tmp_path: Path) -> None:
    assert len(files.read_text(write(tmp_path / "keyring", b"x" * (1 << 20)))) == 1 << 20


def test_is_absent(tmp_path: Path) -> None:
    """A name is absent only if it can be seen to be."""
    make_file(tmp_path / "file")
    make_dangling_link(tmp_path / "link")

    assert files.is_absent(str(tmp_path / "nothing"))
    assert not files.is_absent(str(tmp_path / "file"))
    assert not files.is_absent(str(tmp_path / "link"))
    assert not files.is_absent(str(tmp_path / "file" / "below"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the open descriptors are not to be seen")
@pytest.mark.parametrize("make", [Path.mkdir, make_large, lambda path: write(path, b"\xff")])
def test_refusals_leak_no_descriptor(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "keyring"
    make(path)
    before = os.listdir("/proc/self/fd")
    for _ in range(10):
        refusal(lambda: files.read_text(str(path)))

    assert os.listdir("/proc/self/fd") == before


def test_identity(tmp_path: Path) -> None:
    """A command gives the file a new inode; a writer in place keeps it and changes the rest."""
    path = tmp_path / "keyring"
    assert files.identity(str(path)) == (errno.ENOENT,)
    create(path)
    first = files.identity(str(path))
    assert files.identity(str(path)) == first
    replace(path)
    second = files.identity(str(path))
    assert second[1] != first[1]
    with path.open("a") as file:
        file.write("more")
    third = files.identity(str(path))
    assert (third[1] == second[1], third == second) == (True, False)


# Named pipes


@contextmanager
def pipe_with(path: Path, *pieces: str, pause: float = 0.0) -> Iterator[None]:
    """A named pipe and a program that writes `pieces` to its first reader."""
    os.mkfifo(path, 0o600)

    def serve() -> None:
        with path.open("w") as pipe:
            for piece in pieces:
                pipe.write(piece)
                pipe.flush()
                time.sleep(pause)

    program = threading.Thread(target=serve)
    program.start()
    try:
        yield
    finally:
        program.join()


def test_named_pipe(tmp_path: Path) -> None:
    """1Password writes `.env` this way, possibly in pieces and beyond a pipe's capacity."""
    path = tmp_path / ".env"
    filler = "#" * 100_000
    with pipe_with(path, "A=1\n", filler, "\nB=2\n", pause=0.1):
        before = files.identity(str(path))
        assert files.read_text(str(path)) == f"A=1\n{filler}\nB=2\n"
        assert files.identity(str(path)) == before, "an app that follows it would ask the program again and again"


def test_named_pipe_as_a_key_file(tmp_path: Path) -> None:
    path = tmp_path / "keyring"
    with pipe_with(path, f"{ONE}\n"):
        assert files.read_key_file(str(path)) == [ONE]


@pytest.mark.slow
def test_named_pipe_without_a_program(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    os.mkfifo(path, 0o600)
    start = time.monotonic()

    assert refusal(lambda: files.read_text(str(path))) == (
        f"cannot read {path}: no program wrote to this named pipe within 2 seconds"
    )
    assert time.monotonic() - start > 1.9


def test_named_pipe_with_a_shorter_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PIPE_WAIT", 0.1)
    path = tmp_path / ".env"
    os.mkfifo(path, 0o600)
    start = time.monotonic()

    assert refusal(lambda: files.read_text(str(path))) == (
        f"cannot read {path}: no program wrote to this named pipe within 0.1 seconds"
    )
    assert time.monotonic() - start >= 0.1


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1])
def test_large_named_pipe(tmp_path: Path, size: int) -> None:
    """A pipe has the same limit as a file, and the program that writes it is not left waiting."""
    path = tmp_path / ".env"
    with pipe_with(path, "#" * size):
        if size > 1 << 20:
            assert refusal(lambda: files.read_text(str(path))) == f"cannot read {path}: larger than 1048576 bytes"
        else:
            assert len(files.read_text(str(path))) == size


def test_named_pipe_that_others_can_write(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    os.mkfifo(path)
    path.chmod(0o622)

    assert refusal(lambda: files.read_text(str(path))).endswith(f"\nhint: chmod go-w {path}")


# Who could have written it

READS = [files.read_text, files.read_key_file]


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("private", [0o400, 0o440, 0o600, 0o640, 0o644])
def test_file_that_others_cannot_write(tmp_path: Path, read: Callable[[str], object], private: int) -> None:
    assert read(write(tmp_path / "keyring", ONE, private))


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("public", [0o602, 0o620, 0o622, 0o666, 0o777])
def test_file_that_others_can_write(tmp_path: Path, read: Callable[[str], object], public: int) -> None:
    path = tmp_path / "the app's keyring"
    write(path, ONE, public)
    start, _, command = refusal(lambda: read(str(path))).partition("\nhint: ")

    assert start == f"cannot read {path}: other users can write to it"
    subprocess.run(shlex.split(command), check=True)
    assert read(str(path))


@pytest.mark.parametrize("shared", [0o755, 0o775, 0o757, 0o777, 0o1777])
@pytest.mark.parametrize("where", ["file", "folder", "chain"])
def test_link_in_a_shared_folder(tmp_path: Path, shared: int, where: str) -> None:
    safe, odd = tmp_path / "safe", tmp_path / "odd"
    safe.mkdir()
    odd.mkdir()
    write(safe / "keyring", ONE)
    (odd / "link").symlink_to(safe if where == "folder" else safe / "keyring")
    (tmp_path / "start").symlink_to("odd/link")
    odd.chmod(shared)
    path = {"file": odd / "link", "folder": odd / "link" / "keyring", "chain": tmp_path / "start"}[where]
    if shared == 0o755:
        assert files.read_key_file(str(path)) == [ONE]
        assert os.path.samefile(files.resolve(str(path)), safe / "keyring")
        return

    for call in (*READS, files.resolve):
        assert refusal(partial(call, str(path))) == (
            f"cannot use {odd / 'link' if where == 'chain' else path}: {odd / 'link'} is a symbolic link in a"
            " folder that other users can write to\nhint: name the file that it leads to instead"
        )
    assert files.read_key_file(str(safe / "keyring")) == [ONE]


@as_root
@pytest.mark.parametrize(
    ("shared_mode", "owner", "user", "accepted"),
    [
        (0o1777, STRANGER, READER, False),
        (0o1777, STRANGER, 0, True),  # root trusts the folder's owner
        (0o777, STRANGER, READER, False),
        (0o1777, READER, READER, True),
        (0o1777, 0, READER, True),
        (0o755, STRANGER, READER, True),
        (0o775, STRANGER, READER, True),  # as /usr/local on Debian: the group is trusted
    ],
)
@pytest.mark.parametrize("below", ["app", "app/keys"])
def test_folder_of_another_user(
    folder: Path, shared_mode: int, owner: int, user: int, accepted: bool, below: str
) -> None:
    """In /tmp, another user can make the whole folder, with a key that they know."""
    path = folder / below / "keyring"
    path.parent.mkdir(parents=True)
    write(path, ONE, 0o644)
    for each in (path, *path.relative_to(folder).parents):
        os.chown(folder / each, owner, -1)
    os.chown(folder, 0, -1)
    folder.chmod(shared_mode)

    told = attempt(lambda: files.read_key_file(str(path)), user)

    reason = f"cannot use {path}: {folder / 'app'} belongs to another user, in a folder that all users can write to"
    assert told.partition("\n")[0] == ("" if accepted else reason)


@as_root
def test_link_to_a_file_of_another_user(folder: Path) -> None:
    """The place of the file counts, not that of the link."""
    shared, link = folder / "shared", folder / "link"
    shared.mkdir()
    write(shared / "keyring", ONE, 0o644)
    os.chown(shared / "keyring", STRANGER, -1)
    shared.chmod(0o1777)
    link.symlink_to(shared / "keyring")

    assert attempt(lambda: files.read_key_file(str(link)), READER).startswith(
        f"cannot use {shared / 'keyring'}: it belongs to another user, in a folder that other users can write to\n"
    )


@as_root
@pytest.mark.parametrize(
    ("folder_mode", "folder_owner", "file_owner", "user", "accepted"),
    [
        (0o755, 0, STRANGER, 0, True),
        (0o755, OWNER, OWNER, READER, True),
        (0o777, 0, STRANGER, 0, False),
        (0o1777, 0, STRANGER, 0, False),
        (0o1777, 0, STRANGER, READER, False),
        (0o1777, 0, READER, READER, True),
        (0o1777, 0, 0, READER, True),
        (0o775, OWNER, OWNER, READER, False),
        (0o775, OWNER, OWNER, 0, True),
        (0o775, OWNER, STRANGER, 0, False),
    ],
)
def test_key_file_of_another_user(
    folder: Path, folder_mode: int, folder_owner: int, file_owner: int, user: int, accepted: bool
) -> None:
    path = folder / "keyring"
    write(path, ONE, 0o644)
    os.chown(path, file_owner, -1)
    os.chown(folder, folder_owner, -1)
    folder.chmod(folder_mode)

    def read() -> None:
        files.read_key_file(str(path))

    told = attempt(read, user)
    if accepted:
        assert told == ""
        return
    assert told.startswith(f"cannot use {path}: it belongs to another user, in a folder that")
    assert told.endswith("\nhint: if you trust its contents, move it to a folder that only its owner can write to")
    if user == 0:
        assert "cannot use" in refusal(lambda: replace(path))
        assert path.read_text() == ONE


@as_root
def test_read_only_mount(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can have put a file there."""
    path = folder / "keyring"
    write(path, ONE)
    os.chown(path, STRANGER, -1)
    folder.chmod(0o777)
    assert "belongs to another user" in refusal(lambda: files.read_key_file(str(path)))
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))

    assert files.read_key_file(str(path)) == [ONE]


@pytest.mark.slow
@as_root
@linux
def test_secret_volume(folder: Path) -> None:
    """Kubernetes mounts a Secret as a read-only folder with mode 1777, in which each file is a link."""
    volume = folder / "volume"
    (volume / "..2026").mkdir(parents=True)
    write(volume / "..2026" / "keyring", ONE, 0o640)
    (volume / "..data").symlink_to("..2026")
    (volume / "keyring").symlink_to("..data/keyring")
    volume.chmod(0o1777)
    path = str(volume / "keyring")
    assert "symbolic link" in refusal(lambda: files.read_key_file(path))

    read_only = ["mount", "-o", "bind,ro", str(volume), str(volume)]
    if subprocess.run(read_only, check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount anything")
    try:
        assert files.read_key_file(path) == [ONE]
    finally:
        subprocess.run(["umount", volume], check=True)


@as_root
@pytest.mark.parametrize(
    ("owner", "hint"),
    [
        (0, "chmod u+wx {folder}"),
        (OWNER, "run the same command as '#12345', for example with sudo -u '#12345'"),
        (1, "run the same command as daemon, for example with sudo -u daemon"),
    ],
)
def test_hint_for_a_folder_of(folder: Path, owner: int, hint: str) -> None:
    """Whose folder it is decides what helps."""
    os.chown(folder, owner, -1)
    path = str(folder / "keyring")
    with pytest.raises(files.FileError) as caught, files.locked(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    reason = f"cannot write {path}: permission denied (file unchanged)"
    assert str(caught.value) == f"{reason}\nhint: {hint.format(folder=shlex.quote(str(folder)))}"


WINDOWS = """
import sys
sys.platform = "win32"
sys.modules["fcntl"] = None
from secure.keys import files

assert files.create("keyring", "one\\n") and not files.create("keyring", "two\\n")
with files.locked("keyring"):
    files.replace("keyring", "three\\r\\n")
print(files.read_key_file("keyring"))
"""


@pytest.mark.slow
def test_windows_branches(tmp_path: Path) -> None:
    """Without POSIX's locks, owners and modes, a file is created once, replaced and read."""
    path = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", WINDOWS]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": path}, check=False)

    assert (done.stderr, done.stdout) == ("", "['three']\n")
    assert names(tmp_path) == {"keyring"}
