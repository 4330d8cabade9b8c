"""A command that is killed at any system call, or gets an error, leaves the whole old keyring or the whole new one."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path

import pytest
from baking import Bake, Result

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")

OTHER_OWNER = 12345
"""A user and group that root gives a file; it must stay theirs."""

KEYRING = "keys/keyring"
LEFT = (".fsk-tmp", ".lock.fsk-tmp")
"""The suffixes of what a kill can leave beside a file: the new text, and the lock."""
DOTENV = "# stays\nAPP_ENV=development\nSECRET_KEY={key}\nMAIL_HOST=mail.example # stays, too\n"
NO_KEY = DOTENV.replace("{key}", "")


@dataclass(frozen=True)
class Case:
    """A command, the file that it changes, and the file's text before (None: there is no file)."""

    name: str
    arguments: tuple[str, ...]
    file: str
    before: str | None

    @property
    def variables(self) -> dict[str, str]:
        """The variables with which the command finds the file."""
        return {"SECRET_KEY_FILE": KEYRING} if self.file == KEYRING else {}

    @property
    def shell(self) -> str:
        """The command as a line of shell."""
        settings = [f"{name}={value}" for name, value in self.variables.items()]
        return " ".join((*settings, ".venv/bin/flask", "secret-key", *self.arguments))


ROTATE_DOTENV = Case("rotate, .env", ("rotate",), ".env", DOTENV)
ROTATE_FILE = Case("rotate, key file", ("rotate",), KEYRING, "{key}\n")
REVOKE_DOTENV = Case("revoke, .env", ("revoke", "--yes"), ".env", DOTENV)
REVOKE_FILE = Case("revoke, key file", ("revoke", "--yes"), KEYRING, "{key}\n")
INIT_DOTENV = Case("init, no .env", ("init",), ".env", None)
INIT_NO_KEY = Case("init, .env without a key", ("init",), ".env", NO_KEY)
INIT_FILE = Case("init, no key file", ("init",), KEYRING, None)

CHANGES = [ROTATE_DOTENV, ROTATE_FILE, REVOKE_DOTENV, REVOKE_FILE, INIT_NO_KEY]
CASES = [*CHANGES, INIT_DOTENV, INIT_FILE]

EVERY_CALL = [ROTATE_DOTENV, ROTATE_FILE]
"""The cases that are killed at every system call."""
CHANGING = re.compile("open|write|sync|flock|chmod|chown|xattr|link|rename")
"""The calls that can change a file; at these the other cases are killed. Between two of them nothing changes."""

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_change = pytest.mark.parametrize("case", CHANGES, ids=lambda case: case.name)

FAULTS = [
    ("openat", "EMFILE"),
    ("openat", "EROFS"),
    ("flock", "EIO"),
    ("/stat", "EIO"),
    ("read", "EIO"),
    ("/xattr", "EIO"),
    ("/xattr", "EPERM"),
    ("/^fchmod", "EIO"),
    ("/^fchmod", "EPERM"),
    ("/^fchown", "EPERM"),
    ("write", "ENOSPC"),
    ("write", "EIO"),
    ("fsync", "EIO"),
    ("/^link", "EMLINK"),
    ("/^rename", "EPERM"),
    ("/^rename", "EROFS"),
    ("/^unlink", "EROFS"),
]
"""Errors of the system: a call (or a pattern, where its name differs between machines), and what it returns."""

CHANGED_OR_NOT = re.compile(
    r"(.* now has one key, .*\n)?Error: (.* is changed, but its folder cannot be flushed: )?.*\n(hint: .*\n)?"
)
"""A message; one of the first two parts is there if the file is changed."""

UNSUPPORTED = [
    ("flock", "ENOLCK"),
    ("flock", "EOPNOTSUPP"),
    ("fsync", "EINVAL"),
    ("/xattr", "EOPNOTSUPP"),
    ("/^link", "EPERM"),
    ("/^link", "EOPNOTSUPP"),
]
"""What CIFS, 9p, sshfs and NFS answer to calls that they do not have: the command works without them."""


@dataclass(frozen=True)
class Run:
    """How a command ended (negative: the signal), what it printed, and what strace saw."""

    status: int
    output: str
    trace: str


class Lab:
    """A project under git, and a warm interpreter that runs its commands."""

    def __init__(self, bake: Bake, server: "subprocess.Popen[str]") -> None:
        self.bake = bake
        self._server = server
        self._key = bake.env_file()["SECRET_KEY"]
        bake.run("git", "add", "--all")
        bake.run("git", "commit", "--quiet", "--message", "The project")
        (bake.path / ".git" / "info" / "exclude").write_text(f"/{KEYRING}\n")
        (bake.path / KEYRING).parent.mkdir()

    def prepare(self, case: Case) -> Path:
        """Write the case's file as it is before the command; remove everything else."""
        for name, suffix in product((".env", KEYRING), ("", *LEFT)):
            (self.bake.path / f"{name}{suffix}").unlink(missing_ok=True)
        path = self.bake.path / case.file
        if case.before is not None:
            path.write_text(case.before.format(key=self._key))
            path.chmod(0o640)
            if os.geteuid() == 0:
                os.chown(path, OTHER_OWNER, OTHER_OWNER)
        return path

    def run(self, case: Case, *strace: str) -> Run:
        """Run the case's command; under strace, if there are options for it."""
        return self._ask(case, case.arguments, strace)

    def revoke(self, case: Case) -> Run:
        """Replace all keys in the case's file."""
        return self._ask(case, REVOKE_FILE.arguments, ())

    def is_valid(self, case: Case) -> bool:
        """Whether an app would start with the keyring."""
        return self._ask(case, ("status",), ()).status == 0

    def _ask(self, case: Case, arguments: tuple[str, ...], strace: tuple[str, ...]) -> Run:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps([arguments, case.variables, strace]), file=self._server.stdin, flush=True)
        return Run(**json.loads(self._server.stdout.readline()))

    def flask(self, case: Case, *arguments: str, under: tuple[str, ...] = ()) -> Result:
        """Run the real command line, which may fail; `under` is a command that runs it."""
        settings = [f"{name}={value}" for name, value in case.variables.items()]
        command = (*under, self.bake.program("flask"), "secret-key", *arguments)
        return self.bake.run("env", *settings, *command, check=False)

    def temporary_files(self, case: Case) -> dict[str, int]:
        """What is left beside the case's file: names and sizes."""
        return {path.name: path.stat().st_size for path in (self.bake.path / case.file).parent.glob("*.fsk-tmp")}

    def git_would_add(self) -> str:
        """Every change that git sees."""
        return self.bake.run("git", "status", "--porcelain", "--untracked-files=all").stdout


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, bake_into: Callable[..., Bake]) -> Iterator[Lab]:
    bake = bake_into(tmp_path_factory.mktemp("lab")).synced()
    server = (bake.program("python"), str(Path(__file__).parents[1] / "support" / "kill.py"), str(bake.package))
    with subprocess.Popen(
        server,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=bake.path,
        env=dict(bake.environment),
    ) as process:
        yield Lab(bake, process)


State = tuple[str, int, int, int] | None


def state(path: Path) -> State:
    """A file's text, mode and owner; None if there is no file."""
    if not path.exists():
        return None
    found = path.stat()
    return path.read_text("utf-8"), found.st_mode, found.st_uid, found.st_gid


def is_new(lab: Lab, case: Case, old: State) -> bool:
    """Whether the file is a whole new one; False if it is the old one. Fails for anything in between."""
    new = state(lab.bake.path / case.file)
    if new == old:
        return False
    assert new is not None, "the keyring is gone"
    assert lab.is_valid(case), "the keyring is damaged"
    assert new[1:] == (old[1:] if old else (0o100600, os.geteuid(), os.getegid()))
    assert new[0].count("stays") == (case.before or "").count("stays")
    return True


@each_case
def test_kill(lab: Lab, case: Case) -> None:
    """A kill at any system call leaves the old keyring or the new one; the next command works and cleans up."""
    lab.prepare(case)
    _, *calls = re.findall(r"^(\w+)\(", lab.run(case, "-e", "trace=all").trace, re.MULTILINE)
    if case not in EVERY_CALL:
        calls = [name for name in calls if CHANGING.search(name)]
    kills: dict[str, Counter[bool]] = {name: Counter() for name in calls}
    tried = set()
    for name, outcomes in kills.items():
        for nth in count(1):
            path = lab.prepare(case)
            old = state(path)
            run = lab.run(case, "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={nth}")
            if run.status != -signal.SIGKILL:
                assert run.status == 0, run.output
                break
            new = is_new(lab, case, old)
            outcomes[new] += 1
            left = lab.temporary_files(case)
            assert left.keys() <= {f"{path.name}{suffix}" for suffix in LEFT}
            if (new, *left.items()) in tried:  # the next command finds what it found before
                continue
            tried.add((new, *left.items()))
            assert lab.git_would_add() == ""
            again = lab.run(case)
            in_progress = new and "a rotation is in progress: " in again.output
            assert again.status == 0 or in_progress, again.output
            if lab.temporary_files(case):  # `init` had nothing to do
                assert lab.revoke(case).status == 0
            assert lab.temporary_files(case) == {}
    print(f"{case.name}: {len(tried)} states after {sum(n.total() for n in kills.values())} kills")
    print("\n".join(f"| {case.name} | {name} | {n[False]} | {n[True]} |" for name, n in kills.items()))
    assert all(sum(n[new] for n in kills.values()) for new in (False, True))


def injected(lab: Lab, case: Case, call: str, error: str) -> Iterator[tuple[Run, bool, str]]:
    """Have each system call of one kind fail in turn: the run, whether the file is new, and what happened.

    Only calls for the case's file, its folder, the new text and the lock fail.
    """
    for nth in count(1):
        path = lab.prepare(case)
        old = state(path)
        names = (path, path.parent, *(f"{path}{suffix}" for suffix in LEFT))
        only_here = [option for name in names for option in ("-P", str(name))]
        run = lab.run(case, *only_here, "-e", f"inject={call}:error={error}:when={nth}")
        if "(INJECTED)" not in run.trace:
            return
        what = f"{call} number {nth} fails with {error}:\n{run.trace[-3000:]}{run.output}"
        new = is_new(lab, case, old)
        if "unlink" not in call:
            assert f"{path.name}.fsk-tmp" not in lab.temporary_files(case), what
        assert lab.git_would_add() == "", what
        yield run, new, what


@each_case
def test_system_error(lab: Lab, case: Case) -> None:
    """An error of the system is shown as one message, which says whether the file is changed."""
    refused = 0
    for call, error in FAULTS:
        for run, new, what in injected(lab, case, call, error):
            if run.status:
                refused += 1
                told = CHANGED_OR_NOT.fullmatch(run.output)
                assert told, what
                assert new == any(told.groups()[:2]), what
            else:
                assert new, what
            assert new or lab.run(case).status == 0, what
            assert new or lab.temporary_files(case) == {}, what
    assert refused > 10


@each_case
@pytest.mark.parametrize(("call", "error"), UNSUPPORTED)
def test_unsupported(lab: Lab, case: Case, call: str, error: str) -> None:
    """A file system without locks, attributes, hard links or a flush of folders is good enough."""
    for run, new, what in injected(lab, case, call, error):
        assert (run.status, new) == (0, True), what


@each_case
def test_flush_order(lab: Lab, case: Case) -> None:
    """The text is on the disk before it has its name; the folder is flushed after."""
    path = lab.prepare(case)
    trace = lab.run(case, "-e", "trace=all").trace
    steps = re.findall(r"^(fsync|rename|link)\w*\((.*)\) +=", trace, re.MULTILINE)
    assert [call for call, _ in steps] == ["fsync", "rename" if case.before else "link", "fsync"]
    assert f"<{path}.fsk-tmp>" in steps[0][1]
    assert f'"{path}"' in steps[1][1]
    assert f"<{path.parent}>" in steps[2][1]


READ_ONLY = ("mount --bind . .", "mount -o remount,bind,ro .", "cd .")


def in_own_mounts(lab: Lab, *script: str) -> Result:
    """Run lines of shell that may mount anything: the mounts are private and end with the shell."""
    enter = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))
    if lab.bake.run(*enter, "true", check=False).returncode:
        pytest.skip("mounts are not allowed here")
    return lab.bake.run(*enter, "sh", "-ec", "\n".join(script), check=False)


def refusal(path: Path, reason: str, hint: str = "") -> str:
    """What a command prints that could not change the file."""
    text = f"Error: cannot write {path}: {reason} (file unchanged)\n"
    return f"{text}hint: {hint}\n" if hint else text


@pytest.mark.parametrize("case", [ROTATE_FILE, REVOKE_FILE], ids=lambda case: case.name)
def test_full_disk(lab: Lab, case: Case) -> None:
    """A full disk leaves the old keyring; the same command works when there is room."""
    path = lab.prepare(case)
    before = lab.bake.path.parent / "keyring-before"
    done = in_own_mounts(
        lab,
        f"cp -p {KEYRING} {before}",
        "mount -t tmpfs -o size=16k,mode=755 none keys",
        f"cp -p {before} {KEYRING}",
        "cat /dev/zero > keys/filler || true",
        f"{case.shell} && exit 3",
        f"cmp {KEYRING} {before}",
        f"rm keys/filler {before}",
        "test $(ls -A keys) = keyring",
        case.shell,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith(refusal(path, "no space left on device"))


@each_case
def test_read_only_file_system(lab: Lab, case: Case) -> None:
    path = lab.prepare(case)
    old = state(path)
    done = in_own_mounts(lab, *READ_ONLY, case.shell)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", refusal(path, "read-only file system"))
    assert state(path) == old
    assert lab.temporary_files(case) == {}


@each_change
def test_file_mounted_alone(lab: Lab, case: Case) -> None:
    """A file that is a mount of its own cannot be replaced; it stays unchanged."""
    path = lab.prepare(case)
    old = state(path)
    done = in_own_mounts(lab, f"mount --bind {case.file} {case.file}", case.shell)
    told = refusal(path, "device or resource busy", "mount the folder of the file, not the file alone")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)
    assert state(path) == old
    assert lab.temporary_files(case) == {}


def test_init_on_read_only_file_system(lab: Lab) -> None:
    """If there is a key, `init` has nothing to write."""
    lab.prepare(ROTATE_DOTENV)
    done = in_own_mounts(lab, *READ_ONLY, ".venv/bin/flask secret-key init")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Nothing changed: ")


def with_folder_mode(lab: Lab, case: Case, mode: int, *arguments: str) -> Result:
    """Run a command while the file's folder has `mode`, without root's right to ignore it."""
    powers = "-dac_override,-dac_read_search"
    humbly = ("setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}") if os.geteuid() == 0 else ()
    folder = (lab.bake.path / case.file).parent
    folder.chmod(mode)
    try:
        return lab.flask(case, *arguments, under=humbly)
    finally:
        folder.chmod(0o755)


@each_change
def test_folder_without_permission(lab: Lab, case: Case) -> None:
    path = lab.prepare(case)
    os.chown(path, os.geteuid(), os.getegid())
    old = state(path)
    done = with_folder_mode(lab, case, 0o555, *case.arguments)
    told = refusal(path, "permission denied", f"chmod u+wx {path.parent}")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)
    assert state(path) == old
    assert lab.temporary_files(case) == {}


def test_unreachable_file(lab: Lab) -> None:
    """A file in a folder that cannot be searched is not reported as missing."""
    path = lab.prepare(ROTATE_FILE)
    done = with_folder_mode(lab, ROTATE_FILE, 0o000, "status")
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: cannot read {path}: permission denied\n")


@each_change
@pytest.mark.parametrize("elsewhere", [False, True], ids=["same folder", "another folder"])
def test_link(lab: Lab, case: Case, elsewhere: bool, tmp_path: Path) -> None:
    """A link stays a link, and a command that changes a file in another folder says so."""
    path = lab.prepare(case)
    target = (tmp_path if elsewhere else path.parent) / ".env.real"
    path.rename(target)
    path.symlink_to(target if elsewhere else target.name)
    old = state(target)
    try:
        done = lab.flask(case, *case.arguments)
        told = f"{path} is a link to {target}.\n" if elsewhere else ""
        assert (done.returncode, done.stderr) == (0, told)
        assert path.is_symlink()
        assert not target.is_symlink()
        assert is_new(lab, case, old)
    finally:
        target.unlink()


@pytest.mark.parametrize("arguments", [("init",), ("rotate",), ("revoke", "--yes")], ids=lambda words: words[0])
def test_link_to_nothing(lab: Lab, arguments: tuple[str, ...], tmp_path: Path) -> None:
    """A dangling link is an error; nothing is created at its end."""
    path = lab.prepare(INIT_DOTENV)
    path.symlink_to(tmp_path / "nothing")
    done = lab.flask(INIT_DOTENV, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"Error: (cannot \w+ )?{path}: [^\n]+\n(hint: [^\n]+\n)?", done.stderr)
    assert list(tmp_path.iterdir()) == []
