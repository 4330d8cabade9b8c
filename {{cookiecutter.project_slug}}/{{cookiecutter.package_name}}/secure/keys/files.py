"""Files with keys: a read checks who could have written the file, and a change replaces it whole or not at all.

A change holds a lock. It writes the new text to a new file beside the old one, copies owner, access control list and
mode, flushes the new file, renames it over the old one, and flushes the folder. So a kill at any moment leaves the old
text or the new. It can also leave a file whose name ends in TEMPORARY. git ignores it, and the next change removes it.
"""

import errno
import os
import re
import shlex
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache

from .key_format import generate_text
from .text import message

if sys.platform != "win32":
    import fcntl
    import pwd
    import select

TEMPORARY = ".fsk-tmp"
NEW_ENV = """\
# The settings of this machine, with its secret key. Do not commit or share this file.
# Show the state of the key with: flask secret-key status
APP_ENV=development
"""
PEM = "-----BEGIN"
"""What begins a certificate, or a key of TLS or SSH (RFC 7468)."""
_ACL = "system.posix_acl_access"
_LARGEST, _PIPE_WAIT = 1 << 20, 2  # bytes, seconds
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_CAREFUL = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # a named pipe must not hang us
_MODELESS = ("9p", "cifs", "drvfs", "exfat", "fuse", "msdos", "ntfs", "smb", "vboxsf", "vfat")
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system answers to a call that it does not have (CIFS, 9p, sshfs, WSL, NFS)."""


class FileError(Exception):
    """A file that cannot be read or changed safely. The message names the file and may end in a hint."""


@cache
def leaked_hashes() -> bytes:
    """Return the hashes of the public keys, as `key.validate_key` takes them. Raises FileError."""
    return _read(os.path.join(os.path.dirname(os.path.abspath(__file__)), "leaked.bin"), trusted=True)


def first_env(now: float) -> str:
    """Return the text of a new project's `.env`, with a new key that signs from `now` (epoch seconds)."""
    return f"{NEW_ENV}SECRET_KEY={generate_text(int(now))}\n"


def is_absent(path: str) -> bool:
    """Whether there is no file at `path`. False if the system cannot tell; reading the file then gives the reason."""
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno == errno.ENOENT
    return False


def identity(path: str) -> tuple[int, ...]:
    """Return numbers that change with every change of a file; only the error's number if it cannot be seen.

    [1] is the inode. If only the others change, someone writes the file in place. No command does that.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    times = () if stat.S_ISFIFO(found.st_mode) else (found.st_mtime_ns, found.st_ctime_ns)  # a pipe is read once
    return found.st_dev, found.st_ino, *times, found.st_size


def resolve(path: str) -> str:
    """Return the path that the symbolic link `path` leads to, or `path` if it is no link.

    Raises FileError for a link in a folder that other users can write to: one of them could have made it.
    """
    for _ in range(40):  # as many as Linux follows; opening the next link reports the loop
        part = path
        while part != os.path.dirname(part):
            if os.path.islink(part) and _is_shared(part):
                reason = f"{part} is a symbolic link in a folder that other users can write to"
                raise _refusal("use", path, reason, "name the file that it leads to instead")
            part = os.path.dirname(part)
        if not os.path.islink(path):
            break
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    return path


def read_text(path: str) -> str:
    """Return the UTF-8 text of a file of at most 1 MiB that may hold keys, without a byte order mark.

    A named pipe counts as a file if a program writes to it within two seconds. Raises FileError, also if another user
    could have written the file or put it there.
    """
    text = _read(path).decode("utf-8-sig", errors="surrogateescape")
    if re.search("[\0\udc80-\udcff]", text):
        reason = "not UTF-8 text, or it has NUL characters"
        raise _refusal("read", path, reason, "save the file as UTF-8, without changing its contents")
    return text


def read_key_file(path: str) -> list[str]:
    """Return the lines of a key file: one key per line, newest first; any line ending, blank lines as "".

    Raises FileError as `read_text` does, for a comment, because the next change would lose it, and for a certificate:
    its lines look random and are public.
    """
    text = read_text(path).rstrip(" \t\r\n")
    if PEM in text:
        hint = "set SECRET_KEY_FILE to a file of its own for this app"
        raise _refusal("read", path, "a certificate or a key of another program", hint)
    if not text:
        raise _refusal("read", path, "empty", "put the keys back, one per line, newest first")
    lines = [line.strip(" \t") for line in re.split(r"\r\n|\r|\n", text)]
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            hint = f"remove line {number}; a key file has only keys"
            raise _refusal("read", path, f"line {number} is a comment", hint)
    return lines


@contextmanager
def locked(path: str, wait: float = 0) -> Iterator[None]:
    """Hold the lock for a change of `path`; wait for it for at most `wait` seconds.

    The lock is on a file in the same folder that only its owner can open, so only a user who can write to the folder
    can hold it. Raises FileError if another process holds the lock, and for any system error inside the block.
    """
    name, give_up, lock = f"{path}.lock{TEMPORARY}", time.monotonic() + wait, None
    try:
        while sys.platform != "win32" and (lock := _try_lock(name)) is None:
            if time.monotonic() >= give_up:
                raise _refusal("write", path, *_holder(name))
            time.sleep(0.05)
        with suppress(FileNotFoundError):  # left by a killed process: its lock is ours now
            os.unlink(path + TEMPORARY)
        yield
    except OSError as error:
        raise _refusal("write", path, f"{_reason(error)} (file unchanged)", _hint(error, path)) from None
    finally:
        if lock is not None:
            with suppress(OSError):
                os.unlink(name)
            os.close(lock)


def create(path: str, text: str) -> bool:
    """Make a file that only its owner can read; False if the name exists. Call it under `locked`.

    The file appears with its whole text at once. A link is not followed.
    """
    with _new_file(path, text) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _UNSUPPORTED | {errno.EPERM}:
                raise
            if os.path.lexists(path):  # a file system without hard links
                return False
            os.rename(temporary, path)
    _flush_folder(path)
    return True


def replace(path: str, text: str) -> None:
    """Replace a regular file's text, keeping its owner, mode and other attributes. Call it under `locked`.

    Raises FileError if one of them cannot be kept: nobody gains read access.
    """
    found = os.lstat(path)
    if stat.S_ISFIFO(found.st_mode):
        hint = "use --print, and store what it prints in the program that writes the pipe"
        raise _refusal("write", path, "a named pipe (file unchanged)", hint)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(None, "not a regular file")
    _check_owner(path, found)
    with _new_file(path, text, found) as temporary:
        os.replace(temporary, path)
    _flush_folder(path)


@contextmanager
def _new_file(path: str, text: str, like: os.stat_result | None = None) -> Iterator[str]:
    """A flushed new file for the block to move; removed after it if it is still there."""
    temporary = path + TEMPORARY
    try:
        new = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CAREFUL, 0o600)
        with os.fdopen(new, "wb") as file:
            _set_access(new, path, like)
            file.write(text.encode())
            file.flush()
            with _tolerated():
                os.fsync(new)
        yield temporary
    finally:
        with suppress(OSError):  # what stays is what a kill leaves, and the change is made or is not
            os.unlink(temporary)


def _set_access(new: int, path: str, like: os.stat_result | None) -> None:
    """Give the new file the owner, attributes and mode of `path`; those of a private file if `like` is None.

    In this order nobody gains access at any moment. The group bits of a file with an access control list (ACL) are the
    list's mask: without the list, chmod would grant them to the group.
    """
    if sys.platform == "win32":
        return
    mode = stat.S_IMODE(like.st_mode) if like else 0o600
    try:
        mine = os.fstat(new)
        if like and (like.st_uid, like.st_gid) != (mine.st_uid, mine.st_gid):
            os.fchown(new, like.st_uid, like.st_gid)
        if sys.platform == "linux":
            kept = given = dict[str, bytes]()
            with _tolerated():
                given = {name: os.getxattr(new, name) for name in os.listxattr(new)}
                kept = {name: os.getxattr(path, name) for name in os.listxattr(path)} if like else {}
            if _ACL in given and _ACL not in kept:  # from the folder's default list
                os.removexattr(new, _ACL)
            for name, value in kept.items() - given.items():
                with nullcontext() if name == _ACL else _tolerated():
                    os.setxattr(new, name, value)
        if stat.S_IMODE(os.fstat(new).st_mode) != mode:
            with _tolerated() if like else _tolerated(errno.EPERM):
                os.fchmod(new, mode)
    except PermissionError:
        hint = _run_as(0 if not like or os.geteuid() == like.st_uid else like.st_uid)
        reason = "you cannot keep its owner, group, mode or attributes (file unchanged)"
        raise _refusal("write", path, reason, hint) from None
    if like and os.fstat(new).st_mode & ~mode & 0o777:
        raise OSError(None, "the file system would let more users read it")


def _flush_folder(path: str) -> None:
    if sys.platform == "win32":
        return
    try:
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        try:
            with _tolerated():
                os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise FileError(f"{path} is changed, but its folder cannot be flushed: {_reason(error)}") from None


def _try_lock(name: str) -> int | None:
    """Return the descriptor of the lock file, locked; None if another process or user has it."""
    if sys.platform == "win32":
        return None
    try:
        lock = os.open(name, os.O_RDWR | os.O_CREAT | _CAREFUL, 0o600)
    except PermissionError:
        if os.path.lexists(name):
            return None
        raise
    with suppress(BlockingIOError, FileNotFoundError):  # its holder has just removed it
        with _tolerated(errno.ENOLCK):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = os.fstat(lock)
        if mine.st_uid in (0, os.geteuid()) and os.path.samestat(mine, os.lstat(name)):
            with suppress(OSError):  # on a full disk nobody can see who holds it
                os.write(lock, f"{os.getpid():<20}".encode())
            return lock
    os.close(lock)
    return None


def _holder(lock: str) -> tuple[str, str]:
    """Return who holds a lock, and what to do about it."""
    reason, hint = f"{lock} is in use", f"if no other command is running: rm -f {shlex.quote(lock)}"
    if sys.platform != "win32":
        me = os.geteuid()
        with suppress(OSError, ValueError):
            owner = os.lstat(lock).st_uid
            sticky = os.stat(os.path.dirname(lock) or ".").st_mode & stat.S_ISVTX
            if me and sticky and owner not in (0, me):  # as in /tmp: only they can remove it
                return reason, "move the file to a folder that only its owner can write to"
            with open(lock, "rb", opener=_open_to_read) as file:
                process = int(file.read(20))
            if process > 1 and owner in (0, me):  # another user could name any process
                reason, hint = f"process {process} is changing it", f"try again; if that process hangs: kill {process}"
    return reason, hint


def _read(path: str, trusted: bool = False) -> bytes:
    try:
        target = resolve(path)
        with open(target, "rb", opener=_open_to_read) as file:
            found = os.fstat(file.fileno())
            is_pipe = stat.S_ISFIFO(found.st_mode)
            if not stat.S_ISREG(found.st_mode) and not is_pipe:
                raise OSError(None, "not a regular file")
            if os.name == "posix" and not trusted:
                _check_owner(target, found)
                if found.st_mode & _WRITABLE_BY_OTHERS:
                    hint = _mount_hint(found) or f"chmod go-w {shlex.quote(path)}"
                    raise _refusal("read", path, "other users can write to it", hint)
            content = _read_pipe(file.fileno()) if is_pipe else file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise OSError(None, f"larger than {_LARGEST} bytes")
        return content
    except OSError as error:
        raise _refusal("read", path, _reason(error)) from None


def _open_to_read(path: str, flags: int) -> int:
    return os.open(path, flags | _CAREFUL)  # `resolve` has followed the links


def _read_pipe(pipe: int) -> bytes:
    """Return what a program writes into a named pipe, as 1Password does for `.env`."""
    content = b""
    if sys.platform != "win32":
        poll, end = select.poll(), time.monotonic() + _PIPE_WAIT
        poll.register(pipe, select.POLLIN)
        while len(content) <= _LARGEST:
            if not poll.poll(1000 * max(0, end - time.monotonic())):
                raise OSError(None, f"no program wrote to this named pipe within {_PIPE_WAIT} seconds")
            if not (piece := os.read(pipe, 1 << 16)):
                break
            content += piece
    return content


def _is_shared(path: str, writable: int = _WRITABLE_BY_OTHERS) -> bool:
    """Whether other users can replace `path`; not on a read-only mount (Secrets of Kubernetes)."""
    folder = os.path.dirname(path) or "."
    if sys.platform == "win32" or not os.stat(folder).st_mode & writable:
        return False
    return not os.statvfs(folder).f_flag & os.ST_RDONLY


def _check_owner(path: str, found: os.stat_result) -> None:
    """Raise FileError for a file that another user could have put there. Root trusts the folder's owner."""
    if sys.platform == "win32":
        return
    me, folder = os.geteuid(), os.path.dirname(path) or "."
    if _is_shared(path) and found.st_uid not in (0, me or os.stat(folder).st_uid):
        reason = "it belongs to another user, in a folder that other users can write to"
        hint = "if you trust its contents, move it to a folder that only its owner can write to"
        raise _refusal("use", path, reason, hint)
    folder = os.path.realpath(folder)
    while me and folder != os.path.dirname(folder):  # in /tmp, everybody can make a folder with any name
        if _is_shared(folder, stat.S_IWOTH) and os.stat(folder).st_uid not in (0, me):
            reason = f"{folder} belongs to another user, in a folder that all users can write to"
            hint = "if you trust its contents, move it to a folder that is not in such a one"
            raise _refusal("use", path, reason, hint)
        folder = os.path.dirname(folder)


def _mount_hint(found: os.stat_result) -> str:
    """Return what to do on a file system that shows 0777 whatever chmod does; "" on any other."""
    device = f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}"
    with suppress(OSError), open("/proc/self/mountinfo", errors="replace") as mounts:
        for mount, _, kind in (line.partition(" - ") for line in mounts):
            if stat.S_IMODE(found.st_mode) == 0o777 and mount.split()[2] == device and kind.startswith(_MODELESS):
                return f"mount {mount.split()[4]} with the option umask=077 (WSL: metadata,umask=077)"
    return ""


def _hint(error: OSError, path: str) -> str:
    """Return what to do about an error while `path` was changed; "" if that depends."""
    folder = os.path.dirname(path) or "."
    if not os.path.lexists(folder):
        return f"mkdir -p -m 700 {shlex.quote(folder)}"
    if error.errno == errno.EACCES and sys.platform != "win32":
        owner = os.lstat(folder).st_uid
        return f"chmod u+wx {shlex.quote(folder)}" if owner == os.geteuid() else _run_as(owner)
    return "mount the folder of the file, not the file alone" if error.errno == errno.EBUSY else ""


def _run_as(user: int) -> str:
    name = f"'#{user}'"
    if sys.platform != "win32":
        with suppress(KeyError):
            name = pwd.getpwuid(user).pw_name
    return f"run the same command as {name}, for example with sudo -u {name}"


@contextmanager
def _tolerated(*more: int) -> Iterator[None]:
    """Go on without what the file system does not support."""
    try:
        yield
    except OSError as error:
        if error.errno not in _UNSUPPORTED.union(more):
            raise


def _refusal(verb: str, path: str, reason: str, hint: str = "") -> FileError:
    return FileError(message(f"cannot {verb} {path}", reason, hint))


def _reason(error: OSError) -> str:
    return (error.strerror or "unknown error").lower()
