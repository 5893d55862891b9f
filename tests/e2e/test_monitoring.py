"""The alerts as promtool tries them, and each of the dashboard's queries on a real Prometheus that scrapes us."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from lab.cache import LabError
from lab.fixtures import need
from lab.operating import OWN, Operate
from lab.packages import program
from lab.pods import INJECT, api_pod, create, injected
from lab.process import wait_for
from lab.prometheus import Prometheus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.controlplane import ControlPlane
    from lab.webhook import Webhook

pytestmark = pytest.mark.lab

CHART = Path(__file__).parents[2] / "manifests/chart"
ALERTS = CHART / "files/alerts.yaml"
DASHBOARD = CHART / "files/dashboard.json"
DOCS = Path(__file__).parents[2] / "docs/reference/monitoring.md"
RULES = {each["alert"]: each for group in yaml.safe_load(ALERTS.read_text())["groups"] for each in group["rules"]}

NAME = 'name="inject.pods.plane-webhook"'
FAILED_OPEN = f'apiserver_admission_webhook_fail_open_count{{{NAME},type="admit"}}'
REFUSED = f'apiserver_admission_webhook_rejection_count{{{NAME},error_type="calling_webhook_error"}}'
BY_NOBODY = f'apiserver_admission_webhook_rejection_count{{{NAME},error_type="no_error"}}'
ANOTHERS = 'apiserver_admission_webhook_fail_open_count{name="other.example.com"}'
CALL = "apiserver_admission_webhook_admission_duration_seconds_bucket{%s,le=%%s}" % NAME  # noqa: UP031
REVIEW = 'plane_webhook_request_duration_seconds_bucket{pod="a",le=%s}'
DECISIONS = 'plane_webhook_decisions_total{pod="a",reason="%s"}'
MALFORMED = 'plane_webhook_malformed_total{pod="a",status="%s"}'
NOT_AFTER = 'plane_webhook_certificate_not_after_timestamp_seconds{pod="%s"}'
UNUSABLE = 'plane_webhook_certificate_reload_errors_total{pod="a"}'
PODS = 'plane_webhook_operate_pods{plane_namespace="plane",state="%s"}'
EVICTIONS = 'plane_webhook_operate_evictions_total{plane_namespace="plane",outcome="%s"}'
REGISTERED = 'plane_webhook_operate_registered{pod="o"}'
LEADER = 'plane_webhook_operate_leader{pod="%s"}'
ERRORS = 'plane_webhook_operate_errors_total{pod="o"}'
DAY = 86400

# Ninety minutes of a cluster in which all is well, a value a minute in promtool's notation; its clock begins with 0.
WELL: dict[str, str | None] = {
    'plane_webhook_build_info{pod="a"}': "1x90",
    BY_NOBODY: "0+1x90",
    ANOTHERS: "0+9x90",
    **{CALL % f'"{le}"': f"0+{each}x90" for le, each in (("0.1", 9), ("0.5", 10), ("5", 10), ("+Inf", 10))},
    **{REVIEW % f'"{le}"': f"0+{each}x90" for le, each in (("0.001", 9), ("0.2", 10), ("1.0", 10), ("+Inf", 10))},
    DECISIONS % "injected": "0+3x90",
    MALFORMED % "405": "0+1x90",  # somebody who looks at ports
    NOT_AFTER % "a": f"{60 * DAY}x90",
    NOT_AFTER % "b": f"{31 * DAY}x90",
    UNUSABLE: "0x90",
    PODS % "injected": "6x90",
    PODS % "missed": "0x90",
    PODS % "outdated": "0x90",
    PODS % "not-in-effect": "0x90",
    PODS % "uncovered": "2x90",
    EVICTIONS % "made": "0x90",
    EVICTIONS % "refused": "0x90",
    REGISTERED: "1x90",
    LEADER % "o": "1x90",
    LEADER % "p": "0x90",  # stands by
    ERRORS: "0 1x89",
}  # fmt: skip
EVENT = "_x85 1x5"  # a counter that begins with its first event, five minutes ago
LATER = "3x85 4x5"  # one that was there before

# What differs from that, and which alert fires when the ninety minutes are over; the first of each says that of it.
CASES: list[tuple[str, dict[str, str | None], str | None]] = [
    ("all is well", {}, None),
    ("nothing is scraped", {'plane_webhook_build_info{pod="a"}': "1x70"}, "PlaneWebhookAbsent"),
    ("a gap of two minutes", {'plane_webhook_build_info{pod="a"}': "1x82 _x6 1x2"}, None),
    ("a first call failed", {FAILED_OPEN: EVENT}, "PlaneWebhookCallsFail"),
    ("one more call failed", {FAILED_OPEN: LATER}, "PlaneWebhookCallsFail"),
    ("a call failed an hour ago", {FAILED_OPEN: "_x30 1x60"}, None),
    ("a pod was refused for that", {REFUSED: EVENT}, "PlaneWebhookCallsFail"),
    ("one more was", {REFUSED: LATER}, "PlaneWebhookCallsFail"),
    ("a bug", {DECISIONS % "internal-error": EVENT}, "PlaneWebhookErrors"),
    ("one more", {DECISIONS % "internal-error": LATER}, "PlaneWebhookErrors"),
    ("a review that is none", {MALFORMED % "400": EVENT}, "PlaneWebhookErrors"),
    ("too many reviews", {MALFORMED % "503": LATER}, "PlaneWebhookErrors"),
    (
        "calls are slow",
        {CALL % f'"{le}"': f"0+{each}x90" for le, each in (("0.1", 5), ("0.5", 9))},
        "PlaneWebhookSlow",
    ),
    ("reviews are slow", {REVIEW % '"0.2"': "0+9x90"}, "PlaneWebhookSlow"),
    ("they have been for five minutes", {REVIEW % '"0.2"': "0+10x85 850+9x5"}, None),
    ("nobody asks, so nothing is slow", {REVIEW % f'"{le}"': "7x90" for le in ("0.001", "0.2", "1.0", "+Inf")}, None),
    ("a certificate ends in 29 days", {NOT_AFTER % "b": f"{29 * DAY}x90"}, "PlaneWebhookCertificateExpires"),
    ("none is served", {NOT_AFTER % "b": "0x90"}, "PlaneWebhookCertificateExpires"),
    ("it is being renewed", {NOT_AFTER % "b": f"{31 * DAY}x60 {30 * DAY}x20 {90 * DAY}x10"}, None),
    ("files that would not do", {UNUSABLE: "0x85 1x5"}, "PlaneWebhookCertificateUnusable"),
    ("pods slipped by", {PODS % "missed": "0x80 2x10"}, "PlaneWebhookPodsNotInjected"),
    ("a rollout mends it", {PODS % "missed": "0x85 2x3 0x2"}, None),
    ("pods with other settings", {PODS % "outdated": "0x20 2x70"}, "PlaneWebhookPodsOutdated"),
    ("a rollout mends that too", {PODS % "outdated": "0x60 2x30"}, None),
    ("the injection has no effect", {PODS % "not-in-effect": "0x80 2x10"}, "PlaneWebhookPodsNotInEffect"),
    ("an eviction is refused", {EVICTIONS % "refused": "0x60 1x30", PODS % "outdated": "0x50 2x40"},
        "PlaneWebhookEvictionsRefused"),
    ("the next one was made", {EVICTIONS % "refused": "0x60 1x30", PODS % "outdated": "0x50 2x12 0x28"}, None),
    ("evictions are made", {EVICTIONS % "made": "0x60 0+1x30", PODS % "outdated": "0x50 2x40"}, None),
    ("one was refused two hours ago", {EVICTIONS % "refused": "1x90", PODS % "outdated": "0x50 2x40"}, None),
    ("no registration", {REGISTERED: "1x80 0x10"}, "PlaneWebhookNotRegistered"),
    ("nobody acts", {LEADER % "o": "1x75 0x15"}, "PlaneWebhookOperateAbsent"),
    ("operate is not there", dict.fromkeys([*(LEADER % each for each in "op"), REGISTERED, ERRORS,
        *(EVICTIONS % each for each in ("made", "refused")), *(
        PODS % each for each in ("injected", "missed", "outdated", "not-in-effect", "uncovered"))]),
        "PlaneWebhookOperateAbsent"),
    ("another one acts now", {LEADER % "o": "1x80 0x10", LEADER % "p": "0x85 1x5"}, None),
    ("every request is refused", {ERRORS: "0x30 0+1x60"}, "PlaneWebhookOperateErrors"),
    ("three were", {ERRORS: "0x80 3x10"}, None),
]  # fmt: skip


@pytest.fixture(scope="module")
def promtool() -> str:
    need("prometheus")
    return program("promtool")


def tried(promtool: str, folder: Path, *tests: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    file = folder / "test.yaml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    argv = [promtool, "test", "rules", file]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def series(changed: dict[str, str | None]) -> list[dict[str, str]]:
    return [{"series": name, "values": values} for name, values in {**WELL, **changed}.items() if values is not None]


def test_promtool_reads_them_and_each_has_a_case_that_fires_it(promtool: str) -> None:
    checked = subprocess.run([promtool, "check", "rules", ALERTS], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(RULES)} rules found" in checked.stdout
    assert {alert for _, _, alert in CASES} == {None, *RULES}


def test_each_fires_when_it_should_and_no_other_does(promtool: str, tmp_path: Path) -> None:
    """All cases in one run; promtool names those that came out otherwise."""
    tests = []
    for name, changed, alert in CASES:
        firing: dict[str, Any] = {"expr": 'sum by (alertname) (ALERTS{alertstate="firing"})', "eval_time": "90m"}
        firing["exp_samples"] = [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert else []
        tests.append({"name": name, "interval": "1m", "input_series": series(changed), "promql_expr_test": [firing]})
    done = tried(promtool, tmp_path, *tests)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_it_says_names_the_namespace_and_the_number(promtool: str, tmp_path: Path) -> None:
    rule = RULES["PlaneWebhookPodsNotInjected"]
    said = {
        name: text.replace("{{ $value }}", "2").replace("{{ $labels.plane_namespace }}", "plane")
        for name, text in rule["annotations"].items()
    }
    labels = {**rule["labels"], "plane_namespace": "plane"}
    fires = {
        "alertname": rule["alert"],
        "eval_time": "90m",
        "exp_alerts": [{"exp_labels": labels, "exp_annotations": said}],
    }
    missed = series({PODS % "missed": "0x80 2x10"})
    done = tried(promtool, tmp_path, {"interval": "1m", "input_series": missed, "alert_rule_test": [fires]})
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_explained_in_the_docs_and_no_other() -> None:
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| `PlaneWebhook")]
    assert rows == [
        f"| `{name}` | {rule['labels']['severity']} | {rule.get('for', 'at once')} |" for name, rule in RULES.items()
    ]


@pytest.fixture(scope="module")
def prometheus(controlplane: ControlPlane, operate: Operate, serving: Webhook) -> Iterator[Prometheus]:
    """One that scrapes the webhook, `operate` and the API server, after some of all that they tell has happened."""
    need("prometheus")
    user = json.loads(controlplane.kubeconfig.read_text())["users"][0]["user"]
    targets = {
        "webhook": f"127.0.0.1:{serving.metrics_port}",
        "operate": f"127.0.0.1:{operate.metrics_port}",
        "apiserver": controlplane.url.removeprefix("https://"),
    }
    scrapes: list[dict[str, Any]] = [
        {"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()
    ]
    client = {"cert_file": user["client-certificate"], "key_file": user["client-key"], "insecure_skip_verify": True}
    scrapes[-1] |= {"scheme": "https", "tls_config": client}
    with Prometheus(scrapes, [ALERTS]) as running:
        wait_for(lambda: len(running.query("up == 1")) == len(targets), 20, "all are scraped")
        eventful(controlplane, serving)
        yield running
        controlplane.kubectl("delete", "namespace", "watched", "--wait=false")


def eventful(plane: ControlPlane, webhook: Webhook) -> None:
    """A pod that slips by, one that is injected, a call that fails, a pod refused, a request that is no review."""
    namespace = plane.namespace("watched")
    create(plane, namespace, api_pod("early")).raise_for_status()
    plane.namespace(namespace, INJECT)
    wait_for(lambda: injected(create(plane, namespace, api_pod(), dry_run=True).json()), 20, "pods are injected")

    def point(port: int, policy: str) -> None:
        changes = {"clientConfig/service/port": port, "failurePolicy": policy}
        patch = [{"op": "replace", "path": f"/webhooks/0/{path}", "value": value} for path, value in changes.items()]
        plane.kubectl("patch", "mutatingwebhookconfiguration", OWN, "--type=json", "-p", json.dumps(patch))

    point(1, "Ignore")  # nobody is there
    wait_for(lambda: not injected(create(plane, namespace, api_pod(), dry_run=True).json()), 20, "a call fails")
    point(1, "Fail")
    wait_for(lambda: not create(plane, namespace, api_pod(), dry_run=True).is_success, 20, "a pod is refused")
    point(webhook.port, "Ignore")
    wait_for(lambda: injected(create(plane, namespace, api_pod(), dry_run=True).json()), 20, "pods are injected again")
    httpx.post(f"{webhook.url}/mutate", json={}, verify=False, trust_env=False)  # noqa: S501 - no certificate is looked at


def test_each_query_of_the_dashboard_returns_data(prometheus: Prometheus) -> None:
    panels = [each for each in json.loads(DASHBOARD.read_text())["panels"] if each["type"] != "row"]
    queries = {target["expr"].replace("$__rate_interval", "5m") for each in panels for target in each["targets"]}
    empty = wait_for_none(lambda: {each for each in queries if not series_of(prometheus, each)})
    assert empty == set()


def series_of(prometheus: Prometheus, query: str) -> list[dict[str, Any]]:
    """What comes back, but for NaN: a quantile of nothing."""
    return [each for each in prometheus.query(query) if each["value"][1] != "NaN"]


def wait_for_none(look: Callable[[], set[str]]) -> set[str]:
    """What is still missing after half a minute."""
    with suppress(LabError):
        wait_for(lambda: not look(), 30, "none is missing")
    return look()


def test_the_alerts_are_about_metrics_that_there_are_and_two_of_them_fire(prometheus: Prometheus) -> None:
    expressions = " ".join(each["expr"] for each in RULES.values())
    named = set(re.findall(r"(?:plane_webhook|apiserver_admission)_\w+", expressions))
    assert len(named) > 10
    assert {each for each in named if not prometheus.query(each)} == set()
    firing = 'ALERTS{alertname="PlaneWebhookCallsFail", alertstate="firing"}'
    wait_for(lambda: prometheus.query(firing), 10, "the calls that failed are an alert")
    pending = 'ALERTS{alertname="PlaneWebhookPodsNotInjected", plane_namespace="watched"}'
    wait_for(lambda: prometheus.query(pending), 20, "and so is the pod that slipped by")
