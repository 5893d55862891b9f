"""Kubernetes manifests as YAML text: read with their line numbers, written so that kubectl reads the same again."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml


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


def read(text: str, source: str) -> Iterator[Document]:
    """Yield the documents that are not empty. Raises ManifestError."""
    for number, (line, tree) in enumerate(_json(text) or _trees(text, source), start=1):
        document = Document(source, number, line, tree)
        if tree is None:
            continue
        if not isinstance(tree, dict) or not isinstance(tree.get("kind"), str):
            raise ManifestError(f"{document}: not a Kubernetes object: it has no `kind`. {_RENDER}")
        yield document


def _json(text: str) -> list[tuple[int, Any]]:
    """The objects of a text that is JSON, one after the other as kubectl takes them; none if it is anything else.

    All JSON is YAML, but read as such a MB takes 5 s for 0.05, and a cluster's objects are tens of MB.
    """
    found = []
    at, end = _blank(text, 0), len(text)
    try:
        while at < end:
            begin, (_, at) = at, _JSON.raw_decode(text, at)
            found.append((text.count("\n", 0, begin) + 1, msgspec.json.decode(text[begin:at])))
            at = _blank(text, at)
    except (ValueError, RecursionError):
        return []
    return found


def _blank(text: str, at: int) -> int:
    """Where the white space from there ends."""
    return match.end() if (match := _BLANK.match(text, at)) else at


# What is met instead of manifests: values.yaml, Chart.yaml, templates.
_RENDER = "Of a chart, give what `helm template` prints"
_JSON = json.JSONDecoder()
_BLANK = re.compile(r"\ufeff?[ \t\r\n]*")


def _trees(text: str, source: str) -> Iterator[tuple[int, Any]]:
    number = 0
    line = 1
    room = 2 * len(text) + _REPEATED if "*" in text else math.inf  # twice: as much as it can weigh without aliases
    try:
        loader = _Loader(text)
        while loader.check_node():
            number += 1
            node = loader.get_node()
            assert node is not None  # noqa: S101 - check_node said so
            line = node.start_mark.line + 1
            if room < math.inf:
                room = _left(room, node)
            # By way of JSON, as kubectl does: keys become texts, and what an alias repeats becomes a copy of its own.
            yield line, msgspec.json.decode(json.dumps(loader.construct_document(node), allow_nan=False))
    except yaml.reader.ReaderError as error:  # met before any document is
        line = text.count("\n", 0, error.position) + 1
        raise ManifestError(f"{source}: line {line}: not text: the character {error.character:#x}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        hint = f". {_RENDER}" if "{{" in text else ""
        raise ManifestError(f"{source}: document {max(number, 1)}{where}: not YAML: {error.problem}{hint}") from error
    except RecursionError as error:
        raise ManifestError(f"{source}: document {number} (line {line}): nested too deeply") from error
    except _RepeatedError as error:
        what = f"its aliases repeat more than {_REPEATED:,} characters"
        raise ManifestError(f"{source}: document {number} (line {line}): {what}") from error
    except (ValueError, TypeError) as error:
        raise ManifestError(f"{source}: document {number} (line {line}): has no form in JSON: {error}") from error
    except (KeyError, IndexError, AttributeError) as error:  # PyYAML of `!!float ""`, `!!timestamp x`
        what = "a value is not of the type that its tag (!!) names"
        raise ManifestError(f"{source}: document {number} (line {line}): not YAML: {what}") from error


# Characters and values that aliases may repeat in all of a file: many times what anchors are for, and some 100 MB as
# objects. Without a bound a kB could stand for gigabytes.
_REPEATED = 1_000_000


class _RepeatedError(Exception):
    """That they are more."""


def _left(room: float, node: yaml.Node) -> float:
    """The room that it leaves. Raises _RepeatedError, ValueError where it would never end."""
    left = room - _weight(node, {})
    if left < 0:
        raise _RepeatedError
    return left


def _weight(node: yaml.Node, known: dict[yaml.Node, int | None]) -> int:
    """Its characters and values with each alias written out. Raises ValueError where it would never end."""
    if node not in known:
        known[node] = None
        if isinstance(node, yaml.MappingNode):
            within = sum(_weight(key, known) + _weight(value, known) for key, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            within = sum(_weight(each, known) for each in node.value)
        else:
            within = len(node.value)
        known[node] = 1 + within
    weight = known[node]
    if weight is None:
        raise ValueError("an anchor's value contains itself")
    return weight


def dump(tree: Any) -> str:
    """YAML text of a tree of JSON types."""
    # Unfolded: a text broken into lines at its spaces is hard to read and to compare.
    return str(yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=1_000_000, allow_unicode=True))


class _Loader(yaml.SafeLoader):
    """YAML as kubectl reads it (sigs.k8s.io/yaml): `y` is true, 1e3 a number; no dates and no base-60 numbers."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """Return the node's tag; where it has none and no quotes, the text decides."""
        if kind is yaml.ScalarNode and implicit[0]:
            return "tag:yaml.org,2002:" + _type(value)
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]

    def text(self, node: yaml.ScalarNode) -> str:
        """Construct a text as it stands."""
        return str(node.value)

    def flag(self, node: yaml.ScalarNode) -> bool:
        """Construct true or false."""
        return node.value.lower() in _TRUE

    def whole(self, node: yaml.ScalarNode) -> int:
        """Construct a whole number."""
        text = node.value.replace("_", "").lower()
        digits = text.lstrip("+-")
        return int(text, {"0x": 16, "0b": 2, "0o": 8}.get(digits[:2], 8 if digits[:1] == "0" else 10))


_TRUE = ("y", "yes", "true", "on")
_FALSE = ("n", "no", "false", "off")
_INT = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


def _type(plain: str) -> str:
    if plain in ("", "~", "null", "Null", "NULL"):
        return "null"
    if plain.lower() in _TRUE + _FALSE and plain in (plain.lower(), plain.upper(), plain.title()):
        return "bool"
    digits = plain.replace("_", "") if plain[0] in "+-0123456789" else plain
    if _INT.fullmatch(digits):
        return "int"
    if _FLOAT.fullmatch(digits) and math.isfinite(float(digits)):  # 35e9041, a commit's name, is a text
        return "float"
    return "merge" if plain == "<<" else "str"


_Loader.add_constructor("tag:yaml.org,2002:bool", _Loader.flag)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.whole)
# `<<` as a key merges; as a value it is a text like any other.
_Loader.add_constructor("tag:yaml.org,2002:merge", _Loader.text)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that some YAML reader might take for something else."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        super().increase_indent(flow, False)  # noqa: FBT003


_PLAIN = re.compile(r"(?:[A-Za-z/_]|\.(?![0-9]))[A-Za-z0-9./_-]*(?::[A-Za-z0-9./_-]+)*\Z")
# YAML takes them for line breaks too: only escaped do they come back as they were.
_BREAKS = frozenset("\x85\u2028\u2029")
_WORDS = frozenset(("y", "yes", "n", "no", "true", "false", "on", "off", "null", "nan", "inf"))


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    if _BREAKS.intersection(text):
        style = '"'
    elif "\n" in text:
        style = "|"
    else:
        plain = _PLAIN.match(text) and text.lower().lstrip(".") not in _WORDS
        style = "" if plain else "'" if '"' in text and "'" not in text else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
