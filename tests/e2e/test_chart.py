"""manifests/chart makes what manifests/base and the commands make; a real helm installs, changes and removes it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml

from lab.cache import LabError
from lab.container import Container
from lab.controlplane.programs import VERSIONS, binary
from lab.operating import HEAL, Kubelet, Operate, bind, bundle, endpoint, healed, kubelet, released, secret
from lab.pods import create
from lab.process import wait_for
from lab.webhook import Webhook, command
from tests.pages import commands, fenced, run
from webhook.settings import Settings, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from lab.controlplane import ControlPlane
    from lab.images import Image
    from lab.pods import Pod

pytestmark = pytest.mark.lab

MANIFESTS = Path(__file__).parents[2] / "manifests"
CHART = MANIFESTS / "chart"
OWN = "plane-webhook"
TEST = "plane-webhook-test"
HOST = "plane-webhook.plane-webhook.svc"

Objects = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `certs issue` makes for the chart's Service."""
    folder = tmp_path_factory.mktemp("chart") / "tls"
    command("certs", "issue", "--dir", folder, "--host", HOST)
    return folder


def helm(*words: str | Path, values: dict[str, Any] | None = None, program: str = "helm") -> str:
    """What `helm` prints that needs no cluster. LabError with its complaint."""
    words = (*words, "--kube-version", VERSIONS["kubernetes"], "--values", "-")
    done = subprocess.run(
        [binary(program), *words],
        input=json.dumps(values or {}),
        env={**os.environ, "KUBECONFIG": os.devnull},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode:
        raise LabError(done.stdout + done.stderr)
    return done.stdout + done.stderr if words[0] == "lint" else done.stdout


def rendered(tls: Path, namespace: str = OWN, *, tests: bool = False, **values: Any) -> Objects:
    """What the chart makes with these values, by kind and name; with a Secret of one's own unless they say.

    `tests`: with what `helm test` makes.
    """
    if not values.get("certificates", {}).keys() & {"source", "caBundle"}:
        own = {"source": "existing", "caBundle": (tls / "ca.crt").read_text()}
        values["certificates"] = {**own, **values.get("certificates", {})}
    values.setdefault("operate", {"enabled": False})
    skip = [] if tests else ["--skip-tests"]
    return by_name(helm("template", OWN, CHART, "--namespace", namespace, *skip, values=values))


def by_name(text: str) -> Objects:
    documents = [each for each in yaml.safe_load_all(text) if each]
    found = {(each["kind"], each["metadata"]["name"]): each for each in documents}
    assert len(found) == len(documents)
    return found


def kustomized(name: str) -> Objects:
    """What kustomize makes of a folder, but for the namespace and the hash in the ConfigMap's name."""
    text = subprocess.run([binary("kubectl"), "kustomize", MANIFESTS / name], capture_output=True, check=True).stdout
    objects = by_name(text.decode())
    del objects["Namespace", OWN]  # helm makes it, or finds it
    (hashed,) = (name for kind, name in objects if kind == "ConfigMap")
    configuration = objects.pop(("ConfigMap", hashed))
    configuration["metadata"] |= {"name": OWN, "labels": {"app.kubernetes.io/name": OWN}}
    objects["ConfigMap", OWN] = configuration
    for deployment in (each for (kind, _), each in objects.items() if kind == "Deployment"):
        deployment["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] = OWN
    return objects


@pytest.mark.parametrize(
    ("folder", "values"),
    [
        ("base", {}),
        ("cert-manager", {"certificates": {"source": "certManager"}, "operate": {"enabled": True}}),
        ("operate", {"certificates": {"source": "operate"}, "operate": {"enabled": True}}),
    ],
)
def test_with_the_defaults_each_object_is_that_of_kustomize(tls: Path, folder: str, values: dict[str, Any]) -> None:
    ours, theirs = rendered(tls, **values), kustomized(folder)
    for deployment in (each for (kind, _), each in ours.items() if kind == "Deployment"):
        annotations = deployment["spec"]["template"]["metadata"]["annotations"]
        assert len(annotations.pop("plane-webhook/configuration")) == 64  # in place of the ConfigMap's hashed name
    for objects in ours, theirs:
        assert parse(objects["ConfigMap", OWN].pop("data")["configuration.yaml"]) == Settings()
    if folder == "base":
        del ours["MutatingWebhookConfiguration", OWN]  # kustomize leaves that to the command: see below
    if folder == "operate":  # kustomize can't make it of the configuration; operate does
        (webhook,) = ours["MutatingWebhookConfiguration", OWN]["webhooks"]
        assert [each["name"] for each in webhook.pop("matchConditions")] == ["runs-plane"]
    assert ours == theirs


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no images": {"images": []},
    "others": {"images": ["localhost:5000/x", "a.b/c_d", "0.5"]},
    "one twice": {"images": ["a"], "namespaces": {"staging": {"images": ["a", "makeplane/plane-backend"]}}},
    "some in a namespace": {
        "namespaces": {"a": {"images": ["z/z"]}, "b": {"images": []}, "c": {"precedence": "chart"}}
    },
    "names that YAML reads otherwise": {
        "namespaces": {name: {"images": [name]} for name in ("on", "null", "1", "0x1f", "1e3", "2026-11-26", "0o7")}
    },
    "numbers": {
        "env": {"gunicorn_max_requests": 999_999_999, "celery_task_publish_retry": False},
        "publish": {"patience": 0.05, "timeout": 600, "spool_bytes": 1 << 40, "spool_tasks": 10_000_000},
    },
}


@pytest.mark.parametrize(
    ("namespace", "policy", "configuration"),
    [
        *((OWN, "Ignore", configuration) for configuration in CONFIGURATIONS.values()),
        ("tools", "Fail", {}),
        ("kube-system", "Ignore", {}),
        ("1e3", "Ignore", {}),
    ],
    ids=[
        *CONFIGURATIONS,
        "another namespace, and Fail",
        "the cluster's namespace",
        "a namespace that looks like a number",
    ],
)
def test_the_registration_is_what_the_command_prints_for_the_configuration(
    tls: Path, tmp_path: Path, namespace: str, policy: str, configuration: dict[str, Any]
) -> None:
    objects = rendered(tls, namespace, configuration=configuration, failurePolicy=policy)
    file = tmp_path / "configuration.yaml"
    file.write_text(objects["ConfigMap", OWN]["data"]["configuration.yaml"])
    assert parse(file.read_text()) == parse(json.dumps(configuration))
    where = ("--service", f"{namespace}/{OWN}", "--ca-file", tls / "ca.crt", "--failure-policy", policy)
    printed = yaml.safe_load(command("registration", "--config", file, *where))
    assert objects["MutatingWebhookConfiguration", OWN] == printed


@pytest.mark.parametrize("program", ["helm", "helm4"])
def test_as_a_subchart_its_parent_has_it_or_leaves_it_out(tmp_path: Path, program: str) -> None:
    """By the key that parents' conditions read; alone, where it would change nothing, `false` is refused."""
    ours = {"image": {"repository": "r/w"}}
    depends = {"name": OWN, "version": "*", "condition": f"{OWN}.enabled"}
    chart = {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [depends]}
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(chart))
    shutil.copytree(CHART, tmp_path / "charts" / OWN)
    found = {}
    for enabled in (True, False):
        values = {"global": {"storageClass": "x"}, OWN: {**ours, "enabled": enabled}}
        found[enabled] = by_name(helm("template", "release", tmp_path, values=values, program=program))
        assert "0 chart(s) failed" in helm("lint", tmp_path, values=values, program=program)
    assert found[False] == {}
    assert found[True].keys() == by_name(helm("template", OWN, CHART, values=ours, program=program)).keys()
    with pytest.raises(LabError, match="enabled"):
        helm("template", OWN, CHART, values={**ours, "enabled": False}, program=program)


def test_lint_has_nothing_against_it() -> None:
    linted = helm("lint", CHART, "--strict")
    assert "1 chart(s) linted, 0 chart(s) failed" in linted


POD = "Deployment spec template spec"
TOLERATION = {"key": "plane", "operator": "Exists", "effect": "NoSchedule"}
PEER = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
SERVER = {"ipBlock": {"cidr": "192.0.2.10/32"}}
ACCESS = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": OWN}}, "policyTypes": ["Ingress", "Egress"]}
SPREAD = {"maxSkew": 1, "labelSelector": {"matchLabels": {"app.kubernetes.io/name": OWN}}}

# Values, and what differs with them from what the defaults make; None is what is not there any more.
VALUES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "replicas": ({"replicas": 3}, {"Deployment spec replicas": 3}),
    "one replica can be drained": ({"replicas": 1}, {"Deployment spec replicas": 1, "PodDisruptionBudget": None}),
    "spread": (
        {"spread": [{"topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}]},
        {
            f"{POD} topologySpreadConstraints": [
                {**SPREAD, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
            ]
        },
    ),
    "resources": (
        {"resources": {"limits": {"memory": "1Gi"}}},
        {f"{POD} containers 0 resources limits memory": "1Gi"},
    ),
    "image": (
        {"image": {"repository": "registry.example:5000/plane-webhook", "tag": "1.0@sha256:" + "0" * 64}},
        {f"{POD} containers 0 image": "registry.example:5000/plane-webhook:1.0@sha256:" + "0" * 64},
    ),
    "pulling the image": (
        {"image": {"pullPolicy": "Always", "pullSecrets": ["a", "b"]}},
        {f"{POD} containers 0 imagePullPolicy": "Always", f"{POD} imagePullSecrets": [{"name": "a"}, {"name": "b"}]},
    ),
    "certificates of another name": (
        {"certificates": {"secret": "mine"}},
        {f"{POD} volumes 1 secret secretName": "mine"},
    ),
    "failure policy": ({"failurePolicy": "Fail"}, {"MutatingWebhookConfiguration webhooks 0 failurePolicy": "Fail"}),
    "priority class": (
        {"priorityClassName": "system-cluster-critical"},
        {f"{POD} priorityClassName": "system-cluster-critical"},
    ),
    "tolerations": (
        {"tolerations": [TOLERATION], "nodeSelector": {"kubernetes.io/os": "linux"}},
        {f"{POD} tolerations": [TOLERATION], f"{POD} nodeSelector": {"kubernetes.io/os": "linux"}},
    ),
    "annotations": (
        {"podAnnotations": {"a.example/b": "1", "prometheus.io/scrape": "false"}},
        {
            "Deployment spec template metadata annotations a.example/b": "1",
            "Deployment spec template metadata annotations prometheus.io/scrape": "false",
        },
    ),
    "OpenShift": (
        {"openshift": True},
        {f"{POD} securityContext {name}": None for name in ("runAsUser", "runAsGroup", "fsGroup")},
    ),
    "the node's network": (
        {"hostNetwork": {"enabled": True, "httpsPort": 18443, "metricsPort": 19090}},
        {
            f"{POD} hostNetwork": True,
            f"{POD} containers 0 args 3": "--port=18443",
            f"{POD} containers 0 args 4": "--metrics-port=19090",
            f"{POD} containers 0 ports 0 containerPort": 18443,
            f"{POD} containers 0 ports 1 containerPort": 19090,
            "Deployment spec template metadata annotations prometheus.io/port": "19090",
            "Deployment spec strategy rollingUpdate maxSurge": 0,
            "Deployment spec strategy rollingUpdate maxUnavailable": 1,
        },
    ),
    "network policy": (
        {"networkPolicy": {"enabled": True}},
        {
            "NetworkPolicy": {
                **ACCESS,
                "ingress": [
                    {"ports": [{"port": "https"}]},
                    {"ports": [{"port": "metrics"}], "from": [{"namespaceSelector": {}}]},
                ],
            }
        },
    ),
    "network policy for some": (
        {"networkPolicy": {"enabled": True, "httpsFrom": [SERVER], "metricsFrom": [PEER]}},
        {
            "NetworkPolicy": {
                **ACCESS,
                "ingress": [
                    {"ports": [{"port": "https"}], "from": [SERVER]},
                    {"ports": [{"port": "metrics"}], "from": [PEER]},
                ],
            }
        },
    ),
    "Prometheus Operator": (
        {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
        {
            "ServiceMonitor": {
                "selector": {"matchLabels": {"app.kubernetes.io/name": OWN}},
                "endpoints": [{"port": "metrics"}],
            },
            "Deployment spec template metadata annotations prometheus.io/scrape": None,
            "Deployment spec template metadata annotations prometheus.io/port": None,
        },
    ),
}
FORBIDDEN = {"the node's network": ["hostNetwork", "hostPort"]}
FOREIGN = ("monitoring.coreos.com/", "cert-manager.io/")


def leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """What a tree holds that holds nothing itself, each with the words that lead there."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    if not tree or not inner:
        yield path, tree
    for key, value in inner:
        yield from leaves(value, f"{path} {key}")


def flat(objects: Objects) -> dict[str, Any]:
    return {path: leaf for (kind, _), each in objects.items() for path, leaf in leaves(each, kind)}


def changed(before: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """What `flat` has after these changes, which are as in VALUES."""
    wanted = dict(before)
    for path, value in expected.items():
        for each in [each for each in wanted if each == path or each.startswith(f"{path} ")]:
            del wanted[each]
        wanted |= dict(leaves(value, path)) if value is not None else {}
    return wanted


def tried(controlplane: ControlPlane, template: dict[str, Any]) -> httpx.Response:
    """What the API server says of such a pod where Pod Security `restricted` is enforced."""
    restricted = controlplane.namespace("chart-restricted", {"pod-security.kubernetes.io/enforce": "restricted"})
    pod = {"metadata": {"name": "tried"}, "spec": {**template["spec"], "serviceAccountName": "default"}}
    return create(controlplane, restricted, pod, dry_run=True)


@pytest.mark.parametrize("name", VALUES)
def test_each_value_changes_what_it_is_for_and_nothing_else(controlplane: ControlPlane, tls: Path, name: str) -> None:
    """And what comes out is taken by the API server, its pods also where Pod Security `restricted` is enforced."""
    values, expected = VALUES[name]
    before, objects = flat(rendered(tls)), rendered(tls, **values)
    after = flat(objects)
    for path, value in expected.items():
        if value is not None and " " not in path:  # a whole object, by what it specifies
            metadata = {"name": OWN, "namespace": OWN, "labels": {"app.kubernetes.io/name": OWN}}
            metadata["labels"] |= values.get("serviceMonitor", {}).get("labels", {})
            version = objects[path, OWN]["apiVersion"]
            expected = expected | {path: {"apiVersion": version, "kind": path, "metadata": metadata, "spec": value}}
    assert after == changed(before, expected)

    controlplane.namespace(OWN)
    ours = [each for each in objects.values() if not each["apiVersion"].startswith(FOREIGN)]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": ours})
    controlplane.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", input=listed)

    answer = tried(controlplane, objects["Deployment", OWN]["spec"]["template"])
    assert [word for word in FORBIDDEN.get(name, []) if word not in answer.text] == []
    assert answer.status_code == (403 if name in FORBIDDEN else 201)


@pytest.mark.parametrize("how", [("--server-side", "--force-conflicts", "--field-manager=kustomize-controller"), ()])
def test_the_same_applied_again_is_no_change(controlplane: ControlPlane, tls: Path, how: tuple[str, ...]) -> None:
    """As GitOps tools do every few minutes: an object that comes out new each time is drift for ever."""
    values = {"networkPolicy": {"enabled": True}, "operate": {"enabled": True}, "dashboard": {"enabled": True}}
    controlplane.namespace(OWN)
    objects = [*rendered(tls, certificates={"source": "operate"}, **values).values()]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})

    def applied() -> list[tuple[str, int]]:
        controlplane.kubectl("apply", *how, "-f", "-", input=listed)
        items = json.loads(controlplane.kubectl("get", "-f", "-", "-o", "json", input=listed))["items"]
        return [(f"{each['kind']} {each['metadata']['name']}", each["metadata"].get("generation")) for each in items]

    assert applied() == applied()
    controlplane.kubectl("delete", "-f", "-", "--wait=false", input=listed)


@pytest.mark.parametrize(
    "name", ["image", "pulling the image", "priority class", "tolerations", "annotations", "OpenShift"]
)
def test_what_a_cluster_asks_of_pods_is_so_for_operate_and_the_test_too(
    controlplane: ControlPlane, tls: Path, name: str
) -> None:
    values, expected = VALUES[name]
    before, after = (rendered(tls, tests=True, operate={"enabled": True}, **each) for each in ({}, values))
    for key, template in (("Deployment", "plane-webhook-operate"), "Deployment spec template"), (("Pod", TEST), "Pod"):
        wanted = {path.replace("Deployment spec template", template): value for path, value in expected.items()}
        assert flat({key: after[key]}) == changed(flat({key: before[key]}), wanted)
        made = after[key] if key[0] == "Pod" else after[key]["spec"]["template"]
        assert tried(controlplane, made).status_code == 201


def test_a_configuration_that_changes_changes_the_pods(tls: Path) -> None:
    before, after = flat(rendered(tls)), flat(rendered(tls, configuration={"publish": {"patience": 2}}))
    assert {path for path in after if after[path] != before[path]} == {
        "ConfigMap data configuration.yaml",
        "Deployment spec template metadata annotations plane-webhook/configuration",
    }


def test_the_alerts_and_the_dashboard_are_those_of_the_files(tls: Path) -> None:
    """Which tests/e2e/test_monitoring.py tries."""
    groups = yaml.safe_load((CHART / "files/alerts.yaml").read_text())["groups"]
    on = {"enabled": True, "labels": {"a": "b"}}
    objects = rendered(tls, prometheusRule=on, dashboard=on, operate={"enabled": True})
    rule, dashboard = objects["PrometheusRule", OWN], objects["ConfigMap", "plane-webhook-dashboard"]
    assert rule["metadata"]["labels"] == {"app.kubernetes.io/name": OWN, "a": "b"}
    assert rule["spec"]["groups"] == groups
    assert dashboard["metadata"]["labels"] == {"app.kubernetes.io/name": OWN, "a": "b", "grafana_dashboard": "1"}
    assert dashboard["data"]["plane-webhook.json"] == (CHART / "files/dashboard.json").read_text()
    (group,) = rendered(tls, prometheusRule=on)["PrometheusRule", OWN]["spec"]["groups"]
    assert group == groups[0]


def test_in_another_namespace_the_commands_that_are_named_are_for_that_one(tls: Path) -> None:
    objects = rendered(tls, "tools", tests=True, prometheusRule={"enabled": True}, operate={"enabled": True})
    said = json.dumps(objects["PrometheusRule", OWN])
    kubectl, doctor = (
        re.findall(each, (CHART / "files/alerts.yaml").read_text())
        for each in (r"kubectl -n\s+plane-webhook", r"`plane-webhook\s+doctor")
    )
    assert said.count("kubectl -n tools ") == len(kubectl) > 0
    assert said.count("`plane-webhook doctor --webhook-namespace tools") == len(doctor) > 0
    assert "`plane-webhook doctor`" not in said
    assert "-n plane-webhook" not in said
    ((container,),) = (each["spec"]["containers"] for (kind, _), each in objects.items() if kind == "Pod")
    assert container["command"][-1] == "tools"


def test_what_has_nothing_in_it_is_as_if_left_out(tls: Path) -> None:
    """As a key whose lines below are commented out."""
    on = {"enabled": True}
    monitored = {name: {**on} for name in ("serviceMonitor", "prometheusRule", "dashboard")}
    operated = {"certificates": {"source": "operate"}, "operate": on}
    wanted = rendered(tls, **operated, **monitored)
    empty = {name: {**on, "labels": None} for name in monitored}
    operated["certificates"]["caBundle"] = None
    lists = dict.fromkeys(("podAnnotations", "nodeSelector", "tolerations"))
    assert rendered(tls, **operated, **empty, **lists) == wanted


def test_a_number_is_written_as_one(tls: Path) -> None:
    assert rendered(tls, replicas=1_000_000)["Deployment", OWN]["spec"]["replicas"] == 1_000_000


@pytest.mark.parametrize("what", ["heal", "logs"])
def test_a_right_is_granted_in_the_namespaces_that_are_named_and_nowhere_else(tls: Path, what: str) -> None:
    source = {"certificates": {"source": "operate"}}
    without = rendered(tls, **source, operate={"enabled": True})
    objects = rendered(tls, **source, operate={"enabled": True, what: ["plane"]})
    (new,) = objects.keys() - without.keys()
    binding = objects[new]
    assert (new, binding["metadata"]["namespace"]) == (("RoleBinding", f"plane-webhook-{what}"), "plane")
    assert binding["roleRef"]["name"] == f"plane-webhook-{what}"
    assert ("ClusterRole", f"plane-webhook-{what}") in objects
    assert [each["name"] for each in binding["subjects"]] == ["plane-webhook-operate"]


def test_operate_is_told_of_the_secret_that_the_webhook_mounts_and_may_write_no_other(tls: Path) -> None:
    objects = rendered(tls, certificates={"source": "operate", "secret": "mine"}, operate={"enabled": True})
    assert flat({("x", "x"): objects["Deployment", OWN]})["x spec template spec volumes 1 secret secretName"] == "mine"
    (container,) = objects["Deployment", "plane-webhook-operate"]["spec"]["template"]["spec"]["containers"]
    assert "--secret=mine" in container["args"]
    rules = objects["Role", "plane-webhook-operate"]["rules"]
    assert [each["resourceNames"] for each in rules if "secrets" in each["resources"]] == [["mine"]]


def test_a_policy_lets_operate_reach_what_it_asks_and_be_reached_by_who_scrapes(tls: Path) -> None:
    policy = {"enabled": True, "httpsFrom": [SERVER], "metricsFrom": [PEER], "apiServer": [SERVER]}
    objects = rendered(tls, networkPolicy=policy, operate={"enabled": True})
    own, replicas = ({"app.kubernetes.io/name": name} for name in ("plane-webhook-operate", OWN))
    assert objects["NetworkPolicy", "plane-webhook-operate"]["spec"] == {
        **ACCESS,
        "podSelector": {"matchLabels": own},
        "ingress": [{"ports": [{"port": "metrics"}], "from": [PEER]}],
        "egress": [
            {"ports": [{"port": 443}, {"port": 6443}], "to": [SERVER]},
            {"ports": [{"port": 8443}], "to": [{"podSelector": {"matchLabels": replicas}}]},
        ],
    }
    https, _ = objects["NetworkPolicy", OWN]["spec"]["ingress"]
    assert https == {"ports": [{"port": "https"}], "from": [SERVER, {"podSelector": {"matchLabels": own}}]}


def test_operate_is_scraped_too(tls: Path) -> None:
    on = {"enabled": True}
    objects = rendered(tls, "tools", serviceMonitor=on, operate=on)
    monitor = objects["PodMonitor", "plane-webhook-operate"]["spec"]
    template = objects["Deployment", "plane-webhook-operate"]["spec"]["template"]
    assert monitor["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert "annotations" in template["metadata"]
    assert "prometheus.io/scrape" not in template["metadata"]["annotations"]


ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "no authority": ({"certificates": {"source": "existing"}}, "certificates.caBundle has no PEM certificate"),
    "a key": (
        {
            "certificates": {
                "source": "existing",
                "caBundle": "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----",
            }
        },
        "certificates.caBundle has a private key, which must not leave its machine: give ca.crt",
    ),
    "an authority for cert-manager": (
        {"certificates": {"source": "certManager", "caBundle": "-----BEGIN CERTIFICATE-----"}},
        "certificates.caBundle is for certificates.source=existing only",
    ),
    "nobody to make them": (
        {"certificates": {"source": "operate"}, "operate": {"enabled": False}},
        "certificates.source=operate needs operate.enabled=true",
    ),
    "a policy that can't hold": (
        {"hostNetwork": {"enabled": True}, "networkPolicy": {"enabled": True}},
        "no network policy holds for pods in the node's network. Switch one of them off",
    ),
    "one port for two": (
        {"hostNetwork": {"enabled": True, "httpsPort": 9090}},
        "hostNetwork.httpsPort and hostNetwork.metricsPort are the same: no replica could start. Choose two",
    ),
    "an annotation that is ours": (
        {"podAnnotations": {"plane-webhook/configuration": "x"}},
        "podAnnotations has plane-webhook/configuration, by which a changed configuration rolls the pods. Leave it out",
    ),
    "nobody to heal": (
        {"operate": {"enabled": False, "heal": ["plane"]}},
        "operate.heal and operate.logs need operate.enabled=true",
    ),
    "nobody to read logs": (
        {"operate": {"enabled": False, "logs": ["plane"]}},
        "operate.heal and operate.logs need operate.enabled=true",
    ),
    "all of it commented out": ({"configuration": None}, "missing property 'configuration'"),
    # Kubernetes' own default would be Fail.
    "no failure policy": ({"failurePolicy": None}, "missing property 'failurePolicy'"),
    "no image": ({"image": {"repository": None}}, "at '/image': missing property 'repository'"),
    "no source": ({"certificates": {"source": None}}, "at '/certificates': missing property 'source'"),
    "no port": ({"hostNetwork": {"enabled": True, "httpsPort": None}}, "missing property 'httpsPort'"),
    "any port": ({"networkPolicy": {"enabled": True, "apiServerPorts": None}}, "missing property 'apiServerPorts'"),
    "emptied": ({"hostNetwork": None}, "missing property 'hostNetwork'"),
    "an image twice": (
        {"configuration": {"images": ["a", "a"]}},
        "at '/configuration/images': items at 0 and 1 are equal",
    ),
    "a workload twice": (
        {"configuration": {"namespaces": {"a": {"workloads": ["api", "api"]}}}},
        "at '/configuration/namespaces/a/workloads': items at 0 and 1 are equal",
    ),
    "a tag that no image has": ({"image": {"tag": "1 2"}}, "at '/image/tag': '1 2' does not match pattern"),
    "a slip": ({"replica": 3}, "additional properties 'replica' not allowed"),
    "no replica": ({"replicas": 0}, "at '/replicas': minimum: got 0, want 1"),
    "a tag in its wrong place": ({"image": {"repository": "a/b:1"}}, "at '/image/repository': 'a/b:1' does not match"),
    "a choice": ({"failurePolicy": "fail"}, "at '/failurePolicy': value must be one of 'Ignore', 'Fail'"),
    "a text for a number": (
        {"configuration": {"env": {"gunicorn_max_requests": "5"}}},
        "at '/configuration/env/gunicorn_max_requests': got string, want integer",
    ),
    "a slip in the configuration": (
        {"configuration": {"publish": {"patiense": 1}}},
        "at '/configuration/publish': additional properties 'patiense' not allowed",
    ),
    "no namespace": (
        {"configuration": {"namespaces": {"A_b": {}}}},
        "at '/configuration/namespaces': additional properties 'A_b' not allowed",
    ),
    "quotes in an image": (
        {"configuration": {"namespaces": {"a": {"images": ["a') || true"]}}}},
        "at '/configuration/namespaces/a/images/0': 'a\\') || true' does not match pattern",
    ),
}


@pytest.mark.parametrize(("values", "said"), ERRORS.values(), ids=ERRORS)
def test_a_value_that_can_not_be_meant_is_said(tls: Path, values: dict[str, Any], said: str) -> None:
    with pytest.raises(LabError) as caught:
        rendered(tls, **values)
    assert said in str(caught.value)


def everything(controlplane: ControlPlane) -> set[str]:
    """What is in the webhook's namespace or in none, but what comes and goes by itself."""
    found = set()
    for scope, namespace in ("true", ("--namespace", OWN)), ("false", ()):
        kinds = controlplane.kubectl("api-resources", "--verbs=list", f"--namespaced={scope}", "-o", "name").split()
        wanted = ",".join(kind for kind in kinds if not kind.startswith(("events", "componentstatuses")))
        found |= set(controlplane.kubectl("get", wanted, *namespace, "-o", "name", "--ignore-not-found").split())
    return found


class Release:
    """The chart as a release of its own name in its own namespace."""

    def __init__(self, plane: ControlPlane, program: str, tls: Path) -> None:
        self.plane = plane
        self._program = program
        self._words = (
            OWN,
            CHART,
            "--set",
            "certificates.source=existing",
            "--set-file",
            f"certificates.caBundle={tls / 'ca.crt'}",
        )

    def apply(self, action: str, *words: str) -> str:
        """Install or upgrade it."""
        return self.helm(action, *self._words, *words)

    def helm(self, *words: str | Path, check: bool = True) -> str:
        return self.plane.helm(*words, "--namespace", OWN, check=check, program=self._program)

    def get(self, kind: str) -> Any:
        return json.loads(self.plane.kubectl("-n", OWN, "get", kind, OWN, "-o", "json"))

    @property
    def condition(self) -> str:
        ((condition,),) = (each["matchConditions"] for each in self.get("mutatingwebhookconfiguration")["webhooks"])
        return condition["expression"]

    @property
    def configuration(self) -> str:
        return self.get("configmap")["data"]["configuration.yaml"]

    def rolled_out(self) -> dict[str, Any]:
        """The Deployment's specification, once all its pods are as it says."""

        def over() -> bool:
            self.plane.settle(OWN)
            deployment = self.get("deployment")
            status, wanted = deployment["status"], deployment["spec"]["replicas"]
            numbers = [status.get(name) for name in ("replicas", "updatedReplicas", "availableReplicas")]
            return status.get("observedGeneration") == deployment["metadata"]["generation"] and numbers == [wanted] * 3

        wait_for(over, 60, "the rollout is over")
        return self.get("deployment")["spec"]

    def test(self, image: Image) -> tuple[int, str]:
        """Run `helm test` and, in a kubelet's place, its pod; return the exit code and what the pod said."""
        with ThreadPoolExecutor(1) as background:
            outcome = background.submit(self.helm, "test", OWN, check=False)
            (pod,) = wait_for(
                lambda: self.plane.pods(OWN, f"app.kubernetes.io/name={TEST}"), 60, f"the test's pod ({outcome})"
            )
            with tempfile.TemporaryDirectory() as folder:
                code, said = self._run(pod, image, Path(folder))
            status = {"phase": "Failed" if code else "Succeeded"}
            path = f"/api/v1/namespaces/{OWN}/pods/{TEST}/status"
            merge = {"content-type": "application/merge-patch+json"}
            self.plane.api.patch(path, json={"status": status}, headers=merge).raise_for_status()
            printed = outcome.result()
        assert f"Phase:          {status['phase']}" in printed, printed
        return code, said

    def _run(self, pod: Pod, image: Image, account: Path) -> tuple[int, str]:
        """Run a pod's container in an image that has Python, with the token that its service account would get."""
        url = urlsplit(self.plane.url)
        image = image.with_env(KUBERNETES_SERVICE_HOST=url.hostname, KUBERNETES_SERVICE_PORT=str(url.port))
        (token,) = (each["name"] for each in pod["spec"]["volumes"])
        trusted = self.plane.kubectl(
            "-n", OWN, "get", "configmap", "kube-root-ca.crt", "-o", r"jsonpath={.data.ca\.crt}"
        )
        (account / "ca.crt").write_text(trusted)
        (account / "token").write_text(self.plane.kubectl("-n", OWN, "create", "token", TEST))
        account.chmod(0o755)
        with Container.from_pod(pod, image=image, volumes={token: account}, binds={"/venv": image.root}) as container:
            return container.wait(), container.stdout


@pytest.fixture(params=["helm", "helm4"])
def release(request: pytest.FixtureRequest, controlplane: ControlPlane, tls: Path) -> Iterator[Release]:
    """A release to be: the namespace is there, with its Secret, and enforces Pod Security `restricted`."""
    controlplane.namespace(OWN, {"pod-security.kubernetes.io/enforce": "restricted"})
    files = [f"--from-file={tls / name}" for name in ("tls.crt", "tls.key", "ca.crt")]
    controlplane.kubectl("-n", OWN, "create", "secret", "generic", "plane-webhook-tls", *files)
    wait_for(lambda: "configmap/kube-root-ca.crt" in everything(controlplane), 30, "the namespace is complete")
    made = Release(controlplane, request.param, tls)
    yield made
    made.helm("uninstall", OWN, "--ignore-not-found")
    controlplane.kubectl("delete", "namespace", OWN)


def test_a_release_is_installed_upgraded_rolled_back_and_uninstalled(
    controlplane: ControlPlane, release: Release, tls: Path, image: Image
) -> None:
    before = everything(controlplane)
    release.apply("install")
    first, condition, configuration = release.rolled_out(), release.condition, release.configuration

    # A changed configuration rolls the pods, and the condition goes with it.
    release.apply("upgrade", "--set", "configuration.images={a/b}", "--set", "replicas=3")
    second = release.rolled_out()
    assert second["replicas"] == 3
    assert second["template"]["metadata"] != first["template"]["metadata"]
    assert parse(release.configuration).default.images == ("a/b",)
    assert "'a/b'" in release.condition

    # The same again: nothing for anybody to do.
    generation = release.get("deployment")["metadata"]["generation"]
    release.apply("upgrade", "--reuse-values")
    assert release.get("deployment")["metadata"]["generation"] == generation

    release.helm("rollback", OWN, "1")
    assert release.rolled_out() == first
    assert (release.condition, release.configuration) == (condition, configuration)

    # Nobody answers here. Then a webhook with these files does: only where the Service leads is the lab's doing.
    code, said = release.test(image)
    assert (code, said.splitlines()[0]) == (
        1,
        "not injected: the API server would make the pod as it came. Mostly one of these is so:",
    )
    assert f"no replica is ready: kubectl -n {OWN} get pods" in said
    controlplane.kubectl("-n", OWN, "delete", "pod", TEST)
    with Webhook(configuration=configuration, cert_dir=tls) as webhook:
        controlplane.local_service(OWN, OWN)
        port = {"op": "replace", "path": "/webhooks/0/clientConfig/service/port", "value": webhook.port}
        controlplane.kubectl("patch", "mutatingwebhookconfiguration", OWN, "--type=json", "-p", json.dumps([port]))
        code, said = release.test(image)
        assert (code, said.partition(" would get ")[0]) == (
            0,
            "injected: a pod that runs ./bin/docker-entrypoint-api.sh",
        )
        assert webhook.reviews

    release.helm("uninstall", OWN)
    wait_for(lambda: not controlplane.pods(OWN), 30, "its pods are gone")
    assert everything(controlplane) == before


@pytest.mark.parametrize("program", ["helm", "helm4"])
def test_a_newer_chart_takes_the_values_of_before_with_defaults_of_its_own(
    controlplane: ControlPlane, tmp_path: Path, program: str
) -> None:
    """By the flag that README names; by another one it says what is missing, and nothing is half there."""
    older = tmp_path / "chart"
    shutil.copytree(CHART, older)
    (older / "templates/monitoring.yaml").unlink()
    schema, values = (older / name for name in ("values.schema.json", "values.yaml"))
    parts = json.loads(schema.read_text())
    parts["required"].remove("dashboard")
    schema.write_text(json.dumps(parts))
    values.write_text(values.read_text().partition("\ndashboard:")[0])
    where = ("--namespace", OWN)
    controlplane.helm("install", OWN, older, *where, "--create-namespace", "--set", "replicas=3", program=program)
    with pytest.raises(LabError, match="missing property 'dashboard'"):
        controlplane.helm("upgrade", OWN, CHART, *where, "--reuse-values", program=program)
    controlplane.helm("upgrade", OWN, CHART, *where, "--reset-then-reuse-values", program=program)
    assert controlplane.kubectl("-n", OWN, "get", "deployment", OWN, "-o", "jsonpath={.spec.replicas}") == "3"
    controlplane.helm("uninstall", OWN, *where, program=program)
    controlplane.kubectl("delete", "namespace", OWN)


@pytest.mark.parametrize("program", ["helm", "helm4"])
def test_the_pages_commands_upgrade_a_release_configure_it_and_go_back(
    controlplane: ControlPlane, tmp_path: Path, program: str
) -> None:
    """From an older chart, with values that somebody set; what `operate` makes stays through all of it."""
    upgrade, rollout, _ = commands("docs/how-to/upgrade.md", "With Helm")
    (back,) = commands("docs/how-to/upgrade.md", "Go back")
    configure, again, _ = commands("README.md", "Its configuration")
    assert rollout == again
    (values,) = fenced("README.md", "Its configuration", "yaml")
    assert f"```yaml\n{values}```" in (MANIFESTS.parent / "docs/reference/configuration.md").read_text()
    (tmp_path / "webhook-values.yaml").write_text(values)
    older = tmp_path / "manifests/chart"
    shutil.copytree(CHART, older)
    chart = (older / "Chart.yaml").read_text()
    (older / "Chart.yaml").write_text(re.sub(r"(?m)^(version|appVersion): .*", r"\1: 0.0.9", chart))
    controlplane.helm(
        *("install", OWN, older, "--namespace", OWN, "--create-namespace"),
        *("--set", "replicas=3", "--set", "image.repository=r/w"),
        program=program,
    )
    shutil.rmtree(older)
    shutil.copytree(CHART, older)

    def done(line: str) -> tuple[str, int, str]:
        """Run a page's line by a shell; what the webhook's Deployment has once it has rolled out."""
        run(controlplane, line, tmp_path, helm=binary(program))
        run(controlplane, rollout, tmp_path)
        spec = json.loads(controlplane.kubectl("-n", OWN, "get", "deployment", OWN, "-o", "json"))["spec"]
        configuration = ("-n", OWN, "get", "configmap", OWN, "-o", r"jsonpath={.data.configuration\.yaml}")
        image = spec["template"]["spec"]["containers"][0]["image"]
        return image, spec["replicas"], controlplane.kubectl(*configuration).strip()

    new = yaml.safe_load(chart)["appVersion"]
    with kubelet(controlplane, OWN), Operate(controlplane) as operate:
        wait_for(lambda: bundle(controlplane), 30, "operate fills in the registration", need=[operate.process])
        wait_for(lambda: secret(controlplane), 30, "and makes the certificate", need=[operate.process])
        made = secret(controlplane), bundle(controlplane)
        assert done(upgrade) == (f"r/w:{new}", 3, "{}")
        assert done(back) == ("r/w:0.0.9", 3, "{}")
        assert done(configure) == (f"r/w:{new}", 3, "publish:\n  timeout: 3")
        assert (secret(controlplane), bundle(controlplane)) == made
    controlplane.helm("uninstall", OWN, "--namespace", OWN, program=program)
    controlplane.kubectl("delete", "namespace", OWN)


def test_after_a_patch_helm_4_names_a_conflict_and_the_option_of_the_page_ends_it(controlplane: ControlPlane) -> None:
    def upgrade(image: str, *words: str, check: bool = True) -> str:
        given = ("--namespace", OWN, "--set", f"configuration.images={{{image}}}", *words)
        return controlplane.helm("upgrade", OWN, CHART, *given, program="helm4", check=check)

    controlplane.helm("install", OWN, CHART, "--namespace", OWN, "--create-namespace", program="helm4")
    patch = [{"op": "replace", "path": "/webhooks/0/matchConditions/0/expression", "value": "true"}]
    controlplane.kubectl("patch", "mutatingwebhookconfiguration", OWN, "--type=json", "-p", json.dumps(patch))
    assert 'conflict with "kubectl-patch"' in upgrade("a/b", check=False)
    upgrade("a/b", "--force-conflicts")
    upgrade("a/c")
    controlplane.helm("uninstall", OWN, "--namespace", OWN, program="helm4")
    controlplane.kubectl("delete", "namespace", OWN)


@pytest.mark.parametrize(
    ("program", "force"), [("helm", ("--force",)), ("helm4", ("--force-replace", "--server-side=false"))]
)
def test_an_upgrade_by_force_takes_the_bundle_away_and_operate_fills_it_in(
    controlplane: ControlPlane, program: str, force: tuple[str, ...]
) -> None:
    """So the page says not to."""
    where = ("--namespace", OWN)
    controlplane.helm("install", OWN, CHART, *where, "--create-namespace", program=program)
    with Operate(controlplane) as operate:
        wait_for(lambda: secret(controlplane), 30, "it is made", need=[operate.process])
        wait_for(lambda: bundle(controlplane) == secret(controlplane)["ca.crt"], 30, "and trusted")
        made = secret(controlplane)
        assert operate.terminate() == 0
        controlplane.helm("upgrade", OWN, CHART, *where, *force, program=program)
        assert bundle(controlplane) == b""
        operate.start()
        wait_for(lambda: bundle(controlplane) == made["ca.crt"], 15, "it is there again", need=[operate.process])
        assert secret(controlplane) == made
    controlplane.helm("uninstall", OWN, *where, program=program)
    controlplane.kubectl("delete", "namespace", OWN)


@pytest.mark.parametrize("program", ["helm", "helm4"])
def test_of_a_release_with_operate_that_is_left_which_readme_names_and_its_commands_remove(
    controlplane: ControlPlane, tmp_path: Path, program: str
) -> None:
    """And `operate` runs on meanwhile, as it does until its kubelet hears of it."""
    *_, uninstall, gone, _, by_name, rights = commands("README.md", "Remove it")
    # What slips by before the webhook is there has `operate` write all that it ever writes.
    plane = released(controlplane, "plane")
    controlplane.namespace(plane, HEAL)
    controlplane.namespace(OWN)
    wait_for(lambda: "configmap/kube-root-ca.crt" in everything(controlplane), 30, "the namespace is complete")
    before = everything(controlplane)
    controlplane.helm("install", OWN, CHART, "--namespace", OWN, program=program)
    bind(controlplane, plane)
    bind(controlplane, plane, "logs")
    with Operate(controlplane) as operate, Kubelet(controlplane, tmp_path / "tls"):
        wait_for((tmp_path / "tls/tls.key").exists, 30, "operate makes the Secret", need=[operate.process])
        with Webhook(cert_dir=tmp_path / "tls") as webhook, kubelet(controlplane, plane):
            controlplane.local_service(OWN, OWN)
            controlplane.apply(endpoint(webhook))
            port = {"op": "replace", "path": "/webhooks/0/clientConfig/service/port", "value": webhook.port}
            controlplane.kubectl("patch", "mutatingwebhookconfiguration", OWN, "--type=json", "-p", json.dumps([port]))
            wait_for(lambda: healed(controlplane, plane, 1), 60, "the pod is healed", need=[operate.process])
        controlplane.kubectl("-n", OWN, "delete", "endpointslice", OWN)  # the lab's own
        words = ("test", OWN, "--namespace", OWN, "--timeout", "3s")  # no kubelet runs the test's pod
        assert "\nError: " in controlplane.helm(*words, check=False, program=program)
        controlplane.helm(*shlex.split(uninstall)[1:], program=program)
        wait_for(lambda: [each["metadata"]["name"] for each in controlplane.pods(OWN)] == [TEST], 30, "ours are gone")
        assert operate.terminate() == 0

    # Helm deletes the test's namespace, which takes its time.
    wait_for(lambda: f"namespace/{TEST}" not in everything(controlplane), 30, "the test's namespace is gone")
    left = {name.replace("lease.coordination.k8s.io/", "lease/") for name in everything(controlplane) - before}
    assert left == {word for word in by_name.split() if "/" in word}
    bindings = ("-n", plane, "get", "rolebindings", "-o", "name")
    assert len(controlplane.kubectl(*bindings).split()) == 2
    for line in (by_name, rights):
        run(controlplane, line, tmp_path)
    assert everything(controlplane) == before
    assert controlplane.kubectl(*bindings) == ""
    run(controlplane, gone, tmp_path)
    controlplane.kubectl("delete", "namespace", plane)
