"""The platforms: a small Debian, of which containers and a machine with systemd are made."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from baking import UV, Bake
from engine import Engine
from once import of_all_workers, once
from recipes import apply, recipes

PACKAGES = (
    "ca-certificates",
    "dbus",
    "procps",
    "python-is-python3",
    "python3-pip",
    "python3-venv",
    "redis-server",
    "systemd-sysv",
    "usr-is-merged",
)
MERGED = "/usr/share/mmdebstrap/hooks/merged-usr"
"""It makes /bin a link at once; otherwise a program in Perl moves all files, and stays."""
PROGRAMS = ("iptables", "mmdebstrap", "podman", "runc", "systemd-nspawn")


def bootstrap(folder: Path) -> None:
    """Install a small Debian system in a folder."""
    # Removed at the end: a path-exclude filters every package, in a Python of its own.
    left_out = " ".join(f'"$1"/usr/share/{name}/*' for name in ("doc", "locale", "man"))
    options = ("--quiet", "--variant=minbase", "--dpkgopt=force-unsafe-io", f"--customize-hook=rm -rf {left_out}")
    chosen = (f"--hook-dir={MERGED}", f"--include={','.join(PACKAGES)}")
    subprocess.run(["mmdebstrap", *options, *chosen, "bookworm", str(folder)], check=True)
    # so that it can reach what this machine reaches
    certificates = Path("etc/ssl/certs/ca-certificates.crt")
    shutil.copy("/" / certificates, folder / certificates)


@pytest.fixture(scope="session")
def platforms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a small Debian in `debian` and the store of a container engine in `engine`."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"a container needs root, and these programs: {missing or PROGRAMS}")
    folder = of_all_workers(tmp_path_factory) / "platforms"
    engine = Engine(folder / "engine")

    def make() -> None:
        bootstrap(folder / "debian")
        engine.make(folder / "debian")

    with once(folder, make, engine.remove):
        yield folder


@pytest.fixture(scope="session")
def debian(platforms: Path) -> Path:
    """The folder of a small Debian system with systemd, Python and Redis."""
    return platforms / "debian"


@pytest.fixture(scope="session")
def engine(platforms: Path) -> Engine:
    """A container engine with the base images that the project names."""
    return Engine(platforms / "engine")


@pytest.fixture(scope="session")
def with_database(tmp_path_factory: pytest.TempPathFactory, bake_into: Callable[..., Bake]) -> Bake:
    """A clone of a project with the recipe for a database and a first migration: no `.env`, no environment."""
    bake = bake_into(tmp_path_factory.mktemp("database"))
    recipe = recipes()["a-database"]
    apply(recipe, bake)
    for command in recipe.commands:
        if command[-1] == "upgrade":  # in production only
            break
        bake.run(UV, *command[1:])
    clone = Bake(tmp_path_factory.mktemp("clone") / bake.path.name, bake.result, bake.environment)
    shutil.copytree(bake.path, clone.path, ignore=shutil.ignore_patterns(".env", ".venv", "instance"))
    return clone
