"""The manifests are valid and fit together. No cluster is run here; docs/deploy.md says what was run in one.

The script of the CronJob runs against a stand-in API server, which checks verbs, names and versions. A running app
follows the volume of a Secret, which is swapped as the kubelet does it.
"""

import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import pytest
from baking import Bake, Result, run
from kube_api import StandIn
from manifests import FILE, Manifest, manifests, of_kind, with_additions
from readme import block, cell
from running import Server
from secure.keys.key_format import generate_text
from serving import wait_until

VERSIONS = ("1.30", kubernetes_validate.latest_version())
DAY = 86400


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", manifests(), ids=lambda m: f"{m['kind']} {m['metadata']['name']}")
def test_schema(manifest: Manifest, version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_schema_refuses_an_unknown_field() -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"selectors": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


[ROTATE] = of_kind("CronJob")
PODS = {
    **{deployment["metadata"]["name"]: deployment["spec"]["template"] for deployment in of_kind("Deployment")},
    "rotate": ROTATE["spec"]["jobTemplate"]["spec"]["template"],
}


def test_full_store() -> None:
    """A full session store refuses new sessions; it drops none."""
    [store] = PODS["redis"]["spec"]["containers"]
    assert store["args"][store["args"].index("--maxmemory-policy") + 1] == "noeviction"


@pytest.mark.parametrize("name", PODS)
def test_restricted_pod(name: str) -> None:
    """A pod meets the restricted standard and more; only the rotation gets a token."""
    spec = PODS[name]["spec"]
    assert (spec.get("automountServiceAccountToken", True)) is (name == "rotate")
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert name == "rotate" or {"livenessProbe", "readinessProbe"} <= container.keys()


def test_selectors() -> None:
    """Each selector finds the pods that it means, and each pod has a network policy."""
    labels = [pod["metadata"]["labels"] for pod in PODS.values()]
    chosen = [m["spec"]["selector"] for m in of_kind("Service")]
    chosen += [m["spec"]["selector"]["matchLabels"] for m in of_kind("PodDisruptionBudget") + of_kind("Deployment")]
    guarded = [m["spec"]["podSelector"]["matchLabels"] for m in of_kind("NetworkPolicy")]
    assert chosen
    assert all(selector in labels for selector in chosen + guarded)
    assert all(label in guarded for label in labels)


def test_where_the_key_is() -> None:
    """The key is a file in a volume and nowhere else."""
    app = PODS["app"]["spec"]
    (container,) = app["containers"]
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert "SECRET_KEY" not in variables
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "keys")
    assert Path(variables["SECRET_KEY_FILE"]).parent == Path(mount["mountPath"])
    assert "subPath" not in mount  # a file that is mounted by itself never changes
    (volume,) = (volume for volume in app["volumes"] if volume["name"] == "keys")
    assert volume["secret"] == {"secretName": "secret-key", "defaultMode": 0o440}
    assert not of_kind("Secret")  # git would track the key
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness")}
    assert probes == {"liveness": "/healthz", "readiness": "/readyz"}


def test_role() -> None:
    """The rotation may read and change one Secret, and nothing else."""
    [role], [binding], [account] = of_kind("Role"), of_kind("RoleBinding"), of_kind("ServiceAccount")
    [rule] = role["rules"]
    assert (rule["resources"], rule["resourceNames"], rule["verbs"]) == (["secrets"], ["secret-key"], ["get", "patch"])
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == [account["metadata"]["name"]]
    assert PODS["rotate"]["spec"]["serviceAccountName"] == account["metadata"]["name"]
    assert "ClusterRole" not in {manifest["kind"] for manifest in manifests()}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[StandIn]:
    """A stand-in API server with a Secret whose key is 91 days old; the token of the account is in `tmp_path`."""
    [rule] = of_kind("Role")[0]["rules"]
    with StandIn(tmp_path, rule, generate_text(int(time.time()) - 91 * DAY) + "\n").serving() as api:
        yield api


def start_rotation(shared: Bake, api: StandIn, folder: Path, *command: str) -> "subprocess.Popen[str]":
    """Start the CronJob's container: the script of the ConfigMap, with its arguments or others."""
    [container] = PODS["rotate"]["spec"]["containers"]
    [script] = of_kind("ConfigMap")[0]["data"].values()
    folder.mkdir()
    (folder / "secret_key.py").write_text(script)
    variables = {
        **shared.environment,
        **api.environment,
        "APP_ENV": "production",
        "SECRET_KEY_FILE": str(folder / "keyring"),
        "PATH": f"{shared.path / '.venv' / 'bin'}:/usr/bin:/bin",
    }
    arguments = command or container["command"][2:]
    assert container["command"][:2] == ["python", "/scripts/secret_key.py"]
    return subprocess.Popen(
        ["python", str(folder / "secret_key.py"), *arguments],
        cwd=shared.path, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def rotated(shared: Bake, api: StandIn, folder: Path, *command: str) -> tuple[int, str]:
    process = start_rotation(shared, api, folder, *command)
    output, errors = process.communicate()
    return process.returncode, output + errors


def test_rotation(shared: Bake, api: StandIn, tmp_path: Path) -> None:
    """A key that is due is rotated once; after that, nothing is written."""
    old = api.keyring
    assert rotated(shared, api, tmp_path / "first")[0] == 0
    assert api.keyring.splitlines()[1:] == old.splitlines()
    status, output = rotated(shared, api, tmp_path / "second")
    assert (status, "Nothing to do" in output) == (0, True)
    assert api.calls == ["GET 200", "PATCH 200", "GET 200"]


def test_rotation_now(shared: Bake, api: StandIn, tmp_path: Path) -> None:
    """The Job that the page's command makes, from what `kubectl create job` copies."""
    [command] = cell("Kubernetes", "run the rotation now, if it is due")
    made = re.fullmatch(r"kubectl create job --from=cronjob/(\S+) (\S+)", command)
    assert made
    [source] = [each for each in of_kind("CronJob") if each["metadata"]["name"] == made[1]]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": made[2]}, **source["spec"]["jobTemplate"]}
    for version in VERSIONS:
        kubernetes_validate.validate(job, version, strict=True)
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert rotated(shared, api, tmp_path / "job", *container["command"][2:])[0] == 0
    assert api.calls == ["GET 200", "PATCH 200"]


def test_two_rotations_at_once(shared: Bake, api: StandIn, tmp_path: Path) -> None:
    """Both have read the old Secret before one of them changes it: the other one starts again."""
    api.readers_at_once = 2
    both = [start_rotation(shared, api, tmp_path / name) for name in ("first", "second")]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len(api.keyring.splitlines()) == 2
    assert sorted(api.calls) == ["GET 200", "GET 200", "GET 200", "PATCH 200", "PATCH 409"]
    assert "".join(outputs).count("The new key ") == 1  # the other one's key was never stored
    assert "".join(outputs).count("starting again") == 1
    assert "".join(outputs).count("Nothing to do") == 1


def test_bad_keyring(shared: Bake, api: StandIn, tmp_path: Path) -> None:
    """Nothing is written."""
    api.keyring = "changeme\n"
    status, output = rotated(shared, api, tmp_path / "job")
    assert status == 1
    assert "changeme" not in output
    assert api.calls == ["GET 200"]


@pytest.mark.parametrize(("verbs", "calls"), [(["get"], ["GET 200", "PATCH 403"]), ([], ["GET 403"])])
def test_missing_rights(shared: Bake, api: StandIn, tmp_path: Path, verbs: list[str], calls: list[str]) -> None:
    """One message says what the API server answered."""
    api.rule = {**api.rule, "verbs": verbs}
    old = api.keyring
    status, output = rotated(shared, api, tmp_path / "job")
    assert (status, api.calls, api.keyring) == (1, calls, old)
    assert output.splitlines()[-1] == "Secret secret-key: the API server answered 403 Forbidden (Secret unchanged)"
    assert "Traceback" not in output


KUBECTL = """#!/bin/sh
echo "$1 $2" >> calls
case "$1" in
get) test -e keyring ;;
create) cat > keyring ;;
apply) cat > applied ;;
replace) cat > /dev/null ;;
esac
"""
"""A stand-in for kubectl; `keyring` is what the Secret has."""


def pasted(name: str, folder: Path, docker: str) -> Result:
    """Run the commands of docs/deploy.md, where `docker run` does what is given."""
    for program, text in (("docker", f"#!/bin/sh\ncase $1 in run) {docker} ;; esac\n"), ("kubectl", KUBECTL)):
        (folder / program).write_text(text)
        (folder / program).chmod(0o755)
    (folder / "deploy").mkdir(exist_ok=True)
    shutil.copy(FILE, folder / "deploy")
    environment = {"PATH": f"{folder}:/usr/bin:/bin"}  # each block sets its own variables
    return run("sh", "-uc", block(f"kubernetes: {name}"), cwd=folder, environment=environment, check=False)


def test_first_key(tmp_path: Path) -> None:
    """The commands store a key that was generated; a later run, for new code, keeps it."""
    key = generate_text(0)
    assert pasted("install", tmp_path, f"echo {key}").returncode == 0
    assert (tmp_path / "applied").read_text() == FILE.read_text()
    assert pasted("install", tmp_path, "exit 1").returncode == 0
    assert (tmp_path / "keyring").read_text() == f"{key}\n"
    assert (tmp_path / "calls").read_text().split("\n").count("create secret") == 1


def test_revocation(tmp_path: Path) -> None:
    """The commands replace the keyring."""
    assert pasted("revoke", tmp_path, f"echo {generate_text(0)}").returncode == 0
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "rollout restart"


@pytest.mark.parametrize("name", ["install", "revoke"])
def test_no_key_generated(tmp_path: Path, name: str) -> None:
    """Nothing is changed."""
    assert pasted(name, tmp_path, "exit 125").returncode == 125
    assert not (tmp_path / "keyring").exists()
    assert not (tmp_path / "applied").exists()


@pytest.mark.parametrize("version", VERSIONS)
def test_additions(version: str) -> None:
    """What the page adds for a database is valid, and in its place."""
    before, after = manifests(), with_additions()
    changed = [new for old, new in zip(before, after, strict=True) if new != old]
    assert [(each["kind"], each["metadata"]["name"]) for each in changed] == [
        ("Deployment", "app"),
        ("NetworkPolicy", "app"),
    ]
    for each in changed:
        kubernetes_validate.validate(each, version, strict=True)
    app, policy = changed
    assert app["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    assert {"port": 5432} in [port for rule in policy["spec"]["egress"] for port in rule["ports"]]


class Volume:
    """A Secret's volume, written as the kubelet does: a new folder, then one rename of the link to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0
        folder.mkdir()
        self._swap({})

    def write(self, **files: str) -> None:
        """Replace all that is there by `files` (AtomicWriter in k8s.io/kubernetes/pkg/volume)."""
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


def test_swap_of_the_volume(shared: Bake, tmp_path: Path) -> None:
    volume = Volume(tmp_path / "keys")
    first = secrets.token_hex(32)
    volume.write(keyring=first)
    variables = {"SECRET_KEY_FILE": str(volume.folder / "keyring"), "SECRET_KEY_INTERVAL": "1s"}
    server = Server(shared, tmp_path / "log", variables, "--workers", "1", app="visited:app()")

    def signer() -> str:
        return server.get("/count")[1]["Signer"]

    try:
        before = signer()
        environment = {**shared.environment, "APP_ENV": "production"}
        generate = (shared.program("flask"), "secret-key", "generate")
        second = run(*generate, cwd=shared.path, environment=environment).stdout
        volume.write(keyring=f"{second}{first}\n")
        wait_until(lambda: signer() != before, "the new key signs")
        after = signer()
        volume.write(other="the key is gone from the Secret")
        wait_until(lambda: signer() and "Keeping the last valid secret key" in server.log.read_text(), "a complaint")
        assert signer() == after
        volume.write(keyring=first)
        wait_until(lambda: signer() == before, "the first key signs again")
    finally:
        server.stop()
