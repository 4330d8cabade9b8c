"""Files that hold keys: read with suspicion, written whole or not at all.

Under a lock, the new text goes to a new file beside the old one, with its owner and mode, is flushed
and renamed over it, and the folder is flushed: a kill at any moment leaves the old text or the new.
What a kill can leave beside it ends in TEMPORARY, which `.gitignore` names; the next change removes it.
"""

import os
import shlex
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from .minted import new_text

TEMPORARY = ".fsk-tmp"
_PRIVATE = 0o600
_LARGEST = 1 << 20
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)


class StoreError(Exception):
    """A file that cannot be used as it must be. The message is one line and names the file."""


def leaked_hashes() -> bytes:
    """The hashes of the keys that are public, as `key.judge` takes them. Raises StoreError."""
    return _read(os.path.join(os.path.dirname(os.path.abspath(__file__)), "leaked.bin"))[0]


def first_env(now: float) -> str:
    """The text of a new project's `.env`, with a fresh key that signs from `now` (epoch seconds)."""
    return (
        "# This machine's settings. Git ignores this file: never commit it, never share it.\n"
        "# .env.example explains every variable, docs/secret-key.md the life of the key.\n"
        f"APP_ENV=development\nSECRET_KEY={new_text(int(now))}\n"
    )


def is_absent(path: str) -> bool:
    """Whether nothing has this name; False where that cannot be seen, and reading it then says why."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def read_text(path: str) -> str:
    """The text of a file that may hold keys, without a byte order mark.

    Raises StoreError where it is no readable, regular UTF-8 file of a sane size.
    """
    return _decoded(path, _read(path)[0])


def read_key_file(path: str) -> list[str]:
    """The lines of a key file: one key a line, newest first; one newline may end the last line.

    Raises StoreError as `read_text` does, and where somebody else could write the file.
    """
    content, mode = _read(path)
    text = _decoded(path, content)
    if os.name == "posix" and mode & _WRITABLE_BY_OTHERS:
        raise StoreError(f"{path} can be written by others: run chmod go-w {shlex.quote(path)}")
    if not text.strip():
        remedy = "write one key a line, the newest first; for a new one run: flask secret-key revoke"
        raise StoreError(f"{path} is empty: {remedy}")
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")


def key_file_text(keys: Iterable[str]) -> str:
    """The text of a key file with `keys`, newest first."""
    return "".join(f"{key}\n" for key in keys)


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock under which `path` is created or replaced; nobody waits for it.

    Raises StoreError where another process holds it, and for any error of the system meanwhile:
    the file is then as it was.
    """
    try:
        with _folder_lock(os.path.dirname(path) or "."):
            with suppress(FileNotFoundError):
                os.unlink(path + TEMPORARY)  # left by a killed process: its lock is ours now
            yield
    except OSError as error:
        folder = os.path.dirname(path) or "."
        if not os.path.lexists(folder):
            command = f"mkdir -p -m 700 {shlex.quote(folder)}"
            raise StoreError(f"{path}: its folder is not there; run: {command}") from None
        raise StoreError(f"{path} cannot be changed: {_reason(error)}; it is as it was") from None


def create(path: str, text: str) -> bool:
    """Make a file that its owner alone can read, from its first byte; False where the name exists.

    Call it under `locked`. The name appears with the whole text behind it. A link is not followed.
    """
    with _new_file(path + TEMPORARY, text) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            if os.path.lexists(path):
                return False
            os.rename(temporary, path)
    _flush_folder(path)
    return True


def replace(path: str, text: str) -> None:
    """Put `text` in place of a regular file's, keeping its owner and mode. Call it under `locked`."""
    with _new_file(path + TEMPORARY, text, os.lstat(path)) as temporary:
        os.replace(temporary, path)
    _flush_folder(path)


@contextmanager
def _new_file(path: str, text: str, like: os.stat_result | None = None) -> Iterator[str]:
    """A flushed new file for the block to move; removed after it where it is still there."""
    if like and not stat.S_ISREG(like.st_mode):
        raise OSError(None, "not a regular file")
    try:
        with os.fdopen(os.open(path, _NEW, _PRIVATE), "wb") as file:
            if sys.platform != "win32":  # pragma: no branch: the tests' platform is POSIX
                _set_owner_and_mode(file.fileno(), like)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        with suppress(OSError):  # what stays is what a kill leaves, and the change is made or is not
            os.unlink(path)


if sys.platform != "win32":
    import fcntl

    def _set_owner_and_mode(descriptor: int, like: os.stat_result | None) -> None:
        mine = os.fstat(descriptor)
        if like and (like.st_uid, like.st_gid) != (mine.st_uid, mine.st_gid):
            os.fchown(descriptor, like.st_uid, like.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(like.st_mode) if like else _PRIVATE)

    @contextmanager
    def _folder_lock(folder: str) -> Iterator[None]:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise StoreError(f"{folder} is locked by another command: try again") from None
        finally:
            os.close(descriptor)

    def _flush_folder(path: str) -> None:
        try:
            descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            reason = _reason(error)
            raise StoreError(f"{path} is changed, but its folder cannot be flushed: {reason}") from None

else:  # pragma: no cover: Windows has no flock, and no way to flush a folder

    @contextmanager
    def _folder_lock(folder: str) -> Iterator[None]:
        yield

    def _flush_folder(path: str) -> None:
        pass


def _read(path: str) -> tuple[bytes, int]:
    """The content and the mode of one and the same file."""
    try:
        with open(path, "rb", opener=_open_to_read) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise OSError(None, "not a regular file")
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise OSError(None, f"larger than {_LARGEST} bytes")
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {_reason(error)}") from None
    return content, mode


def _open_to_read(path: str, flags: int) -> int:
    # O_NONBLOCK: a FIFO in the file's place must not hang the start
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _decoded(path: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise StoreError(f"{path} is not UTF-8 text: save it as UTF-8") from None


def _reason(error: OSError) -> str:
    return (error.strerror or "unknown error").lower()
