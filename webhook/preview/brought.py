"""What envFrom brings a container of our variables, as far as the manifests have it, and whose value wins.

By the kubelet's rules: of several sources the last one counts, and `env`, where ours are unless the chart is to win,
counts more than any. Values of Secrets are not repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from webhook.admission.injection import Injection, Part, variables
from webhook.manifest import Document
from webhook.preview.templates import typed

_KINDS = {"configMapRef": "ConfigMap", "secretRef": "Secret"}
_LONGEST = 40  # characters of a value that are shown: ours are numbers and words


class Sources:
    """The ConfigMaps and Secrets in manifests; `namespace` is that of those which name none."""

    def __init__(self, documents: list[Document], namespace: str) -> None:
        self._found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        for tree in (each for document in documents for each in _objects(document.tree)):
            metadata = tree.get("metadata")
            if tree.get("kind") in _KINDS.values() and isinstance(metadata, dict):
                key = (tree["kind"], str(metadata.get("namespace") or namespace), str(metadata.get("name")))
                self._found.setdefault(key, []).append(_data(tree))

    def said(self, template: dict[str, Any], injection: Injection, namespace: str) -> Iterator[str]:
        """Yield a sentence for each of our variables that is brought, or may be where that makes a difference."""
        for part in injection.parts:
            container = template["spec"][part.place][part.index]
            for each in self._of(container, part, injection, namespace):
                yield f"container {part.name}: {each}"

    def _of(self, container: dict[str, Any], part: Part, injection: Injection, namespace: str) -> Iterator[str]:
        ours = variables(injection.profile, limits=part.limits)
        chart_wins = injection.profile.precedence == "chart"
        left = list(part.set)  # the container's own win over both
        for kind, name, prefix in _references(container):
            data = self._found.get((kind, namespace, name), [])
            of = f"{kind} {name}"
            if len(data) != 1:  # missing, or of several releases
                unknown = [each for each in left if each.startswith(prefix)] if chart_wins else []
                if unknown:
                    why = "stands in these manifests more than once" if data else "is not among these manifests"
                    yield f"{of} {why}: what it has of {', '.join(unknown)} would win over the webhook's configuration"
                continue
            for variable in [each for each in left if each.startswith(prefix) and each[len(prefix) :] in data[0]]:
                left.remove(variable)
                value = "" if kind == "Secret" else f"={data[0][variable[len(prefix) :]]}"[:_LONGEST]
                yield (
                    f"{variable}{value} of {of} wins over {ours[variable]} of the webhook's configuration"
                    if chart_wins
                    else f"{ours[variable]} of the webhook's configuration wins over {variable}{value} of {of}"
                )


def _objects(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An object, or those of a list."""
    items = tree.get("items")
    if str(tree.get("kind")).endswith("List") and isinstance(items, list):
        for item in items:
            if isinstance(item, dict):
                yield from _objects(typed(item, tree))
    else:
        yield tree


def _data(tree: dict[str, Any]) -> dict[str, Any]:
    parts = [tree.get(each) for each in ("data", "stringData")]
    return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}


def _references(container: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Kind, name and prefix of each source, the one that counts most first."""
    sources = container.get("envFrom")
    for source in reversed(sources if isinstance(sources, list) else []):
        for field, kind in _KINDS.items():
            reference = source.get(field) if isinstance(source, dict) else None
            if isinstance(reference, dict) and isinstance(reference.get("name"), str):
                yield kind, reference["name"], str(source.get("prefix") or "")
