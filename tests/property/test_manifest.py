"""Whatever JSON a manifest holds comes back from the YAML that we write; any text is read or a ManifestError."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.property import strategies
from webhook.manifest import ManifestError, dump, read
from webhook.preview import Source, preview, shown
from webhook.settings import Settings

ODD = "0123456789.:-_+~#!&*?|>%@`'\"{}[],= \t\n\r\x85\u2028\ufeff\x7f\x9f\x00yYnNoOeExX<$\\"
texts = st.text(st.sampled_from(ODD), max_size=10) | strategies.texts
trees = st.recursive(
    strategies.scalars | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(texts.filter(lambda key: key != "kind"), trees, max_size=3), max_size=3))
def test_what_is_written_reads_the_same(documents: list[dict[str, Any]]) -> None:
    documents = [{"kind": "X", **each} for each in documents]
    written = "---\n".join(map(dump, documents))
    assert json.dumps([each.tree for each in read(written, "f")]) == json.dumps(documents)


@given(st.dictionaries(texts.filter(lambda key: key != "kind"), trees, max_size=3))
def test_json_is_read_as_the_yaml_that_it_is(tree: dict[str, Any]) -> None:
    text = json.dumps({"kind": "X", **tree})
    fast, slow = ([each.tree for each in read(each, "f")] for each in (text, f"# no JSON\n{text}"))
    assert json.dumps(fast) == json.dumps(slow)


@given(st.text(st.sampled_from(ODD + "kind:"), max_size=40))
@example("kind: X\n<<: {a: b}")
@example("kind: X\n? {a: b}\n: c")
@example("kind: X\na: !!binary é")
@example("%YAML 9.9\n---\nkind: X")
@example("kind: X\n...\n...\n}")
def test_any_text(text: str) -> None:
    try:
        for document in read(text, "f"):
            assert isinstance(document.tree["kind"], str)
    except ManifestError as error:
        assert re.fullmatch("f: [^\n]+", str(error))  # noqa: PT017 - not each text is wrong


@settings(max_examples=settings().max_examples // 10)  # four times through a YAML parser written in Python
@given(st.lists(strategies.plane_pods, min_size=1, max_size=2), strategies.settings)
def test_preview_of_any_pod_is_the_same_the_second_time(pods: list[Any], chosen: Settings) -> None:
    text = json.dumps({"kind": "List", "items": [{**pod, "kind": "Pod"} for pod in pods]})
    first = preview([Source("f", text)], chosen)
    second = preview([Source("f", shown.yaml(first))], chosen)
    assert not any(change.operations for change in second.changes)
    assert shown.yaml(second) == shown.yaml(first)
    assert f" of {len(pods)} workloads would change." in shown.diff(first)
    assert len(json.loads(shown.json_report(first))["workloads"]) == len(pods)
