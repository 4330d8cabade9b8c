"""Attackers' programs find nothing in a running project and its code; each finds something in a weak app."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask_unsign_wordlist
import pytest
from baking import UV, Bake, Result, run
from programs import program
from secure.keys.key_format import generate_text
from serving import Server, serving

ADVERSARIES = Path(__file__).parent
WEAK_KEY = "changeme"
WORDS = 55_982
"""The keys of the whole Flask-Unsign word list."""
DERIVED = """\
import hashlib, hmac, sys
from flask.json.tag import TaggedJSONSerializer
from flask_unsign import session
from flask_unsign.__main__ import main
from itsdangerous import URLSafeTimedSerializer

def serializer(secret, legacy, salt):
    extracted = hmac.digest(b"flask-secure-start v1", secret.encode(), "sha256")
    key = hmac.digest(extracted, salt.encode() + b"\\x01", "sha256")
    how = {"key_derivation": "none", "digest_method": hashlib.sha256}
    return URLSafeTimedSerializer(key, serializer=TaggedJSONSerializer(), signer_kwargs=how)

session.get_serializer = serializer
sys.exit(main())
"""
"""Flask-Unsign, taught the key derivation and the digest of the project."""

ACCEPTED = {
    ("B404", "git.py"): "the commands ask git",
    ("B603", "git.py"): "with a list of arguments, through no shell",
    ("B105", "errors.py"): "a message about a token",
    ("B108", "server.py"): "gunicorn's workers report there that they are alive, nothing else",
}
"""What Bandit finds in the project, and why that is right."""

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def attack(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A function that runs a program of `programs.txt` in an empty folder: `attack("bandit", "-r", path)`."""
    folder = tmp_path_factory.mktemp("adversary")

    def attack(*command: str, check: bool = False) -> Result:
        return run(*program(*command), cwd=folder, environment=environment, check=check)

    return attack


@pytest.fixture(scope="module")
def key() -> str:
    """A generated key."""
    return generate_text(int(time.time()))


@pytest.fixture(scope="module")
def live(shared: Bake, key: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The project in production, with TLS."""
    folder = tmp_path_factory.mktemp("live")
    certificate = folder / "certificate.pem"
    new = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost")
    files = ("-keyout", str(folder / "key.pem"), "-out", str(certificate))
    run(*new, *files, "-addext", "subjectAltName=IP:127.0.0.1", cwd=folder, environment=shared.environment)
    with serving(
        *(shared.program("gunicorn"), "--bind", "127.0.0.1:PORT"),
        *("--certfile", str(certificate), "--keyfile", str(folder / "key.pem")),
        folder=shared.path,
        log=folder / "log",
        environment={
            **shared.environment,
            "APP_ENV": "production",
            "SECRET_KEY": key,
            "TRUSTED_HOSTS": "127.0.0.1",
        },
        certificate=certificate,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def weak(shared: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The weak app."""
    folder = tmp_path_factory.mktemp("weak")
    command = (shared.program("flask"), "--app", str(ADVERSARIES / "weak_app.py"), "run", "--port", "PORT")
    with serving(*command, folder=folder, log=folder / "log", environment=shared.environment) as server:
        yield server


def session_cookie(server: Server) -> str:
    """The session cookie of a new visitor."""
    [cookie] = [value for name, value in server.get().cookies.items() if name.endswith("session")]
    return cookie


def test_flask_unsign(attack: Run, live: Server, weak: Server) -> None:
    """Flask-Unsign finds no key with its whole list."""

    def crack(cookie: str) -> Result:
        return attack("flask-unsign", *unsign(cookie, flask_unsign_wordlist.get("all")))

    assert repr(WEAK_KEY) in crack(session_cookie(weak)).stdout, "it finds the weak key"
    print("flask-unsign:", failure(crack(session_cookie(live))))


def test_flask_unsign_taught(attack: Run, live: Server, key: str, tmp_path: Path) -> None:
    """Nor does it if it knows how the project derives keys and signs."""

    def crack(words: str) -> Result:
        cookie = session_cookie(live)
        return attack("flask-unsign:python", "-c", DERIVED, *unsign(cookie, words), "--salt", "session")

    (tmp_path / "words").write_text(repr(key), "utf-8")
    assert repr(key) in crack(str(tmp_path / "words")).stdout, "it finds the key if a list has it"
    print("flask-unsign, derived keys:", failure(crack(flask_unsign_wordlist.get("all"))))


def unsign(cookie: str, words: str) -> tuple[str, ...]:
    """The arguments for Flask-Unsign to search a list for the key of a cookie."""
    return ("--unsign", "--threads", "2", "--cookie", cookie, "--wordlist", words)


def failure(result: Result) -> str:
    """The last line of Flask-Unsign, after it has tried all words and found nothing."""
    ending = result.stderr.rpartition("[!] ")[2].strip()
    assert ending == f"Failed to find secret key after {WORDS} attempts."
    return ending


def test_badsecrets(attack: Run, live: Server, weak: Server) -> None:
    def secrets(*arguments: str) -> list[str]:
        said = attack("badsecrets", "--json", "--no-hashcat", *arguments, check=True).stdout
        reports = [report for line in said.splitlines() for report in json.loads(line)]
        return [report["secret"] for report in reports if report["type"] == "SecretFound"]

    assert secrets("--url", weak.url) == [WEAK_KEY], "it finds the weak key"
    assert secrets("--url", live.url) == []
    print("badsecrets: no secret found")


def test_wapiti(attack: Run, live: Server, weak: Server, tmp_path: Path) -> None:
    modules = "cookieflags,crlf,csp,csrf,exec,file,http_headers,methods,permanentxss,redirect,sql,upload,xss"

    def scan(server: Server, modules: str) -> dict[str, Any]:
        report = tmp_path / f"{server.port}.json"
        bounds = ("--depth", "5", "--max-scan-time", "120", "--max-attack-time", "30")
        quiet = ("--no-bugreport", "--verbose", "0", "--flush-session")
        output = ("--format", "json", "--output", str(report))
        attack(
            *("wapiti3", "--url", server.url, "--module", modules),
            *(*bounds, *quiet, *output),
            check=True,
        )
        found: dict[str, Any] = json.loads(report.read_text("utf-8"))
        return found

    def findings(report: dict[str, Any]) -> set[str]:
        kinds = ("vulnerabilities", "anomalies")
        return {name for kind in kinds for name, found in report[kind].items() if found}

    weak_report, report = scan(weak, "csrf,xss"), scan(live, modules)
    assert findings(weak_report) == {"Reflected Cross Site Scripting", "Cross Site Request Forgery"}
    assert report["infos"]["crawled_pages_nbr"] >= 3
    assert findings(report) == set()
    print(f"wapiti: {report['infos']['crawled_pages_nbr']} pages crawled, no finding")


def test_bandit(attack: Run, shared: Bake) -> None:
    def findings(*paths: Path) -> set[tuple[str, str]]:
        said = attack("bandit", "--quiet", "--recursive", "--format", "json", *map(str, paths)).stdout
        report = json.loads(said)
        assert report["errors"] == []
        print(f"bandit: {report['metrics']['_totals']['loc']} lines, {len(report['results'])} findings")
        return {(found["test_id"], Path(found["filename"]).name) for found in report["results"]}

    assert ("B602", "weak_app.py") in findings(ADVERSARIES), "it finds the shell"
    assert findings(shared.package, shared.path / "gunicorn.conf.py") == set(ACCEPTED)


def test_semgrep(attack: Run, shared: Bake) -> None:
    """The key has one way into the app."""
    rules = ADVERSARIES / "semgrep.yml"

    weak, offline = ADVERSARIES / "weak_app.py", ("--metrics", "off", "--disable-version-check", "--no-git-ignore")
    command = ("semgrep", "scan", "--config", str(rules), *offline, "--jobs", "2", "--json")
    paths = (weak, shared.package, shared.path / "gunicorn.conf.py")
    report = json.loads(attack(*command, *map(str, paths), check=True).stdout)
    assert report["errors"] == []
    by_file: dict[Path, set[str]] = {}
    for each in report["results"]:
        by_file.setdefault(Path(each["path"]), set()).add(each["check_id"].rpartition(".")[2])
    every_rule = {line.split()[-1] for line in rules.read_text("utf-8").splitlines() if line.startswith("  - id:")}
    assert by_file == {weak: every_rule}
    scanned = {Path(path).name for path in report["paths"]["scanned"]}
    assert {path.name for path in shared.package.rglob("*.py")} | {"gunicorn.conf.py"} <= scanned
    print(f"semgrep: {len(every_rule)} rules on {len(scanned)} files, no finding")


def test_pip_audit(attack: Run, shared: Bake, tmp_path: Path) -> None:
    def audit(requirements: str) -> list[dict[str, Any]]:
        file = tmp_path / "requirements.txt"
        file.write_text(requirements, "utf-8")
        said = attack("pip-audit", "--disable-pip", "--no-deps", "--format", "json", "--requirement", str(file))
        audited: list[dict[str, Any]] = json.loads(said.stdout)["dependencies"]
        return audited

    [old] = audit("flask==0.12\n")
    if "skip_reason" in old:
        pytest.skip("the package index here knows no advisories: nothing was audited")
    assert old["vulns"], "it finds an old Flask"
    exported = shared.run(UV, "export", "--quiet", "--all-extras", "--no-emit-project", "--no-hashes")
    audited = audit(exported.stdout)
    assert [(found["name"], found.get("skip_reason"), found.get("vulns")) for found in audited] == [
        (found["name"], None, []) for found in audited
    ]
    print(f"pip-audit: {len(audited)} dependencies, no known vulnerability, none skipped")
