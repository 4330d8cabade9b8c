"""The manifests are valid, fit together, and the key's volume is followed when the kubelet swaps it."""

import secrets
import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from conftest import PROJECT, Bake, run
from running import SERVES_ON, Server
from serving import wait_until

FOLDER = PROJECT / "deploy" / "kubernetes"
VERSIONS = ("1.30", kubernetes_validate.latest_version())
Manifest = dict[str, Any]


def manifests() -> list[Manifest]:
    """Every object of the manifests."""
    files = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in FOLDER.glob("*.yaml")} == {*files, "kustomization.yaml"}
    return [document for name in files for document in yaml.safe_load_all((FOLDER / name).read_text())]


def of_kind(kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests() if manifest["kind"] == kind]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", manifests(), ids=lambda m: f"{m['kind']} {m['metadata']['name']}")
def test_a_manifest_is_valid(manifest: Manifest, version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_the_validator_refuses_an_unknown_field() -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"selectors": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


PODS = {
    deployment["metadata"]["name"]: deployment["spec"]["template"] for deployment in of_kind("Deployment")
}


def test_a_full_session_store_drops_no_session() -> None:
    [store] = PODS["redis"]["spec"]["containers"]
    assert store["args"][store["args"].index("--maxmemory-policy") + 1] == "noeviction"


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_a_pod_meets_the_restricted_standard_and_more(pod: Manifest) -> None:
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert {"livenessProbe", "readinessProbe"} <= container.keys()


def test_every_selector_finds_the_pods_that_it_means() -> None:
    labels = [pod["metadata"]["labels"] for pod in PODS.values()]
    chosen = [m["spec"]["selector"] for m in of_kind("Service")]
    chosen += [
        m["spec"]["selector"]["matchLabels"] for m in of_kind("PodDisruptionBudget") + of_kind("Deployment")
    ]
    chosen += [m["spec"]["podSelector"]["matchLabels"] for m in of_kind("NetworkPolicy")]
    assert chosen
    assert all(selector in labels for selector in chosen)
    guarded = [m["spec"]["podSelector"]["matchLabels"] for m in of_kind("NetworkPolicy")]
    assert all(label in guarded for label in labels), "a pod has no network policy"


def test_the_key_is_a_file_in_a_volume_and_nowhere_else() -> None:
    app = PODS["app"]["spec"]
    (container,) = app["containers"]
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert "SECRET_KEY" not in variables
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "keys")
    assert Path(variables["SECRET_KEY_FILE"]).parent == Path(mount["mountPath"])
    assert "subPath" not in mount, "a file that is mounted by itself is never swapped"
    (volume,) = (volume for volume in app["volumes"] if volume["name"] == "keys")
    assert volume["secret"] == {"secretName": "secret-key", "defaultMode": 0o440}
    assert not of_kind("Secret"), "a key is in a file that git tracks"
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness")}
    assert probes == {"liveness": "/healthz", "readiness": "/readyz"}


class Volume:
    """A Secret's volume, written as the kubelet does: a new folder, then one rename of the link to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0
        folder.mkdir()
        self._swap({})

    def write(self, **files: str) -> None:
        """Put `files` in the place of all that is there (AtomicWriter in k8s.io/kubernetes/pkg/volume)."""
        for name in files:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        self._swap(files)
        for link in self.folder.glob("[!.]*"):
            if link.name not in files:
                link.unlink()

    def _swap(self, files: dict[str, str]) -> None:
        self._number += 1
        new = self.folder / f"..2026_11_22_00_00_00.{self._number}"
        old = self.folder / f"..2026_11_22_00_00_00.{self._number - 1}"
        new.mkdir()
        for name, text in files.items():
            (new / name).write_text(text)
            (new / name).chmod(0o440)
        link = self.folder / "..data_tmp"
        link.symlink_to(new.name)
        link.rename(self.folder / "..data")
        if old.exists():
            shutil.rmtree(old)


def test_a_running_pod_follows_the_swap_of_the_volume(shared: Bake, tmp_path: Path) -> None:
    volume = Volume(tmp_path / "keys")
    first = secrets.token_hex(32)
    volume.write(ring=first)
    variables = {"SECRET_KEY_FILE": str(volume.folder / "ring"), "SECRET_KEY_INTERVAL": "1s"}
    server = Server(shared, tmp_path / "log", variables, "--workers", "1", app="visited:app()")

    def signer() -> str:
        return server.get("/count")[1]["Signer"]

    try:
        before = signer()
        environment = {**shared.environment, "APP_ENV": "production"}
        generate = (shared.program("flask"), "secret-key", "generate")
        second = run(*generate, cwd=shared.path, environment=environment).stdout
        volume.write(ring=f"{second}{first}\n")
        wait_until(lambda: signer() != before, "the new key signs")
        after = signer()
        volume.write(other="the key is gone from the Secret")
        wait_until(lambda: signer() and SERVES_ON in server.log.read_text(), "a complaint")
        assert signer() == after
        volume.write(ring=first)
        wait_until(lambda: signer() == before, "the first key signs again")
    finally:
        server.stop()
