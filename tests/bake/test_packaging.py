"""What is published holds the app, and no `.env`, key or test."""

import secrets
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from baking import UV, Bake

DECOYS = (".env.production", "secrets/keyring", "keys.txt", "tests/fixture.key", "deploy/keyring")
INSIDE = (".env", "static/.env.local", "keyring.fsk-tmp", "secrets/keyring", "instance/app.db", "a.pem", "tls/a.key")
Contents = dict[str, bytes]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, bake_into: Callable[..., Bake]) -> Bake:
    """A project with secrets lying about, built."""
    bake = bake_into(tmp_path_factory.mktemp("published"))
    package = bake.package.name
    for name in (*DECOYS, *(f"{package}/{name}" for name in INSIDE)):
        (bake.path / name).parent.mkdir(exist_ok=True)
        (bake.path / name).write_text(f"decoy {secrets.token_hex(32)}")
    bake.run(UV, "build", "--quiet")
    return bake


@pytest.fixture(scope="module")
def wheel(project: Bake) -> Contents:
    (path,) = project.path.glob("dist/*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def sdist(project: Bake) -> Contents:
    (path,) = project.path.glob("dist/*.tar.gz")
    contents: Contents = {}
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member)
            contents[member.name.partition("/")[2]] = file.read() if file else b""
    return contents


@pytest.mark.parametrize("published", ["wheel", "sdist"])
def test_no_secret_is_published(project: Bake, published: str, request: pytest.FixtureRequest) -> None:
    contents: Contents = request.getfixturevalue(published)
    key = project.env_file()["SECRET_KEY"].encode()
    assert len(contents) > 20
    for name, content in contents.items():
        assert not Path(name).name.startswith(".env"), name
        assert not content.startswith(b"decoy"), name
        assert key not in content, name


def test_wheel(project: Bake, wheel: Contents) -> None:
    """It has the package and what that reads."""
    package = project.package.name
    assert {name.partition("/")[0] for name in wheel if ".dist-info/" not in name} == {package}
    needed = ("secure/keys/leaked.bin", "secure/status/templates/secure/status.html", "templates/home.html")
    assert {f"{package}/{name}" for name in needed} <= wheel.keys()


def test_sdist(project: Bake, sdist: Contents) -> None:
    """It has what the wheel is built from, and nothing else."""
    kept = {project.package.name, "README.md", "pyproject.toml", "pyproject.toml.orig", "PKG-INFO"}
    assert {name.partition("/")[0] for name in sdist} - {""} <= kept
