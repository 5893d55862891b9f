"""Kubernetes manifests as YAML text: read with their line numbers, written so that kubectl reads the same again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

_TEMPLATES: dict[str, tuple[str, ...]] = {
    "Pod": (),
    "PodTemplate": ("template",),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    **dict.fromkeys(
        ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"), ("spec", "template")
    ),
}


class ManifestError(ValueError):
    """The text is no manifest; says which document and which line."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a stream: its tree (JSON types only) and the line on which it starts."""

    source: str
    number: int
    line: int
    tree: dict[str, Any]

    def __str__(self) -> str:
        """Where it is, for error messages."""
        return f"{self.source}: document {self.number} (line {self.line})"


@dataclass(frozen=True, slots=True)
class Workload:
    """Something that makes pods. `template` is the part of `tree` that has a pod's metadata and spec; both are live."""

    document: Document
    tree: dict[str, Any]
    holder: dict[str, Any]
    key: str

    @property
    def template(self) -> dict[str, Any]:
        """The pod template, or the pod itself."""
        return self.holder[self.key]  # type: ignore[no-any-return]

    @property
    def namespace(self) -> str:
        """The namespace that the manifest names, else ""."""
        return str((self.tree.get("metadata") or {}).get("namespace") or "")

    def __str__(self) -> str:
        """Kind, namespace and name, as people say them."""
        metadata = self.tree.get("metadata") or {}
        name = metadata.get("name") or metadata.get("generateName") or "?"
        return f"{self.tree['kind']} {self.namespace + '/' if self.namespace else ''}{name}"


def read(text: str, source: str) -> Iterator[Document]:
    """Yield the documents that are not empty. Raises ManifestError."""
    loader = _Loader(text)
    number = 0
    try:
        while loader.check_node():
            number += 1
            node = loader.get_node()
            assert node is not None  # noqa: S101 - check_node said so
            tree = loader.construct_document(node)
            document = Document(source, number, node.start_mark.line + 1, tree)
            if tree is None:
                continue
            if not isinstance(tree, dict) or not isinstance(tree.get("kind"), str):
                raise ManifestError(f"{document}: not a Kubernetes object: it has no `kind`")
            yield document
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        what = getattr(error, "problem", None) or str(error)
        raise ManifestError(f"{source}: document {max(number, 1)}{where}: not YAML: {what}") from error
    except RecursionError as error:
        raise ManifestError(f"{source}: document {number}: nested too deeply") from error
    finally:
        loader.dispose()


def workloads(document: Document) -> Iterator[Workload]:
    """Yield what makes pods in a document, in Lists too. Raises ManifestError."""
    yield from _workloads(document, {"": document.tree}, "")


def _workloads(document: Document, holder: dict[str, Any], key: str) -> Iterator[Workload]:
    tree = holder[key]
    if not isinstance(tree, dict) or not isinstance(tree.get("kind"), str):
        raise ManifestError(f"{document}: an item of the list has no `kind`")
    kind = tree["kind"]
    if kind == "List" or (kind.endswith("List") and isinstance(tree.get("items"), list)):
        for index in range(len(tree.get("items") or [])):
            item = {"": tree["items"][index]}
            yield from _workloads(document, item, "")
            tree["items"][index] = item[""]
    elif kind in _TEMPLATES:
        path = _TEMPLATES[kind]
        place: Any = tree
        for step in path:
            holder, key, place = place, step, place.get(step)
            if not isinstance(place, dict):
                raise ManifestError(f"{document}: {kind}: {'.'.join(path)} is missing or holds no keys")
        yield Workload(document, tree, holder, key)


def dump(tree: Any) -> str:
    """YAML text of a tree of JSON types."""
    # Unfolded: a text broken into lines at its spaces is hard to read and to compare.
    return str(yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=1_000_000, allow_unicode=True))


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: no dates and no base-60 numbers, and `=` and `<<` values are texts."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, expression)
        for tag, expression in resolvers
        if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value", "tag:yaml.org,2002:int")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[1-9][0-9_]*|0)\Z"),
    list("-+0123456789"),
)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that some YAML reader might take for something else."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        super().increase_indent(flow, False)  # noqa: FBT003


_PLAIN = re.compile(r"[A-Za-z./_][A-Za-z0-9./_-]*(?:: ?[A-Za-z0-9./_-]+)*\Z")
_WORDS = frozenset(("y", "yes", "n", "no", "true", "false", "on", "off", "null", "nan", "inf"))


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    if "\n" in text:
        style = "|"
    else:
        plain = _PLAIN.match(text) and ": " not in text and text.lower().lstrip(".") not in _WORDS
        style = "" if plain else "'" if '"' in text and "'" not in text else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
