"""A Python program that is loaded once: each run is a fork, which saves the time to load the program's libraries.

    python warm.py SCRIPT

A line of JSON on stdin is a run: its arguments, folder, variables, and the files for stdin, stdout and stderr. A
line on stdout is its exit status (negative: the signal).
"""

import gc
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

STREAMS = ("stdin", "stdout", "stderr")


class Warm:
    """A program with the variables `environment`, until the block ends."""

    def __init__(self, script: str, environment: Mapping[str, str]) -> None:
        self._script, self.environment = script, dict(environment)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process:
            self._process.communicate()

    def run(self, *command: str, cwd: Path, input: str = "") -> "subprocess.CompletedProcess[str]":
        """Run the command, whose first word is the program; load the program before its first run."""
        process = self._process = self._process or self._loaded()
        assert process.stdin
        assert process.stdout
        with ExitStack() as stack:
            files = [stack.enter_context(tempfile.NamedTemporaryFile("w+", errors="replace")) for _ in STREAMS]
            files[0].write(input)
            files[0].flush()
            variables = self.environment | {"PWD": str(cwd)}
            request = json.dumps([command, str(cwd), variables, [file.name for file in files]])
            print(request, file=process.stdin, flush=True)
            status = int(process.stdout.readline())
            return subprocess.CompletedProcess(command, status, files[1].read(), files[2].read())

    def _loaded(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, __file__, self._script],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def main(script: str) -> None:
    """Serve runs until stdin closes."""
    runpy.run_path(script)
    gc.freeze()  # so that a run copies no page to look for garbage in it
    for line in sys.stdin:
        command, folder, variables, files = json.loads(line)
        child = os.fork()
        if not child:
            for number, (name, file) in enumerate(zip(STREAMS, files, strict=True)):
                opened = os.open(file, os.O_WRONLY if number else os.O_RDONLY)
                os.dup2(opened, number)
                os.close(opened)
                setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(variables)
            sys.argv[:] = [script, *command[1:]]
            del sys.path[0]  # this file's folder
            runpy.run_path(script, run_name="__main__")
            sys.exit()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
