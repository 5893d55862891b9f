"""`plane-webhook preview`: the decision on files, as people and programs read it."""

from __future__ import annotations

import json
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import jsonpatch
import pytest

from tests.admission import oracle
from webhook import cli
from webhook.manifest import read, workloads
from webhook.preview import preview
from webhook.settings import Settings, parse

PROGRAM = str(Path(sysconfig.get_path("scripts"), "plane-webhook"))

API = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: plane-api-wl, namespace: plane}
spec:
  template:
    metadata: {labels: {app: api}}
    spec:
      containers:
        - name: api
          image: makeplane/backend-commercial:v2.6.3
          command: [/bin/bash, -c, "set -e\\nexec ./bin/docker-entrypoint-api-ee.sh\\n"]
"""
BARE = API.replace("plane-api-wl", "bare-api-wl").replace("          command", "          # command")
WORKER = API.replace("plane-api-wl", "plane-worker-wl").replace("api-ee", "worker")
WEB = "kind: Deployment\nmetadata: {name: web}\nspec: {template: {spec: {containers: [{name: web, image: web}]}}}\n"
TRICKY = """\
# a document that makes no pods, and each trap of YAML that was met
apiVersion: v1
kind: ConfigMap
metadata:
  name: tricky
  annotations: &common {date: 2026-11-23, time: 1:30, sha: 35e9041, octal: "010", hex: "0x10", sign: "=", merge: "<<"}
  labels: {<<: *common, on: "on", "yes": "y", "null": "~"}
data:
  number: 010
  float: 1e3
  flags: [on, off, y, n, ~]
  literal: |
    first  \n    \tsecond
      third

  folded: >-
    one
    two
  empty: ""
  colon: "a: b"
  unicode: "é😀 \\u2028 \\x85 \\ud83d\\ude00"
  template: '{{ "x" }}'
"""


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "preview", *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(text: str, name: str = "manifests.yaml") -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["preview", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


# --- exit codes


@pytest.mark.parametrize(
    ("text", "config", "code"),
    [
        (API, "", 0),
        (BARE, "", 1),
        (WORKER, "", 0),
        (WORKER, "workloads: [api]", 1),
        (WORKER, "workloads: [worker]", 0),
        (WEB, "", 1),
        ("", "", 1),
        ("# nothing\n---\n", "", 1),
        (WEB + "---\n" + API, "", 0),
        ("kind: X\n---\n- 1\n", "", 2),
        (API, "envs: {}", 2),
    ],
)
def test_the_exit_code_says_what_was_found(
    file: Any, capsys: pytest.CaptureFixture[str], text: str, config: str, code: int
) -> None:
    for output in ("diff", "yaml", "json"):
        given = command(capsys, file(text), "--config", file(config, "config.yaml"), "--output", output)
        assert given[0] == code
        assert bool(given[2]) is (code == 2)


def test_a_pipe_of_manifests_is_read_and_diffed() -> None:
    for arguments in ([], ["-"], ["-", "--output", "diff"]):
        done = run(*arguments, stdin=API)
        assert done.returncode == 0, done.stderr
        assert "\n1 of 1 workloads would change.\n" in done.stdout
        assert done.stderr == ""


def test_bad_input_is_said_with_document_and_line_and_no_traceback(file: Any) -> None:
    path = file(API + "---\nkind: Deployment\n metadata: {}\n")
    done = run(path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"plane-webhook: {path}: document 2 (line 14, column 10): not YAML: mapping values are not allowed here\n"
    )


def test_a_reader_that_stops_early_is_no_error() -> None:
    many = "---\n".join([API] * 40)
    done = subprocess.run(
        ["sh", "-c", '"$0" preview --output yaml - | head -n 1', PROGRAM],
        input=many, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("apiVersion: apps/v1\n", "")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("binary", b"kind: \xff", "not UTF-8 text: 'utf-8' codec can't decode byte 0xff in position 6"),
        ("control", b"kind: Pod\n\n\x00", "line 3: not text: the character 0x0"),
        ("list", b"- kind: Pod", "document 1 (line 1): not a Kubernetes object: it has no `kind`"),
        (
            "template",
            b"kind: Deployment\nspec: {template: {spec: {containers: [{command: x}]}}}",
            "document 1 (line 1): Deployment ?: not a pod template: Expected `array | null`, got `str` - at `$.spec.co",
        ),
        (
            "value",
            b"kind: Pod\nmetadata: {name: p}\nspec: {containers: [{env: [{name: A, value: 5}]}]}",
            "document 1 (line 1): Pod p: not a pod template: Expected `str | null`, got `int` - at `$.spec.containers[",
        ),
    ],
)
def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    code, out, err = command(capsys, str(path))
    assert (code, out) == (2, "")
    assert err.startswith(f"plane-webhook: {path}: {said}")


@pytest.mark.parametrize("missing", ["nowhere.yaml", "."])
def test_a_file_that_can_not_be_read(capsys: pytest.CaptureFixture[str], missing: str) -> None:
    code, out, err = command(capsys, missing)
    assert (code, out) == (2, "")
    assert err.startswith(f"plane-webhook: {missing}: can't be read: ")


def test_wrong_arguments_are_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["preview", "--output", "toml"])
    assert caught.value.code == 2
    assert "diff" in capsys.readouterr().err


# --- what is shown


def test_the_diff_can_be_read_by_a_person() -> None:
    shown = preview([("f", f"{API}---\n{WEB}---\n{WORKER}---\n{BARE}")], Settings()).diff()
    for pattern, name in ((r"[\d,]+ bytes", "N bytes"), (r"'\{.*\}'", "'JSON'")):
        shown = re.sub(pattern, name, shown)
    assert shown.startswith((Path(__file__).parent / "fixtures" / "preview.diff").read_text(encoding="utf-8"))


def test_json_has_a_row_for_each_workload_and_patches_that_apply() -> None:
    text = f"{WEB}---\n{API}---\n{WORKER}---\n{BARE}"
    settings = parse("workloads: [api]")
    report = json.loads(preview([("f", text)], settings).json())
    rows = report["workloads"]
    assert [(row["workload"], row["reason"], row["document"], row["line"]) for row in rows] == [
        ("Deployment web", "not-plane", 1, 1),
        ("Deployment plane/plane-api-wl", "injected", 2, 5),
        ("Deployment plane/plane-worker-wl", "not-asked", 3, 17),
        ("Deployment plane/bare-api-wl", "not-effective", 4, 29),
    ]
    assert rows[1]["risks"] == ["rotation-off-no-memory-limit"]
    for row, document, after in zip(rows, read(text, "f"), preview([("f", text)], settings).documents, strict=True):
        patched = jsonpatch.apply_patch(document.tree["spec"]["template"], row["patch"])
        assert patched == after.tree["spec"]["template"]


def test_several_files_and_namespaces(file: Any, capsys: pytest.CaptureFixture[str]) -> None:
    config = file("namespaces: {plane: {workloads: [worker]}}", "config.yaml")
    paths = [file(API, "a.yaml"), file(WORKER, "b.yaml"), file(API.replace(", namespace: plane", ""), "c.yaml")]
    code, out, _ = command(capsys, *paths, "--config", config, "--output", "json")
    assert code == 0
    rows = json.loads(out)["workloads"]
    assert [(row["source"], row["reason"]) for row in rows] == [
        (paths[0], "not-asked"), (paths[1], "injected"), (paths[2], "injected"),
    ]  # fmt: skip


# --- what is written


def test_yaml_applies_changes_nothing_else_and_is_the_same_the_second_time() -> None:
    text = f"{TRICKY}---\n{API}---\n{WEB}---\n{BARE}"
    first = preview([("f", text)], Settings())
    written = first.yaml()
    before, after = ([document.tree for document in read(each, "f")] for each in (text, written))
    assert [document.tree for document in first.documents] == after
    for old, new in zip(before, after, strict=True):
        if "template" in new.get("spec", {}):
            new["spec"]["template"] = oracle.without_injection(new["spec"]["template"], old["spec"]["template"])
        assert oracle.same(old, new)
    second = preview([("f", written)], Settings())
    assert second.yaml() == written
    assert second.reached
    assert [change.decision.reason.value for change in second.changes] == [
        "already-injected", "not-plane", "not-effective",
    ]  # fmt: skip
    assert "\n0 of 3 workloads would change." in second.diff()


CONTAINERS = "containers: [{name: a, env: null, command: [./bin/docker-entrypoint-api.sh]}]"


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        (f"kind: Pod\nspec: {{{CONTAINERS}}}", 1),
        (f"kind: CronJob\nspec: {{jobTemplate: {{spec: {{template: {{spec: {{{CONTAINERS}}}}}}}}}}}", 1),
        (f"kind: List\nitems:\n- kind: Secret\n- &pod {{kind: Pod, spec: {{{CONTAINERS}}}}}\n- *pod\n", 2),
        (f"kind: PodList\nitems:\n- {{kind: Pod, spec: {{{CONTAINERS}}}}}", 1),
        (f"kind: StatefulSet\nspec: {{template: {{metadata: null, spec: {{volumes: null, {CONTAINERS}}}}}}}", 1),
    ],
)
def test_each_kind_that_makes_pods_is_changed_in_what_is_written(text: str, changed: int) -> None:
    result = preview([("f", text)], Settings())
    assert [change.decision.reason.value for change in result.changes] == ["injected"] * changed
    templates = [each.template for document in read(result.yaml(), "f") for each in workloads(document)]
    assert len(templates) == changed
    for template in templates:
        assert template["spec"]["containers"][0]["command"][0] == "/bin/sh"
        assert template["spec"]["volumes"][0]["name"] == "plane-webhook"
        assert "plane-webhook/provenance" in template["metadata"]["annotations"]


def test_preview_decides_as_the_webhook_does() -> None:
    settings = parse("publish: {confirm: false}\nnamespaces: {plane: {precedence: chart}}")
    for text in (API, WEB, WORKER, BARE):
        (document,) = read(text, "f")
        (change,) = preview([("f", text)], settings).changes
        template = document.tree["spec"]["template"]
        outcome = oracle.admit(template, settings, namespace=change.workload.namespace)
        assert outcome.pod == change.workload.template
        assert outcome.answer.reason == change.decision.reason
        assert outcome.answer.risks == tuple(risk.value for risk in change.decision.risks)
