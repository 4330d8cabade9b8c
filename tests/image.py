"""Builds and runs a Dockerfile where there is no container engine: each step for real, in a chroot.

What differs from an engine: the base image is this machine's system and Python, and a layer is a folder.
It needs root, for its mounts; they live in a namespace that ends with the command.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from conftest import Result

BASE_PYTHON = f"{sys.base_prefix}/bin/python3"
PYTHON = "/opt/python"
"""Where a stage has its own Python, as the image python:*-slim has one."""
_MOUNTS = """
set -eu
root=$1 read_only=$2; shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
for name in bin lib lib64 sbin usr etc; do
    if test -L "/$name"; then ln -sfn "$(readlink "/$name")" "$root/$name"
    elif test -d "/$name"; then mkdir -p "$root/$name"; mount --bind -o ro "/$name" "$root/$name"; fi
done
mkdir -p "$root/proc" "$root/dev" "$root/tmp"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
for path in $MOUNTED; do mkdir -p "$root$path"; mount --bind "$path" "$root$path"; done
if test "$read_only" = yes; then mount -o remount,bind,ro "$root"; ip link set lo up; fi
exec "$@"
"""


@dataclass
class Stage:
    """One stage: its folder, which stands for the root of an image, and what its instructions have set."""

    root: Path
    environment: dict[str, str]
    folder: str = "/"
    user: str = "0:0"
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)

    def path(self, inside: str) -> Path:
        """Where a path of the image is on this machine."""
        return self.root / os.path.join(self.folder, inside).lstrip("/")

    def run(self, command: str, user: str = "0:0", read_only: bool = False, **variables: str) -> Result:
        """Run a shell command in the stage. A read-only one has no network but a loopback of its own."""
        environment = {**self.environment, **variables}
        given = [f"{name}={value}" for name, value in environment.items()]
        mounts = [sys.base_prefix, *([] if read_only else [environment["UV_CACHE_DIR"]])]
        isolated = ["unshare", "--mount", *(["--net"] if read_only else []), "sh", "-c", _MOUNTS, "sh"]
        inside = f"cd {shlex.quote(self.folder)} && {command}"
        chroot = ["chroot", f"--userspec={user}", str(self.root), "env", "-i", *given, "sh", "-c", inside]
        return subprocess.run(
            [*isolated, str(self.root), "yes" if read_only else "no", *chroot],
            env={"PATH": os.environ["PATH"], "MOUNTED": " ".join(mounts)},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


def build(context: Path, scratch: Path, base: Mapping[str, str]) -> Stage:
    """Carry out the Dockerfile of `context`, its stages in folders under `scratch`; the last stage.

    `base` is the environment of the base image. An instruction that fails, or is not known, fails.
    """
    stages: dict[str, Stage] = {}
    stage = None
    for name, text in instructions((context / "Dockerfile").read_text()):
        if name == "ARG":
            continue
        if name == "FROM":
            root = scratch / f"stage-{len(stages)}"
            root.mkdir()
            stage = stages[text.partition(" AS ")[2] or str(root)] = Stage(root, dict(base))
            made = stage.run(f"{shlex.quote(BASE_PYTHON)} -m venv {PYTHON}")
            assert made.returncode == 0, made.stderr
            stage.environment["PATH"] = f"{PYTHON}/bin:/usr/bin:/bin"
            continue
        assert stage
        _carry_out(stage, name, text, context, stages)
    assert stage
    return stage


def _carry_out(stage: Stage, name: str, text: str, context: Path, stages: Mapping[str, Stage]) -> None:
    match name:
        case "ENV":
            values = dict(word.split("=", 1) for word in shlex.split(text))
            path = stage.environment["PATH"]
            stage.environment |= {key: value.replace("$PATH", path) for key, value in values.items()}
        case "WORKDIR":
            stage.folder = text
            stage.path(text).mkdir(parents=True, exist_ok=True)
        case "RUN":
            done = stage.run(text)
            assert done.returncode == 0, f"RUN {text}\n{done.stdout}{done.stderr}"
        case "COPY":
            _copy(stage, text.split(), context, stages)
        case "USER":
            stage.user = text
        case "HEALTHCHECK":
            stage.healthcheck = json.loads(text.partition("CMD ")[2])
        case "CMD":
            stage.command = json.loads(text)
        case _:
            assert name == "EXPOSE", f"{name} is not known here"


def _copy(stage: Stage, words: list[str], context: Path, stages: Mapping[str, Stage]) -> None:
    if words[0].startswith("--from="):
        source = stages[words[0].removeprefix("--from=")]
        shutil.copytree(source.path(words[1]), stage.path(words[2]), symlinks=True)
        return
    for path in sent(context):
        name = str(path.relative_to(context))
        if words[:-1] == ["."] or any(fnmatch(name, pattern) for pattern in words[:-1]):
            target = stage.path(words[-1]) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def sent(context: Path) -> Iterator[Path]:
    """The files of a build's context: those that .dockerignore lets through. The last match decides."""
    rules = [
        line for line in (context / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")
    ]
    for path in sorted(context.rglob("*")):
        name = str(path.relative_to(context))
        parts = name.split("/")
        above = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        ignored = False
        for rule in rules:
            pattern = rule.removeprefix("!")
            tried = parts if pattern.startswith("**/") else above
            if any(fnmatch(part, pattern.removeprefix("**/")) for part in tried):
                ignored = not rule.startswith("!")
        if path.is_file() and not ignored:
            yield path


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile: name and arguments."""
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    pairs = (line.strip().split(maxsplit=1) for line in lines if line.strip())
    return [(name, " ".join(rest.split())) for name, rest in pairs]
