"""Killed at any system call, or refused one, a command leaves the old ring or the new one, whole."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from conftest import Bake, Result

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")

OTHER_OWNER = 12345
"""A user and group to which root can give a file, to see that it stays theirs."""

RING = "keys/ring"
DOTENV = "# stays\nAPP_ENV=development\nSECRET_KEY={key}\nMAIL_HOST=mail.example # stays, too\n"
NO_KEY = DOTENV.replace("{key}", "")


@dataclass(frozen=True)
class Case:
    """A command, the file it changes, and what stands in that before (None: there is no file)."""

    name: str
    arguments: tuple[str, ...]
    file: str
    before: str | None

    @property
    def variables(self) -> dict[str, str]:
        """What the environment says, so that the command finds the file."""
        return {"SECRET_KEY_FILE": RING} if self.file == RING else {}

    @property
    def shell(self) -> str:
        """The command as a shell takes it."""
        settings = [f"{name}={value}" for name, value in self.variables.items()]
        return " ".join((*settings, ".venv/bin/flask", "secret-key", *self.arguments))


ROTATE_DOTENV = Case("rotate, .env", ("rotate",), ".env", DOTENV)
ROTATE_FILE = Case("rotate, key file", ("rotate",), RING, "{key}\n")
REVOKE_DOTENV = Case("revoke, .env", ("revoke", "--yes"), ".env", DOTENV)
REVOKE_FILE = Case("revoke, key file", ("revoke", "--yes"), RING, "{key}\n")
INIT_DOTENV = Case("init, no .env", ("init",), ".env", None)
INIT_NO_KEY = Case("init, .env without a key", ("init",), ".env", NO_KEY)
INIT_FILE = Case("init, no key file", ("init",), RING, None)

CHANGES = [ROTATE_DOTENV, ROTATE_FILE, REVOKE_DOTENV, REVOKE_FILE, INIT_NO_KEY]
CASES = [*CHANGES, INIT_DOTENV, INIT_FILE]

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_change = pytest.mark.parametrize("case", CHANGES, ids=lambda case: case.name)

FAULTS = [
    ("openat", "EMFILE"),
    ("openat", "EROFS"),
    ("flock", "ENOLCK"),
    ("/stat", "EIO"),
    ("read", "EIO"),
    ("/^fchmod", "EPERM"),
    ("/^fchown", "EPERM"),
    ("write", "ENOSPC"),
    ("write", "EIO"),
    ("fsync", "EIO"),
    ("/^link", "EPERM"),
    ("/^rename", "EPERM"),
    ("/^rename", "EROFS"),
    ("/^unlink", "EROFS"),
]
"""What the system may refuse: a call (or a pattern, where its name differs between machines), an error."""


@dataclass(frozen=True)
class Run:
    """How a command ended (negative: the signal), what it printed, and what strace saw of it."""

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
        (bake.path / ".git" / "info" / "exclude").write_text(f"/{RING}\n")
        (bake.path / RING).parent.mkdir()

    def prepare(self, case: Case) -> Path:
        """Put the case's file there as it was before, and nothing else."""
        for left in (".env", ".env.fsk-tmp", RING, f"{RING}.fsk-tmp"):
            (self.bake.path / left).unlink(missing_ok=True)
        path = self.bake.path / case.file
        if case.before is not None:
            path.write_text(case.before.format(key=self._key))
            path.chmod(0o640)
            if os.geteuid() == 0:
                os.chown(path, OTHER_OWNER, OTHER_OWNER)
        return path

    def run(self, case: Case, *strace: str) -> Run:
        """Run the case's command, under strace where that has options."""
        return self._ask(case, case.arguments, strace)

    def revoke(self, case: Case) -> Run:
        """Change the case's file in any event."""
        return self._ask(case, REVOKE_FILE.arguments, ())

    def is_valid(self, case: Case) -> bool:
        """Whether the ring is one that an app would start with."""
        return self._ask(case, ("status",), ()).status == 0

    def _ask(self, case: Case, arguments: tuple[str, ...], strace: tuple[str, ...]) -> Run:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps([arguments, case.variables, strace]), file=self._server.stdin, flush=True)
        return Run(**json.loads(self._server.stdout.readline()))

    def flask(self, case: Case, *arguments: str, under: tuple[str, ...] = ()) -> Result:
        """Run the real command line, which may fail; `under` stands before it."""
        settings = [f"{name}={value}" for name, value in case.variables.items()]
        command = (*under, self.bake.program("flask"), "secret-key", *arguments)
        return self.bake.run("env", *settings, *command, check=False)

    def temporary_files(self, case: Case) -> list[str]:
        """The copies with a key that are left beside the case's file."""
        return [path.name for path in (self.bake.path / case.file).parent.glob("*.fsk-tmp")]

    def git_would_add(self) -> str:
        """What git sees that is not committed."""
        return self.bake.run("git", "status", "--porcelain", "--untracked-files=all").stdout


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, bake_into: Callable[..., Bake]) -> Iterator[Lab]:
    bake = bake_into(tmp_path_factory.mktemp("lab")).synced()
    server = (bake.program("python"), str(Path(__file__).with_name("kill.py")), str(bake.package))
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
    """A file's text, mode and owner; None where there is none."""
    if not path.exists():
        return None
    found = path.stat()
    return path.read_text("utf-8"), found.st_mode, found.st_uid, found.st_gid


def is_new(lab: Lab, case: Case, old: State) -> bool:
    """Whether the file is a whole new one; False where it is the old one. Fails for anything between."""
    new = state(lab.bake.path / case.file)
    if new == old:
        return False
    assert new is not None, "the ring is gone"
    assert lab.is_valid(case), "the ring is damaged"
    assert new[1:] == (old[1:] if old else (0o100600, os.geteuid(), os.getegid()))
    assert new[0].count("stays") == (case.before or "").count("stays")
    return True


@each_case
def test_a_kill_at_any_system_call_leaves_the_old_ring_or_the_new(lab: Lab, case: Case) -> None:
    lab.prepare(case)
    _, *calls = re.findall(r"^(\w+)\(", lab.run(case, "-e", "trace=all").trace, re.MULTILINE)
    kills: dict[str, Counter[bool]] = {name: Counter() for name in calls}
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
            assert lab.temporary_files(case) in ([], [f"{path.name}.fsk-tmp"])
            assert lab.git_would_add() == ""
            again = lab.run(case)
            under_way = new and "a rotation is under way" in again.output
            assert again.status == 0 or under_way, again.output
            assert lab.revoke(case).status == 0
            assert lab.temporary_files(case) == []
    print("\n".join(f"| {case.name} | {name} | {n[False]} | {n[True]} |" for name, n in kills.items()))
    assert all(sum(n[new] for n in kills.values()) for new in (False, True))


@each_case
def test_an_error_of_the_system_is_one_clear_line_that_says_what_is_so(lab: Lab, case: Case) -> None:
    refused = 0
    for call, error in FAULTS:
        for nth in count(1):
            path = lab.prepare(case)
            old = state(path)
            only_here = [o for p in (path, f"{path}.fsk-tmp", path.parent) for o in ("-P", str(p))]
            run = lab.run(case, *only_here, "-e", f"inject={call}:error={error}:when={nth}")
            if "(INJECTED)" not in run.trace:
                break
            what = f"{call} number {nth} fails with {error}:\n{run.trace[-3000:]}{run.output}"
            new = is_new(lab, case, old)
            assert "unlink" in call or lab.temporary_files(case) == [], what
            assert lab.git_would_add() == "", what
            if run.status:
                refused += 1
                told = re.fullmatch(
                    r"(.* has one new key, .*\n)?Error: (.* is changed, but)?.*\n", run.output
                )
                assert told, what
                assert new == any(told.groups()), what
            else:
                assert new, what
            assert new or lab.run(case).status == 0, what
    assert refused > 10


@each_case
def test_the_text_is_on_the_disk_before_it_has_the_name_and_the_folder_after(lab: Lab, case: Case) -> None:
    path = lab.prepare(case)
    trace = lab.run(case, "-e", "trace=all").trace
    steps = re.findall(r"^(fsync|rename|link)\w*\((.*)\) +=", trace, re.MULTILINE)
    assert [call for call, _ in steps] == ["fsync", "rename" if case.before else "link", "fsync"]
    assert f"<{path}.fsk-tmp>" in steps[0][1]
    assert f'"{path}"' in steps[1][1]
    assert f"<{path.parent}>" in steps[2][1]


READ_ONLY = ("mount --bind . .", "mount -o remount,bind,ro .", "cd .")


def in_own_mounts(lab: Lab, *script: str) -> Result:
    """Run shell commands that may mount what they like: nobody else sees it, and it ends with them."""
    enter = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))
    if lab.bake.run(*enter, "true", check=False).returncode:
        pytest.skip("this machine lets nobody mount anything")
    return lab.bake.run(*enter, "sh", "-ec", "\n".join(script), check=False)


@pytest.mark.parametrize("case", [ROTATE_FILE, REVOKE_FILE], ids=lambda case: case.name)
def test_a_full_disk_leaves_the_old_ring_until_there_is_room(lab: Lab, case: Case) -> None:
    path = lab.prepare(case)
    before = lab.bake.path.parent / "ring-before"
    done = in_own_mounts(
        lab,
        f"cp -p {RING} {before}",
        "mount -t tmpfs -o size=16k none keys",
        f"cp -p {before} {RING}",
        "cat /dev/zero > keys/filler || true",
        f"{case.shell} && exit 3",
        f"cmp {RING} {before}",
        f"rm keys/filler {before}",
        "test $(ls -A keys) = ring",
        case.shell,
    )
    refusal = f"Error: {path} cannot be changed: no space left on device; it is as it was"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, refusal)


@each_case
def test_a_read_only_file_system_leaves_the_old_ring(lab: Lab, case: Case) -> None:
    path = lab.prepare(case)
    old = state(path)
    done = in_own_mounts(lab, *READ_ONLY, case.shell)
    refusal = f"Error: {path} cannot be changed: read-only file system; it is as it was\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", refusal)
    assert state(path) == old
    assert lab.temporary_files(case) == []


@each_change
def test_a_file_that_is_mounted_by_itself_stays_as_it_was(lab: Lab, case: Case) -> None:
    path = lab.prepare(case)
    old = state(path)
    done = in_own_mounts(lab, f"mount --bind {case.file} {case.file}", case.shell)
    refusal = f"Error: {path} cannot be changed: device or resource busy; it is as it was\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", refusal)
    assert state(path) == old
    assert lab.temporary_files(case) == []


def test_a_key_on_a_read_only_file_system_is_no_error_for_init(lab: Lab) -> None:
    lab.prepare(ROTATE_DOTENV)
    done = in_own_mounts(lab, *READ_ONLY, ".venv/bin/flask secret-key init")
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing was changed" in done.stdout


def with_folder_mode(lab: Lab, case: Case, mode: int, *arguments: str) -> Result:
    """Run a command while the file's folder has `mode`, without root's power to pass over it."""
    powers = "-dac_override,-dac_read_search"
    humbly = ("setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}") if os.geteuid() == 0 else ()
    folder = (lab.bake.path / case.file).parent
    folder.chmod(mode)
    try:
        return lab.flask(case, *arguments, under=humbly)
    finally:
        folder.chmod(0o755)


@each_change
def test_a_folder_without_permission_leaves_the_old_ring(lab: Lab, case: Case) -> None:
    path = lab.prepare(case)
    os.chown(path, os.geteuid(), os.getegid())
    old = state(path)
    done = with_folder_mode(lab, case, 0o555, *case.arguments)
    refusal = f"Error: {path} cannot be changed: permission denied; it is as it was\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", refusal)
    assert state(path) == old
    assert lab.temporary_files(case) == []


def test_a_file_that_cannot_be_looked_at_is_not_called_missing(lab: Lab) -> None:
    path = lab.prepare(ROTATE_FILE)
    done = with_folder_mode(lab, ROTATE_FILE, 0o000, "status")
    assert (done.returncode, done.stderr) == (1, f"Error: {path} cannot be read: permission denied\n")


@each_change
@pytest.mark.parametrize("elsewhere", [False, True], ids=["same folder", "another folder"])
def test_a_link_stays_one_and_a_change_in_another_folder_is_told(
    lab: Lab, case: Case, elsewhere: bool, tmp_path: Path
) -> None:
    path = lab.prepare(case)
    target = (tmp_path if elsewhere else path.parent) / ".env.real"
    path.rename(target)
    path.symlink_to(target if elsewhere else target.name)
    old = state(target)
    try:
        done = lab.flask(case, *case.arguments)
        told = f"{path} is a link: {target} is what changes.\n" if elsewhere else ""
        assert (done.returncode, done.stderr) == (0, told)
        assert path.is_symlink()
        assert not target.is_symlink()
        assert is_new(lab, case, old)
    finally:
        target.unlink()


@pytest.mark.parametrize("arguments", [("init",), ("rotate",), ("revoke", "--yes")])
def test_a_link_to_nothing_is_left_alone(lab: Lab, arguments: tuple[str, ...], tmp_path: Path) -> None:
    path = lab.prepare(INIT_DOTENV)
    path.symlink_to(tmp_path / "nothing")
    done = lab.flask(INIT_DOTENV, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"Error: {path} [^\n]+\n", done.stderr)
    assert list(tmp_path.iterdir()) == []
