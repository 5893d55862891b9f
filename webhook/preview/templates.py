"""What makes pods in a manifest: Kubernetes' own kinds by where their template is, every other kind by its shape.

Nothing that speaks of Plane, in plain text or in a Secret, is passed over in silence: where no pod template holds it,
it is told as what can't be judged, with its place. Looks at trees only; decides nothing about pods.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from webhook.manifest import Document, ManifestError
from webhook.preview.mentions import of_its_chart

_TEMPLATES: dict[str, tuple[str, ...]] = {
    "Pod": (),
    "PodTemplate": ("template",),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    **dict.fromkeys(
        ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"), ("spec", "template")
    ),
}
# Other groups have kinds of these names with another shape, such as Volcano's Job.
_GROUPS = ("", "apps", "batch", "extensions")
# What deploys Plane by its chart is none of Kubernetes' own kinds; those may name it in passing.
_OWN = re.compile(r"v1|(?:apps|autoscaling|batch|extensions|policy|(?!kustomize\.)[a-z0-9.]+\.k8s\.io)/.*")
# Where a kind holds others' files, by Kubernetes' own definition in base64.
_BASE64 = {"Secret": "data", "ConfigMap": "binaryData"}
# Notes of kubectl's and controllers', not what anybody asked for.
_NOTES = ("metadata", "status")


@dataclass(frozen=True, slots=True)
class Workload:
    """Something that makes pods; `template` is the part of `tree` that has a pod's metadata and spec."""

    document: Document
    tree: dict[str, Any]
    template: dict[str, Any]
    place: str = ""  # where in the tree, unless its kind says so

    @property
    def metadata(self) -> dict[str, Any]:
        """The workload's own metadata."""
        found = self.tree.get("metadata")
        return found if isinstance(found, dict) else {}

    @property
    def namespace(self) -> str:
        """The namespace that the manifest names, else ""."""
        return str(self.metadata.get("namespace") or "")

    def __str__(self) -> str:
        """Kind, namespace and name, as people say them."""
        return _called(self.tree) + (f" ({self.place})" if self.place not in ("", "spec.template") else "")


@dataclass(frozen=True, slots=True)
class Unjudged:
    """What may be Plane's and can't be decided about: where it stands, what it is called, and why."""

    where: str
    name: str
    why: str

    def __str__(self) -> str:
        """One sentence."""
        return f"{self.name or self.where}: can't be judged: {self.why}"


def workloads(document: Document, planes: Callable[[str], bool]) -> Iterator[Workload | Unjudged]:
    """Yield what makes pods in a document, in Lists too; `planes` tells a text of Plane's. Raises ManifestError."""
    yield from _workloads(document, document.tree, planes)


def _workloads(document: Document, tree: Any, planes: Callable[[str], bool]) -> Iterator[Workload | Unjudged]:
    if not isinstance(tree, dict) or not isinstance(tree.get("kind"), str):
        raise ManifestError(f"{document}: an item of the list has no `kind`")
    kind = tree["kind"]
    items = tree.get("items")
    if kind == "List" and not isinstance(items, list | None):
        raise ManifestError(f"{document}: List: items is no list")
    if kind.endswith("List") and isinstance(items, list):
        items[:] = [typed(item, tree) for item in items]
        for item in items:
            yield from _workloads(document, item, planes)
    elif kind in _TEMPLATES and str(tree.get("apiVersion", "")).rpartition("/")[0] in _GROUPS:
        path = _TEMPLATES[kind]
        place: Any = tree
        for step in path:
            place = place.get(step)
            if not isinstance(place, dict):
                raise ManifestError(f"{document}: {kind}: {'.'.join(path)} is missing or holds no keys")
        yield Workload(document, tree, place)
    else:
        own = _OWN.fullmatch(str(tree.get("apiVersion", "")))
        search = _Search(document, planes if own else lambda text: planes(text) or of_its_chart(text))
        yield from search.templates(tree, tree, "")
        if search.speaks_at:
            why = f"{search.speaks_at} speaks of Plane and is part of no pod template"
            yield Unjudged(str(document), _called(tree), why)


def typed(item: Any, tree: dict[str, Any]) -> Any:
    """An item with the kind that a list of one kind leaves out, as the API server makes it; kubectl reads it so."""
    kind = tree["kind"].removesuffix("List")
    if not kind or not isinstance(item, dict) or item.keys() & {"kind", "apiVersion"}:
        return item
    return {**{key: tree[key] for key in ("apiVersion",) if key in tree}, "kind": kind, **item}


class _Search:
    """A walk through one object of a kind that isn't Kubernetes' own; `speaks_at` is the first text of Plane's."""

    def __init__(self, document: Document, planes: Callable[[str], bool]) -> None:
        self._document = document
        self._planes = planes
        self.speaks_at = ""

    def templates(self, owner: dict[str, Any], tree: Any, place: str) -> Iterator[Workload]:
        """Yield the pod templates in `tree`; `owner` is the innermost object around it that has a kind."""
        if isinstance(tree, dict):
            if isinstance(tree.get("kind"), str) and isinstance(tree.get("metadata"), dict):
                owner = tree
            for key, value in _legible(tree).items():
                at = f"{place}.{key}" if place else key
                if _is_template(value):
                    yield Workload(self._document, owner, value, at)
                elif key not in _NOTES:
                    yield from self.templates(owner, value, at)
        elif isinstance(tree, list):
            for index, value in enumerate(tree):
                at = f"{place}[{index}]"
                if _is_template(value):
                    yield Workload(self._document, owner, value, at)
                else:
                    yield from self.templates(owner, value, at)
        elif isinstance(tree, str) and not self.speaks_at and self._planes(tree):
            self.speaks_at = place


def _legible(tree: dict[str, Any]) -> dict[str, Any]:
    """With what a Secret or a ConfigMap holds in base64 as the text that it is."""
    field = _BASE64.get(str(tree.get("kind")), "")
    values = tree.get(field)
    return {**tree, field: {key: _decoded(each) for key, each in values.items()}} if isinstance(values, dict) else tree


def _decoded(value: Any) -> Any:
    try:
        return base64.b64decode(value).decode(errors="replace")
    except (TypeError, ValueError):
        return value


def _is_template(tree: Any) -> bool:
    spec = tree.get("spec") if isinstance(tree, dict) else None
    containers = spec.get("containers") if isinstance(spec, dict) else None
    return isinstance(containers, list) and all(isinstance(each, dict) for each in containers)


def _called(tree: dict[str, Any]) -> str:
    metadata = tree.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    namespace = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    return f"{tree['kind']} {namespace}{metadata.get('name') or metadata.get('generateName') or '?'}"
