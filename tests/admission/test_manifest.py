"""Manifests: read as kubectl reads them, written so that it reads the same again, errors with document and line."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from webhook.manifest import ManifestError, dump, read

# Each was given to sigs.k8s.io/yaml v1.6.0, which is what kubectl and helm read YAML with.
SCALARS: dict[str, Any] = {
    "true": True, "True": True, "TRUE": True, "yes": True, "on": True, "y": True, "Y": True,
    "false": False, "NO": False, "off": False, "n": False, "N": False,
    "tRUE": "tRUE", "yEs": "yEs", "'on'": "on", '"y"': "y", "|-\n  on": "on",
    "": None, "~": None, "null": None, "NULL": None, "nULL": "nULL",
    "1": 1, "-1": -1, "+1": 1, "010": 8, "0o17": 15, "0x1F": 31, "-0x1F": -31, "0b11": 3, "1_000": 1000, "00": 0,
    "0o8": "0o8", "0x_": "0x_", "0b_": "0b_", "_1": "_1", "0x1p-2": "0x1p-2", "--1": "--1",
    "18446744073709551615": 18446744073709551615,
    "1.5": 1.5, "1e3": 1000.0, "1E+5": 100000.0, ".5": 0.5, "1.": 1.0, "-.5e1": -5.0, ".1e3": 100.0, "09": 9.0,
    "08.5": 8.5, "1.5_0": 1.5,
    "35e9041": "35e9041", "._5": "._5", ".": ".", "1:30": "1:30", "1:30.5": "1:30.5", "190:20:30": "190:20:30",
    "2026-11-23": "2026-11-23", "2026-11-23T08:03:50Z": "2026-11-23T08:03:50Z", "2026-13-45": "2026-13-45",
    "<<": "<<", "=": "=", "v1.2": "v1.2", "1.2.3": "1.2.3", "1e": "1e", "e3": "e3",
}  # fmt: skip


def one(text: str) -> Any:
    (document,) = read(text, "file")
    return document.tree


@pytest.mark.parametrize(("text", "value"), SCALARS.items())
def test_scalars_as_kubectl_reads_them(text: str, value: object) -> None:
    tree = one(f"kind: X\nvalue: {text}\n")
    assert json.dumps(tree["value"]) == json.dumps(value)


@pytest.mark.parametrize(
    "text",
    [
        *SCALARS,
        "a\nb",
        "a\n",
        "\n a\n",
        "a \nb ",
        "\ta\nb",
        " a",
        "a: b",
        "- a",
        "a #b",
        "#a",
        "'",
        '"',
        "a'\"b",
        "%a",
        "@a",
        "`a`",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
        "?",
        "{{ a }}",
        "---",
        "...",
        "a\r\nb",
        "a\x85b",
        "\u2028",
        "\ufeff",
        "\x00\x1b",
        "é😀",
        "x" * 500,
    ],
)
def test_any_text_comes_back(text: str) -> None:
    tree = {"kind": "X", text: [text, {"a": text}]}
    written = dump(tree)
    assert one(written) == tree
    # PyYAML with its own rules stands for readers of YAML 1.1 that aren't kubectl.
    assert yaml.safe_load(written) == tree


def test_plain_texts_stay_readable() -> None:
    tree = {
        "image": "makeplane/backend:v1.2",
        "command": ["/bin/sh", "-c"],
        "url": "http://x",
        "path": "./bin/a.sh",
        "n": 1,
    }
    assert dump(tree) == (
        'image: makeplane/backend:v1.2\ncommand:\n  - /bin/sh\n  - "-c"\nurl: http://x\npath: ./bin/a.sh\n"n": 1\n'
    )
    assert dump({"a": "set -e\nexec x\n"}) == "a: |\n  set -e\n  exec x\n"


def test_anchors_merge_keys_and_keys_that_are_no_texts() -> None:
    tree = one(
        """
        kind: X
        base: &base {a: 1, b: {c: 2}}
        other: {<<: *base, a: 3}
        list: [*base, *base]
        on: {2: a, 1.5: b, true: c, 2026-11-23: d}
        """
    )
    assert tree["other"] == {"a": 3, "b": {"c": 2}}
    tree["list"][0]["b"]["c"] = "changed"
    assert tree["list"][1] == tree["base"] == {"a": 1, "b": {"c": 2}}
    assert tree["true"] == {"2": "a", "1.5": "b", "true": "c", "2026-11-23": "d"}


def test_documents_have_numbers_and_lines() -> None:
    text = "# a comment\n---\nkind: A\n---\n# nothing\n---\n\n\nkind: B\nx: |\n  ---\n---\n"
    assert [(each.number, each.line, each.tree["kind"], str(each)) for each in read(text, "f")] == [
        (1, 3, "A", "f: document 1 (line 3)"),
        (3, 9, "B", "f: document 3 (line 9)"),
    ]


def test_json_comes_one_object_after_the_other_too() -> None:
    """As kubectl takes it, and jq prints it."""
    text = '\ufeff{"kind": "A"}\n{"kind":\n"B"} {"kind": "C"}\n\n'
    assert [(each.number, each.line, each.tree["kind"]) for each in read(text, "f")] == [
        (1, 1, "A"), (2, 2, "B"), (3, 3, "C"),
    ]  # fmt: skip
    with pytest.raises(ManifestError, match="document 2"):
        list(read('{"kind": "A"}\n[1]', "f"))


@pytest.mark.parametrize(
    "text", ['{"kind": "A"}\n---\n{"kind": "B"}', '{"kind": "A"}\n--- {kind: B}', "{kind: A}\n---\nkind: B"]
)
def test_what_begins_as_json_and_goes_on_as_yaml_is_yaml(text: str) -> None:
    assert [each.tree["kind"] for each in read(text, "f")] == ["A", "B"]


def test_json_is_yaml_too() -> None:
    tree = {"kind": "Pod", "metadata": {"annotations": {"a": "\ud83d\ude00\u2028\x7f", "b": "a/b"}}}
    assert one(json.dumps(tree)) == one(json.dumps(tree, indent=4)) == json.loads(json.dumps(tree))


BAD = {
    "kind: A\n---\n[1]\n": "f: document 2 (line 3): not a Kubernetes object: it has no `kind`",
    "kind: A\n---\nkind: 1\n": "f: document 2 (line 3): not a Kubernetes object: it has no `kind`",
    "text": "f: document 1 (line 1): not a Kubernetes object: it has no `kind`",
    "kind: A\n---\nkind: B\n  x: 1\n": "f: document 2 (line 4, column 4): not YAML: mapping values are not allowed",
    "kind: A\n---\nkind: B\nx: {{ y }}\n": "f: document 2 (line 4, column 5): not YAML: found unhashable key",
    "kind: A\nx: *nowhere\n": "f: document 1 (line 2, column 4): not YAML: found undefined alias 'nowhere'",
    "kind: A\nx: !!python/name:os.system\n": "f: document 1 (line 2, column 4): not YAML: could not determine a constr",
    "kind: A\nx: '\n": "f: document 1 (line 3, column 1): not YAML: found unexpected end of stream",
    "kind: A\n\tx: 1\n": "f: document 1 (line 2, column 1): not YAML: found character '\\t' that cannot start",
    "kind: A\nx: 1\ny: \x07\n": "f: line 3: not text: the character 0x7",
    "kind: A\n---\nkind: B\nx: !!int a\n": "f: document 2 (line 3): has no form in JSON: invalid literal for int()",
    "kind: A\nx: !!timestamp x\n": "f: document 1 (line 1): not YAML: a value is not of the type that its tag (!!)",
    "kind: A\nx: !!float ''\n": "f: document 1 (line 1): not YAML: a value is not of the type that its tag (!!) names",
    "kind: A\nx: !!binary aGk=\n": "f: document 1 (line 1): has no form in JSON: Object of type bytes",
    'kind: A\nx: "\\ud83d"\n': "f: document 1 (line 1): has no form in JSON: ",
    "kind: A\nx: &a [*a]\n": "f: document 1 (line 1): has no form in JSON: an anchor's value contains itself",
    "kind: A\nx: !!float nan\n": "f: document 1 (line 1): has no form in JSON: Out of range float",
    "kind: A\n---\nkind: B\nx: " + "[" * 2000: "nested too deeply",
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), BAD.items(), ids=[text[:40] for text in BAD])
def test_bad_input_names_document_and_line(text: str, said: str) -> None:
    with pytest.raises(ManifestError) as caught:
        list(read(text, "f"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def _nested(levels: int, first: str, each: str) -> str:
    """Anchors that each hold ten of the one before."""
    lines = ["kind: X", f"a0: &a0 {first}"]
    lines += [f"a{at}: &a{at} {each.format(', '.join([f'*a{at - 1}'] * 10))}" for at in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        _nested(12, "[x, x]", "[{}]"),
        _nested(12, "{x: 1}", "{{<<: [{}]}}"),
        f"kind: X\na: &a {'x' * 50_000}\nb: [{', '.join(['*a'] * 2_000)}]\n",
        "---\n".join([f"kind: X\na: &a {'x' * 500}\nb: [{', '.join(['*a'] * 500)}]\n"] * 6),
    ],
)
def test_what_aliases_repeat_has_a_bound(text: str) -> None:
    with pytest.raises(
        ManifestError, match=r"f: document \d \(line \d+\): its aliases repeat more than 1,000,000 char"
    ):
        list(read(text, "f"))


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {<<: *a}", "a: &a {? *a : 1}"])
def test_what_contains_itself_is_no_manifest(text: str) -> None:
    with pytest.raises(ManifestError, match="has no form in JSON: an anchor's value contains itself"):
        list(read(f"kind: X\n{text}\n", "f"))


def test_anchors_of_a_usual_size_are_copies() -> None:
    env = "[" + ", ".join(f"{{name: VARIABLE_{at}, value: {'x' * 40}}}" for at in range(100)) + "]"
    (document,) = read(f"kind: X\nenv: &env {env}\nall: [{', '.join(['*env'] * 40)}]\n", "f")
    assert document.tree["all"] == [document.tree["env"]] * 40
    assert document.tree["all"][0] is not document.tree["all"][1]
