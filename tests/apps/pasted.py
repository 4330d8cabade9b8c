"""Run tests/test_views.py of many projects: pasted.py FOLDER... It imports the libraries once, and forks for each.

Each result is in the file `result` of the project's folder, what the tests print in `output`.
"""

import gc
import os
import sys
from pathlib import Path

import flask_sqlalchemy  # noqa: F401
import flask_wtf.file  # noqa: F401
import pytest

gc.freeze()  # so that a child copies no page to look for garbage in it
for folder in map(Path, sys.argv[1:]):
    child = os.fork()
    if not child:
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        output = os.open("output", os.O_CREAT | os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        status = pytest.main(["-q", "-p", "no:cacheprovider", "tests/test_views.py"])
        sys.stdout.flush()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    (folder / "result").write_text(str(status))
