"""`plane-webhook preview`: the decision on files, as people and programs read it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import jsonpatch
import pytest

from tests.admission import oracle
from webhook import cli
from webhook.manifest import read
from webhook.preview import Source, preview, shown
from webhook.preview.templates import workloads
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
        (
            "list",
            b"- kind: Pod",
            "document 1 (line 1): not a Kubernetes object: it has no `kind`. Of a chart, give what `helm template` pri",
        ),
        (
            "source",
            b"kind: Pod\nmetadata:\n  {{- with .Values.labels }}\n  labels: {{ . }}\n  {{- end }}\n",
            "document 1 (line 3, column 5): not YAML: expected the node content, but found '-'. Of a chart, give what",
        ),
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


def test_a_file_that_can_not_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capsys, "nowhere.yaml")
    assert (code, out) == (2, "")
    assert err.startswith("plane-webhook: nowhere.yaml: can't be read: ")


def shell(text: str, path: str, **env: str) -> subprocess.CompletedProcess[str]:
    words = ["sh", "-c", f'"{PROGRAM}" preview {text}', "sh", path]
    return subprocess.run(
        words, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **env}, encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- <&-", "stdin is closed"),
        ('"$1" >&-', "stdout is closed"),
        ('"$1" >/dev/full', "stdout: can't be written: No space left on device"),
    ],
)
def test_what_nobody_could_get_is_exit_2(file: Any, text: str, said: str) -> None:
    """Not 1, which would say that nothing is injected."""
    done = shell(text, file(API))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"plane-webhook: {said}\n")


def test_a_letter_that_the_terminal_has_not_is_exit_2(file: Any) -> None:
    done = shell('"$1"', file(API.replace("name: plane-api-wl", 'name: "\u2192"')), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("plane-webhook: stdout: can't be written: 'ascii' codec can't encode")


def test_who_reads_no_more_is_no_error_and_complaints_get_into_no_manifest(file: Any) -> None:
    path = file(f"{API}---\n{SCRIPT}")
    done = shell('"$1" | head -1', path)
    assert (done.returncode, done.stderr) == (0, "")
    assert shell('"$1" --output yaml 2>&-', path).stdout == run(path, "--output", "yaml").stdout


def test_ctrl_c_ends_it_without_a_traceback(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    words = ["env", "--default-signal=INT", PROGRAM, "preview", pipe]  # a job in the background may have it ignored
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process, pipe.open("wb"):  # opened when it reads
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 130


def test_wrong_arguments_are_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["preview", "--output", "toml"])
    assert caught.value.code == 2
    assert "diff" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["preview"], ["serve", "--cert-dir", "x"], ["certs", "issue", "--dir", "x", "--host", "y"]]
)
def test_an_option_that_is_none_shows_how_its_command_is_called(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([*words, "--wrong"])
    assert caught.value.code == 2
    name = "plane-webhook " + " ".join(words[: 2 if words[0] == "certs" else 1])
    err = capsys.readouterr().err
    assert err.startswith(f"usage: {name} [-h]")
    assert err.endswith(f"{name}: error: unrecognized arguments: --wrong\n")


# --- what is shown


def test_the_diff_can_be_read_by_a_person() -> None:
    text = shown.diff(preview([Source("f", f"{API}---\n{WEB}---\n{WORKER}---\n{BARE}")], Settings()))
    for pattern, name in ((r"[\d,]+ bytes", "N bytes"), (r"'\{.*\}'", "'JSON'")):
        text = re.sub(pattern, name, text)
    assert text.startswith((Path(__file__).parent / "fixtures" / "preview.diff").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            "",
            "within 1 s is kept in Plane's Redis and delivered later. Where it can't be kept: publishing",
        ),
        ("", "at most 6 s (one more where Redis doesn't answer) and is an error then."),
        ("publish: {patience: 2.5, timeout: 7}", "within 2.5 s is kept"),
        (
            "publish: {patience: 2.5, timeout: 7}",
            "at most 9.5 s (one more where Redis doesn't answer) and is an error then.",
        ),
        (
            "publish: {spool: none}",
            "\nPublishing a task takes at most 6 s and is an error then, for there is no spool.",
        ),
        (
            "env: {celery_task_publish_retry: false}",
            "\nPublishing a task takes at most 6 s and is an error then, for celery_task_publish_retry is false",
        ),
        ("publish: {confirm: false}", "\nTasks are published without confirmation, as Plane itself does"),
    ],
)
def test_it_says_how_long_a_publish_may_take(config: str, said: str) -> None:
    assert said in shown.diff(preview([Source("f", API)], parse(config)))


def test_json_has_a_row_for_each_workload_and_patches_that_apply() -> None:
    text = f"{WEB}---\n{API}---\n{WORKER}---\n{BARE}"
    settings = parse("workloads: [api]")
    report = json.loads(shown.json_report(preview([Source("f", text)], settings)))
    rows = report["workloads"]
    assert [(row["workload"], row["reason"], row["document"], row["line"]) for row in rows] == [
        ("Deployment web", "not-plane", 1, 1),
        ("Deployment plane/plane-api-wl", "injected", 2, 5),
        ("Deployment plane/plane-worker-wl", "not-asked", 3, 17),
        ("Deployment plane/bare-api-wl", "not-effective", 4, 29),
    ]
    assert rows[1]["risks"] == ["rotation-off-no-memory-limit"]
    for row, document, after in zip(
        rows, read(text, "f"), preview([Source("f", text)], settings).documents, strict=True
    ):
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
    first = preview([Source("f", text)], Settings())
    written = shown.yaml(first)
    before, after = ([document.tree for document in read(each, "f")] for each in (text, written))
    assert [document.tree for document in first.documents] == after
    for old, new in zip(before, after, strict=True):
        if "template" in new.get("spec", {}):
            new["spec"]["template"] = oracle.without_injection(new["spec"]["template"], old["spec"]["template"])
        assert oracle.same(old, new)
    second = preview([Source("f", written)], Settings())
    assert shown.yaml(second) == written
    assert second.reached
    assert [change.decision.reason.value for change in second.changes] == [
        "already-injected", "not-plane", "not-effective",
    ]  # fmt: skip
    assert "\n0 of 3 workloads would change." in shown.diff(second)


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
    result = preview([Source("f", text)], Settings())
    assert [change.decision.reason.value for change in result.changes] == ["injected"] * changed
    templates = [
        each.template for document in read(shown.yaml(result), "f") for each in workloads(document, lambda _: False)
    ]
    assert len(templates) == changed
    for template in templates:
        assert template["spec"]["containers"][0]["command"][0] == "/bin/sh"
        assert template["spec"]["volumes"][0]["name"] == "plane-webhook"
        assert "plane-webhook/provenance" in template["metadata"]["annotations"]


def test_preview_decides_as_the_webhook_does() -> None:
    settings = parse("publish: {confirm: false}\nnamespaces: {plane: {precedence: chart}}")
    for text in (API, WEB, WORKER, BARE):
        (document,) = read(text, "f")
        (change,) = preview([Source("f", text)], settings).changes
        template = document.tree["spec"]["template"]
        outcome = oracle.admit(template, settings, namespace=change.workload.namespace)
        assert outcome.pod == change.workload.template
        assert outcome.answer.reason == change.decision.reason
        assert outcome.answer.risks == tuple(risk.value for risk in change.decision.risks)


# --- any kind, any folder, any namespace

ROLLOUT = API.replace("apps/v1", "argoproj.io/v1alpha1").replace("Deployment", "Rollout")
CONSUMER = API.replace("plane-api-wl", "plane-agent-wl").replace("api-ee", "agent-consumer")
POLLER = API.replace("plane-api-wl", "plane-poller-wl").replace("api-ee", "outbox-poller")
NEW = API.replace("plane-api-wl", "plane-new-wl").replace("api-ee", "dbos-worker")
SCRIPT = "kind: ConfigMap\nmetadata: {name: scripts}\ndata: {start.sh: exec ./bin/docker-entrypoint-api.sh}\n"
SIDECAR = API.replace("      containers:", "      initContainers:").replace(
    "image: makeplane", "restartPolicy: Always\n          image: makeplane"
)


@pytest.mark.parametrize(
    ("text", "reason", "workload"),
    [
        (ROLLOUT, "injected", "api"),
        (CONSUMER, "injected", "consumer"),
        (SIDECAR + "      containers: [{name: web, image: web}]\n", "injected", "api"),
        (POLLER, "other-means", ""),
        (NEW, "not-known", ""),
        (API.replace("api-ee", "migrator"), "not-a-publisher", ""),
    ],
)
def test_whatever_a_user_renders_is_decided(text: str, reason: str, workload: str) -> None:
    (change,) = preview([Source("f", text)], Settings()).changes
    assert (change.decision.reason, change.decision.workload) == (reason, workload)
    assert bool(change.operations) is (reason == "injected")


def test_what_can_not_be_judged_is_said_in_each_form(file: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(f"{API}---\n{SCRIPT}")
    said = "ConfigMap scripts: can't be judged: data.start.sh speaks of Plane and is part of no pod template"
    for output in ("diff", "summary"):
        assert said in command(capsys, path, "--output", output)[1].splitlines()
    (row,) = json.loads(command(capsys, path, "--output", "json")[1])["unjudged"]
    assert (row["object"], row["where"]) == ("ConfigMap scripts", f"{path}: document 2 (line 13)")
    code, out, err = command(capsys, path, "--output", "yaml")
    assert code == 0
    assert "can't be judged" not in out
    assert err == f"plane-webhook: {said}\n"


def test_a_template_of_another_kind_that_is_none_is_named_and_the_rest_decided() -> None:
    broken = "kind: Rollout\nmetadata: {name: r}\nspec: {template: {spec: {containers: [{command: x}]}}}\n"
    result = preview([Source("f", f"{broken}---\n{API}")], Settings())
    assert len(result.changes) == 1
    assert [str(each)[:53] for each in result.unjudged] == ["Rollout r: can't be judged: not a pod template: Expec"]


@pytest.mark.parametrize("output", ["diff", "summary", "json", "yaml"])
def test_no_name_moves_a_cursor(file: Any, output: str) -> None:
    odd = "\\e[2J\\r"
    named = API.replace("name: plane-api-wl", f'name: "a{odd}"').replace("name: api\n", f'name: "b{odd}"\n')
    script = SCRIPT.replace("name: scripts", f'name: "c{odd}"').replace("start.sh", f'"d{odd}"')
    done = run(file(f"{named}---\n{script}---\n{WEB}"), "--output", output)
    assert done.returncode == 0
    assert [each for each in done.stdout + done.stderr if not each.isprintable() and each != "\n"] == []
    broken = run(file(named.replace("containers:", "containers: x #"), "broken.yaml"))
    assert (broken.returncode, "\x1b" in broken.stderr) == (2, False)


def test_a_namespace_for_manifests_that_name_none(file: Any, capsys: pytest.CaptureFixture[str]) -> None:
    config = file("namespaces: {plane: {workloads: [worker]}}", "config.yaml")
    path = file(f"{API.replace(', namespace: plane', '')}---\n{API.replace('namespace: plane', 'namespace: other')}")
    arguments = [path, "--config", config, "--output", "json"]
    for options, reasons, namespaces in (
        ([], ["injected", "injected"], ["", "other"]),
        (["--namespace", "plane"], ["not-asked", "injected"], ["plane", "other"]),
    ):
        rows = json.loads(command(capsys, *arguments, *options)[1])["workloads"]
        assert [row["reason"] for row in rows] == reasons
        assert [row["namespace"] for row in rows] == namespaces
        assert [len(row["notes"]) for row in rows] == [int(not each) for each in namespaces]
    for settings in ("workloads: [worker]", "workloads: [api]"):
        text = f"{settings}\nnamespaces: {{plane: {{workloads: [worker]}}}}"
        arguments = [file(API.replace(", namespace: plane", "")), "--config", file(text, "config.yaml")]
        for output in ("diff", "summary"):
            said = command(capsys, *arguments, "--output", output)[1]
            assert said.count("no namespace is named (see --namespace)") == 1


def test_a_folder_is_read_whole_and_what_is_no_manifest_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = tmp_path / "release"
    for name, text in (
        ("b/worker.yml", WORKER),
        ("a/api.yaml", API),
        ("web.json", json.dumps({"kind": "Pod", "metadata": {"name": "w"}, "spec": {"containers": []}})),
        ("values.yaml", "replicas: 1\n"),
        ("utf-16.yaml", "\udcff\udcfe"),
        ("templates/x.yaml", "kind: {{ .Values.kind }}\n"),
        ("notes.txt", "kind: Pod"),
        (".git/hidden.yaml", "x"),
    ):
        (release / name).parent.mkdir(parents=True, exist_ok=True)
        (release / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    (release / "folder.yaml").mkdir()
    os.mkfifo(release / "pipe.yaml")  # nobody writes into it
    code, out, err = command(capsys, str(release), "--output", "json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert [row["source"] for row in report["workloads"]] == [
        f"{release}/{name}" for name in ("a/api.yaml", "b/worker.yml", "web.json")
    ]
    assert [each["where"] for each in report["unjudged"]] == [
        f"{release}/{name}" for name in ("templates/x.yaml", "utf-16.yaml", "values.yaml")
    ]
    assert report["unjudged"][1]["why"].startswith("not UTF-8 text: ")
    assert [report["unjudged"][at]["why"].endswith("`helm template` prints") for at in (0, 2)] == [True, True]
    (release / "link.yaml").symlink_to("nowhere")
    assert command(capsys, str(release)) == (
        2, "", f"plane-webhook: {release}/link.yaml: can't be read: No such file or directory\n",
    )  # fmt: skip
    (tmp_path / "empty").mkdir()
    assert command(capsys, str(tmp_path / "empty")) == (
        2, "", f"plane-webhook: {tmp_path}/empty: no file in this folder ends in .yaml, .yml or .json\n",
    )  # fmt: skip


def test_the_summary_is_a_table_and_explains_its_codes() -> None:
    text = f"{WEB}---\n{API}---\n{CONSUMER}---\n{POLLER}---\n{NEW}---\n{BARE}---\n{SCRIPT}"
    lines = shown.summary(preview([Source("f", text)], Settings())).splitlines()
    assert lines[:8] == [
        "WORKLOAD                          CONTAINER  RUNS      DECISION       RISKS",
        "Deployment web                    -          -         not-plane",
        "Deployment plane/plane-api-wl     api        api       injected       rotation-off-no-memory-limit",
        "Deployment plane/plane-agent-wl   api        consumer  injected",
        "Deployment plane/plane-poller-wl  api        -         other-means",
        "Deployment plane/plane-new-wl     api        -         not-known",
        "Deployment plane/bare-api-wl      api        api       not-effective",
        "",
    ]
    codes = [line.partition(":")[0] for line in lines[8:-2]]
    assert codes == [
        "not-plane", "injected", "other-means", "not-known", "not-effective", "rotation-off-no-memory-limit",
    ]  # fmt: skip
    assert lines[-2].startswith("ConfigMap scripts: can't be judged: ")
    assert lines[-1] == "2 of 6 workloads would change."
    several = shown.summary(preview([Source("a.yaml", API), Source("b.yaml", WEB)], Settings())).splitlines()
    assert [line.split()[0] for line in several[:3]] == ["SOURCE", "a.yaml", "b.yaml"]
    assert shown.summary(preview([], Settings())) == "0 of 0 workloads would change."


def terminal(path: str, output: str, **env: str) -> str:
    """What preview shows on a terminal of its own."""
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [PROGRAM, "preview", path, "--output", output],
        stdout=theirs, env={"PATH": "/usr/bin:/bin", "TERM": "xterm", **env}, timeout=60, check=False,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 65536):
            seen += piece
    except OSError:  # Linux's way to say that nobody writes any more
        pass
    finally:
        os.close(ours)
    assert done.returncode == 0
    return seen.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("output", ["diff", "summary"])
def test_colours_are_for_terminals_and_for_those_who_want_them(file: Any, output: str) -> None:
    path = file(WEB + "---\n" + CONSUMER.replace("api-wl", "x"))
    plain = run(path, "--output", output).stdout
    assert "\x1b" not in plain
    # A pty holds 4 kB until it is read: a small text.
    coloured = terminal(path, output)
    assert "\x1b[32m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain
    assert terminal(path, output, NO_COLOR="1") == terminal(path, output, TERM="dumb") == plain
    assert "\x1b" in terminal(path, output, NO_COLOR="")


# --- what envFrom brings

VARS = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: vars, namespace: plane}
data: {GUNICORN_MAX_REQUESTS: "1200", REQUESTS: "7", OTHER: x}
---
apiVersion: v1
kind: List
items:
- kind: Secret
  metadata: {name: keys}
  stringData: {CELERY_BROKER_POOL_LIMIT: hidden, GUNICORN_MAX_REQUESTS: hidden}
"""
WON = "wins over {} of the webhook's configuration"
LOST = "{} of the webhook's configuration wins over"
WOULD = "would win over the webhook's configuration"
MISSING = "is not among these manifests: what it has of "


@pytest.mark.parametrize(
    ("sources", "webhook", "chart"),
    [
        (
            "{configMapRef: {name: vars}}",
            [f"{LOST.format(0)} GUNICORN_MAX_REQUESTS=1200 of ConfigMap vars"],
            [f"GUNICORN_MAX_REQUESTS=1200 of ConfigMap vars {WON.format(0)}"],
        ),
        (  # the last one counts
            "{secretRef: {name: keys}}, {configMapRef: {name: vars}}",
            [
                f"{LOST.format(0)} GUNICORN_MAX_REQUESTS=1200 of ConfigMap vars",
                f"{LOST.format(10)} CELERY_BROKER_POOL_LIMIT of Secret keys",
            ],
            [
                f"GUNICORN_MAX_REQUESTS=1200 of ConfigMap vars {WON.format(0)}",
                f"CELERY_BROKER_POOL_LIMIT of Secret keys {WON.format(10)}",
            ],
        ),
        (
            "{configMapRef: {name: vars}, prefix: GUNICORN_MAX_}",
            [f"{LOST.format(0)} GUNICORN_MAX_REQUESTS=7 of ConfigMap vars"],
            [f"GUNICORN_MAX_REQUESTS=7 of ConfigMap vars {WON.format(0)}"],
        ),
        (  # what comes after the known one may have another: ours is in effect in neither case
            "{configMapRef: {name: vars}}, {secretRef: {name: away}, prefix: GUNICORN_}",
            [f"{LOST.format(0)} GUNICORN_MAX_REQUESTS=1200 of ConfigMap vars"],
            [
                f"Secret away {MISSING}GUNICORN_MAX_REQUESTS, GUNICORN_MAX_REQUESTS_JITTER {WOULD}",
                f"GUNICORN_MAX_REQUESTS=1200 of ConfigMap vars {WON.format(0)}",
            ],
        ),
        (
            "{configMapRef: {name: away}, prefix: GUNICORN_}, {configMapRef: {name: vars}}",
            [f"{LOST.format(0)} GUNICORN_MAX_REQUESTS=1200 of ConfigMap vars"],
            [
                f"GUNICORN_MAX_REQUESTS=1200 of ConfigMap vars {WON.format(0)}",
                f"ConfigMap away {MISSING}GUNICORN_MAX_REQUESTS_JITTER {WOULD}",
            ],
        ),
        ("{configMapRef: {name: vars}, prefix: X_}, {prefix: X}, {configMapRef: {}}, {secretRef: 1}, 2", [], []),
        ("", [], []),
    ],
)
def test_what_envfrom_brings_is_said_with_who_wins(sources: str, webhook: list[str], chart: list[str]) -> None:
    text = f"{API}          envFrom: [{sources}]\n---\n{VARS}"
    for precedence, notes in (("webhook", webhook), ("chart", chart)):
        result = preview([Source("f", text)], parse(f"precedence: {precedence}"), namespace="plane")
        (change,) = result.changes
        assert change.notes == [f"container api: {each}" for each in notes]
        assert json.loads(shown.json_report(result))["workloads"][0]["notes"] == change.notes
        for form, start in ((shown.diff, "! "), (shown.summary, f"{change.workload}: ")):
            assert [each for each in form(result).splitlines() if "container api: " in each] == [
                f"{start}{each}" for each in change.notes
            ]


def test_what_several_releases_have_is_not_guessed_and_the_containers_own_wins() -> None:
    taken = f"{API}          envFrom: [{{configMapRef: {{name: vars}}}}]\n"
    twice = f"{taken}---\n{VARS}---\n{VARS}"
    (change,) = preview([Source("f", twice)], parse("precedence: chart"), namespace="plane").changes
    assert [each[:70] for each in change.notes] == [
        "container api: ConfigMap vars stands in these manifests more than once"
    ]
    own = f"{taken}          env: [{{name: GUNICORN_MAX_REQUESTS, value: '5'}}]\n---\n{VARS}"
    for precedence in ("chart", "webhook"):
        (change,) = preview([Source("f", own)], parse(f"precedence: {precedence}"), namespace="plane").changes
        assert change.notes == []
    elsewhere = f"{taken}---\n{VARS.replace('namespace: plane', 'namespace: other')}"
    (change,) = preview([Source("f", elsewhere)], parse("precedence: chart"), namespace="plane").changes
    assert [MISSING in each for each in change.notes] == [True]
