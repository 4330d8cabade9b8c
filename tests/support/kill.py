"""Run a project's commands in forks of one warm interpreter, under strace if options for it are given.

    python kill.py PACKAGE_FOLDER

A line of JSON on stdin is a request: the command's arguments, its variables and strace's options. A line
on stdout is the answer: how the process ended (negative: the signal), what it printed, what strace saw.
"""

import ctypes
import importlib
import json
import os
import select
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

PR_SET_PTRACER = 0x59616D61
"""From linux/prctl.h: who may trace this process; -1 means everybody."""

Command = Callable[[list[str]], object]


def answer(command: Command, arguments: list[str], variables: dict[str, str], strace: list[str]) -> dict[str, object]:
    """Run one command in a fork, which waits until strace is attached."""
    start, go = os.pipe()
    printed, out = os.pipe()
    child = os.fork()
    if not child:
        os.close(go)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.close(out)
        os.environ.update(variables)
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(-1))  # Yama lets a parent trace, no sibling
        select.select([start], [], [])
        end(command, arguments)
    os.close(start)
    os.close(out)
    tracer = attached(child, strace) if strace else None
    os.close(go)
    trace = tracer.communicate()[1] if tracer else ""
    with open(printed) as pipe:
        output = pipe.read()
    _, status = os.waitpid(child, 0)
    return {"status": os.waitstatus_to_exitcode(status), "output": output, "trace": trace}


def end(command: Command, arguments: list[str]) -> NoReturn:
    """Run the command to its end, without the slow exit of the interpreter."""
    status = 1
    try:
        command(arguments)
    except SystemExit as exited:
        status = int(exited.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def attached(child: int, options: list[str]) -> "subprocess.Popen[str]":
    """Attach strace to `child`, which waits meanwhile, so that strace misses nothing."""
    tracer = subprocess.Popen(["strace", "-y", "-p", str(child), *options], stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    line = tracer.stderr.readline()
    if not line.endswith("attached\n"):
        sys.exit(line + tracer.stderr.read())
    return tracer


if __name__ == "__main__":
    folder, package = os.path.split(sys.argv[1])
    sys.path.insert(0, folder)
    command = importlib.import_module(f"{package}.secure.keys.commands").secret_key
    for line in sys.stdin:
        print(json.dumps(answer(command, *json.loads(line))), flush=True)
