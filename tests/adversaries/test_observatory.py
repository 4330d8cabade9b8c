"""MDN's HTTP Observatory gives the project, as it is deployed, its best grade.

`pytest -rP` shows its report.
"""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from baking import Bake, run
from npm import installed
from secure.keys.key_format import generate_text
from serving import serving
from tls import Proxy, tls


@pytest.fixture(scope="module")
def scanner(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """The program that scans a site; its list of preloaded sites is empty."""
    package = installed("@mdn/mdn-http-observatory", tmp_path_factory.mktemp("observatory"), environment)
    (package / "conf" / "hsts-preload.json").write_text("[]")
    return package / "src" / "scan.js"


def report(scanner: Path, proxy: Proxy, environment: dict[str, str]) -> dict[str, Any]:
    """Return the Observatory's report of a site."""
    variables = {**environment, "NODE_EXTRA_CA_CERTS": str(proxy.certificate)}
    done = run("node", str(scanner), f"127.0.0.1:{proxy.port}", cwd=scanner.parent, environment=variables)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_grade(shared: Bake, scanner: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """The project gets the best grade."""
    variables = {
        **environment,
        "APP_ENV": "production",
        "SECRET_KEY": generate_text(int(time.time())),
        "TRUSTED_HOSTS": "127.0.0.1",
        "TRUSTED_PROXIES": "1",
    }
    gunicorn = (shared.program("gunicorn"), "--bind", "127.0.0.1:PORT")
    with (
        serving(*gunicorn, folder=shared.path, log=tmp_path / "log", environment=variables) as server,
        tls(server.port, tmp_path) as proxy,
    ):
        found = report(scanner, proxy, environment)

    for name, test in found["tests"].items():
        print(f"{test['scoreModifier']:+3} {name}: {test['result']}")
    print(f"{found['scan']['grade']}, {found['scan']['score']} points")
    assert found["scan"]["grade"] == "A+"
    assert found["scan"]["testsFailed"] == 0
    assert min(test["scoreModifier"] for test in found["tests"].values()) >= 0
    assert found["scan"]["responseHeaders"]["server"] == "gunicorn", "it names no version"


def test_bare_flask(shared: Bake, scanner: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """Control: bare Flask gets the worst grade."""
    (tmp_path / "bare.py").write_text(
        "from flask import Flask, session\napp = Flask(__name__)\napp.secret_key = 'dev'\n"
        "@app.get('/')\ndef start():\n    session['a'] = 1\n    return 'Hello'\n"
    )
    gunicorn = (shared.program("gunicorn"), "--bind", "127.0.0.1:PORT", "bare:app")
    with (
        serving(*gunicorn, folder=tmp_path, log=tmp_path / "log", environment=environment) as server,
        tls(server.port, tmp_path) as proxy,
    ):
        found = report(scanner, proxy, environment)

    print(f"{found['scan']['grade']}, {found['scan']['score']} points")
    assert found["scan"]["grade"] == "F"
