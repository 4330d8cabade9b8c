"""The manifests for Kubernetes."""

import re
from typing import Any

import yaml
from baking import PROJECT
from readme import DEPLOY, block

FILE = PROJECT / "deploy" / "kubernetes.yaml"
Manifest = dict[str, Any]


def manifests() -> list[Manifest]:
    """Return every object of the manifests."""
    return list(yaml.safe_load_all(FILE.read_text()))


def of_kind(kind: str) -> list[Manifest]:
    """Return the objects of a kind."""
    return [manifest for manifest in manifests() if manifest["kind"] == kind]


def with_additions() -> list[Manifest]:
    """Return every object, after what docs/deploy.md has a reader paste for a database."""
    [settings] = re.findall(r"`(envFrom: [^`]+)`", DEPLOY.read_text("utf-8"))
    text = FILE.read_text()
    for place, more in (
        ("          env:\n", f"          {settings}\n"),  # of the app's container
        ("      volumes:\n", block("kubernetes: database")),  # they follow the list of containers
    ):
        text = text.replace(place, more + place, 1)
    text = text.replace("  egress:\n", "  egress:\n" + block("kubernetes: egress"), 1)
    return list(yaml.safe_load_all(text))
