"""`doctor` among what others put in the cluster: names that are code, neighbours in our pods, an API that is silent.

The real client asks a small HTTP server, which says what no well-meant cluster would.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import socket
import subprocess
import time
from datetime import UTC, datetime
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jsonpatch
import pytest

import certs
from tests.edges.strangers import Cluster, api
from webhook.admission import decide, injection, review
from webhook.cluster.api import ApiError, Ended
from webhook.cluster.census import Found, Owner
from webhook.cluster.doctor import Finding, Report, Row, as_json, creation, installation, pods, shown
from webhook.cluster.doctor.refused import of_plane, refused
from webhook.cluster.installed import Installed
from webhook.cluster.pods import judge
from webhook.settings import Settings, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OWN, PLANE = "plane-webhook", "plane"
# What a shell would run, what ends a quotation, and what a terminal would follow.
EVIL = "x$(touch owned); touch owned #'\"\x1b[2J\n`touch owned`"


def deployment(name: str, secret: str, **metadata: Any) -> dict[str, Any]:
    volumes = [
        {"name": "tls", "secret": {"secretName": secret}},
        {"name": "configuration", "configMap": {"name": "c"}},
    ]
    return {"metadata": {"name": name, **metadata}, "spec": {"template": {"spec": {"volumes": volumes}}}}


def installed(secret: str, **metadata: Any) -> dict[str, Any]:
    """What `doctor` reads of the webhook's own, where nothing is well."""
    base = f"/apis/apps/v1/namespaces/{OWN}/deployments"
    return {
        f"{base}/plane-webhook": deployment("plane-webhook", secret, **metadata),
        base: {"items": []},
        f"/api/v1/namespaces/{OWN}/pods": {"items": []},
        f"/apis/discovery.k8s.io/v1/namespaces/{OWN}/endpointslices": {"items": []},
    }


def paste(command: str, folder: Path) -> None:
    """As people do: into a shell, where the programs that it names do nothing."""
    for name in ("kubectl", "helm", "plane-webhook"):
        (folder / name).write_text("#!/bin/sh\nexit 0\n")
        (folder / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", command], cwd=folder, env=env, capture_output=True, check=False, timeout=20)
    assert not (folder / "owned").exists(), command


def plane_pod(owner: Owner, name: str = "api-1") -> Found:
    container = {"name": "api", "image": "makeplane/plane-backend:1", "command": ["./bin/docker-entrypoint-api.sh"]}
    pod = review.parse_pod(json.dumps({"metadata": {"name": name}, "spec": {"containers": [container]}}).encode())
    assert pod is not None
    return Found(PLANE, name, "u", owner, owner, ready=False, leaving=False, judged=judge(pod, Settings().default))


def of_pod(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> Finding:
    """What is found of a pod with this owner, whatever the census would say of such a one."""
    monkeypatch.setattr(pods.census, "pods", lambda *_: [plane_pod(owner)])
    (found,) = pods.Census(api(1), PLANE, Settings()).findings()
    return found


def test_an_owner_that_is_code_is_only_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = of_pod(Owner("apps/v1", "Deployment", EVIL, "u"), monkeypatch)
    paste(found.fix, tmp_path)
    assert len(of_pod(Owner("apps/v1", "Deployment", "a" * 100_000, "u"), monkeypatch).where) < 400


@pytest.mark.parametrize(("version", "does"), [("apps/v1", "rollout restart deployment/api"), ("x/v1", "delete pod")])
def test_only_what_kubectl_rolls_is_rolled(version: str, does: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert does in of_pod(Owner(version, "Deployment", "api", "u"), monkeypatch).fix


@pytest.mark.parametrize("release", [EVIL, "--post-renderer=./owned"])
def test_names_of_the_installation_are_only_names(release: str, tmp_path: Path) -> None:
    annotations = {"meta.helm.sh/release-name": release}
    with Cluster(installed("x$(touch owned)", annotations=annotations)) as cluster:
        found = list(installation.findings(cluster, Installed(cluster, OWN), Settings()))
    assert {"not-registered", "no-endpoint", "certificate"} <= {each.code for each in found}
    for each in found:
        assert "--post-renderer" not in each.fix
        paste(each.fix, tmp_path)


@pytest.mark.parametrize("secret", [None, {}, {"ca.crt": "YQ=="}])
def test_nothing_is_copied_from_a_secret_that_will_not_do(secret: dict[str, str] | None) -> None:
    """An empty caBundle would be written, or none: what makes the Secret is proposed, here without `operate`."""
    registered = {"metadata": {"name": OWN, "resourceVersion": "1"}, "webhooks": [{"name": f"inject.pods.{OWN}"}]}
    objects = installed("tls")
    objects["/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/plane-webhook"] = registered
    if secret is not None:
        stored = {"metadata": {"name": "tls", "resourceVersion": "1"}, "data": secret}
        objects[f"/api/v1/namespaces/{OWN}/secrets/tls"] = stored
    with Cluster(objects) as cluster:
        found = {each.code: each for each in installation.findings(cluster, Installed(cluster, OWN), Settings())}
    assert found["not-trusted"].fix == found["certificate"].fix
    assert found["certificate"].fix.startswith("plane-webhook certs issue ")


DOWN: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "operate-scaled-to-zero": ({"replicas": 0}, {"readyReplicas": 1}, "scale deployment/plane-webhook-operate "),
    "operate-not-ready": ({"replicas": 1}, {}, "describe pods -l app.kubernetes.io/name=plane-webhook-operate "),
}


@pytest.mark.parametrize("code", DOWN)
def test_a_secret_stays_that_nobody_would_make_anew(code: str) -> None:
    """A bad one may be better than none, until `operate` runs."""
    spec, status, does = DOWN[code]
    containers = [{"args": ["operate", "--certificates=manage"]}]
    operate = {"spec": {**spec, "template": {"spec": {"containers": containers}}}, "status": status}
    objects = installed("tls")
    objects[f"/apis/apps/v1/namespaces/{OWN}/deployments/plane-webhook-operate"] = operate
    secret = {"metadata": {"name": "tls", "resourceVersion": "1"}, "data": {"ca.crt": "YQ=="}}
    objects[f"/api/v1/namespaces/{OWN}/secrets/tls"] = secret
    with Cluster(objects) as cluster:
        found = {each.code: each for each in installation.findings(cluster, Installed(cluster, OWN), Settings())}
    assert next(iter(found)) == code
    assert does in found[code].fix
    assert found["certificate"].fix == found[code].fix
    assert "There is no secret" not in found[code].causes


def test_the_authority_is_copied_whatever_the_secret_is_called(tmp_path: Path) -> None:
    """That command runs another one within quotes."""
    registration = {
        "metadata": {"name": OWN, "resourceVersion": "1"},
        "webhooks": [{"name": f"inject.pods.{OWN}"}],
    }
    name = "it's\"$(touch owned)"
    objects = installed(name)
    pair = certs.generate([f"{OWN}.{OWN}.svc"], days=20, now=datetime.now(UTC))
    data = {file: base64.b64encode(content).decode() for file, content in pair.items()}
    secret = {"metadata": {"name": name, "resourceVersion": "1"}, "data": data}
    objects[f"/api/v1/namespaces/{OWN}/secrets/" + quote(name, safe="'$()")] = secret
    objects["/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/plane-webhook"] = registration
    with Cluster(objects) as cluster:
        found = {each.code: each for each in installation.findings(cluster, Installed(cluster, OWN), Settings())}
    fix = found["not-trusted"].fix
    paste(fix, tmp_path)
    (tmp_path / "kubectl").write_text('#!/bin/sh\nif [ "$3" = get ]; then echo "<$5>"; else echo "$5"; fi\n')
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    said = subprocess.run(["bash", "-c", fix], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    value = "<it's\"$(touch owned)>"
    path = "/webhooks/0/clientConfig/caBundle"
    for get in ("exit 1", "exit 0"):  # the Secret has gone since, or its ca.crt
        (tmp_path / "kubectl").write_text(f'#!/bin/sh\nif [ "$3" = get ]; then {get}; else echo "$5"; fi\n')
        none = subprocess.run(["bash", "-c", fix], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert (none.returncode, none.stdout) == (1, ""), "nothing is written over what is there"
    assert said.stdout.strip() == f'[{{"op":"add","path":"{path}","value":"{value}"}}]'


def test_what_is_not_there_is_said_also_to_whoever_may_not_read_the_registration() -> None:
    """Most often the namespace is another one, and there the rights may do."""
    path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/plane-webhook"
    with Cluster({path: 403}) as cluster, pytest.raises(ApiError, match=r"there is no Deployment .*, or install it$"):
        Installed(cluster, "elsewhere")


def test_nothing_that_is_shown_moves_a_cursor() -> None:
    report = Report([Finding("not-injected", *[EVIL] * 4)], [Row(*[EVIL] * 8)])
    for text in (shown(report), *json.loads(as_json(report))["findings"][0].values()):
        assert all(line.isprintable() for line in text.split("\n"))
    assert len(shown(report).splitlines()) == 7, "nor begins a line"


WORKLOADS = {
    "{}": "api",
    "workloads: [consumer, beat, worker]": "worker",
    "workloads: [beat]": "beat",
    "workloads: [consumer]": "consumer",
}


@pytest.mark.parametrize("text", WORKLOADS)
def test_a_workload_is_tried_that_is_asked_for(text: str) -> None:
    """Or a webhook that nobody calls would be called right."""
    settings = parse(text)
    cluster = Cluster(installed("tls"))
    with cluster as asked:
        found = list(creation.findings(asked, Installed(asked, OWN), PLANE, settings, clear=True))
    assert [each.code for each in found] == ["not-called"]
    (posted,) = cluster.posted
    pod = review.parse_pod(json.dumps(posted).encode())
    assert pod is not None
    judged = judge(pod, settings.profile(PLANE))
    assert (judged.state, judged.workload) == ("missed", WORKLOADS[text])


def test_a_neighbour_in_our_pod_has_ports_too() -> None:
    """A mesh's sidecar may be the first container, and a pod need have no port of ours."""
    mesh = {"name": "linkerd-proxy", "ports": [{"containerPort": 4143}]}
    ours = {"name": "webhook", "ports": [{"name": "https", "containerPort": 8443}]}
    items = [
        {"metadata": {"name": "one"}, "spec": {"containers": [mesh, {"name": "bare"}, ours]}},
        {"metadata": {"name": "other"}, "spec": {"containers": [mesh]}},
    ]
    with Cluster(installed("tls") | {f"/api/v1/namespaces/{OWN}/pods": {"items": items}}) as cluster:
        found = list(creation.findings(cluster, Installed(cluster, OWN), PLANE, Settings(), clear=True))
    assert [each.code for each in found] == ["not-called"], "the server answers: nothing is blocked"
    assert "reach port 8443 of" in found[0].fix


def test_the_port_that_is_named_is_the_one_that_is_listened_on() -> None:
    """With `hostNetwork` of the chart it may be another."""
    objects, path = installed("tls"), f"/apis/apps/v1/namespaces/{OWN}/deployments/plane-webhook"
    container = {"name": "webhook", "ports": [{"name": "https", "containerPort": 9443}]}
    objects[path]["spec"]["template"]["spec"]["containers"] = [container]
    with Cluster(objects) as cluster:
        (found,) = creation.findings(cluster, Installed(cluster, OWN), PLANE, Settings(), clear=True)
    assert "reach port 9443 of" in found.fix


def test_proof_is_run_in_a_sidecar_too_and_not_in_what_is_over() -> None:
    """A container that runs beside the others may be an init container that stays."""
    ours = {"image": "makeplane/plane-backend:v1", "command": ["./bin/docker-entrypoint-worker.sh"]}
    stays, ends = {"name": "stays", "restartPolicy": "Always", **ours}, {"name": "ends", **ours}
    spec = {"containers": [{"name": "web", "image": "web"}], "initContainers": [ends, stays]}
    tree = {"metadata": {"name": "one", "uid": "u", "resourceVersion": "1"}, "spec": spec}
    tree["status"] = {"phase": "Running"}
    decision = decide(review.parse_pod(json.dumps(tree).encode()) or review.Pod(), Settings().default)
    assert decision.injection
    made = jsonpatch.apply_patch(tree, injection.operations(decision.injection))
    path = f"/api/v1/namespaces/{PLANE}/pods"
    with Cluster({path: {"metadata": {}, "items": [made]}, f"{path}/one": made}) as cluster:
        found = list(pods.Census(cluster, PLANE, Settings()).proofs())
    assert [each.wrong.partition(":")[0] for each in found] == ["container stays"]


PRIVILEGED = {
    "baseline": 'pods "x" is forbidden: violates PodSecurity "baseline:latest": hostPath volumes (volume "root")',
    "restricted, and baseline too": 'violates PodSecurity "restricted:latest": privileged (container "x" must not)',
}
HARDLY = 'violates PodSecurity "restricted:latest": runAsNonRoot != true'


def refusing(message: str, command: str) -> dict[str, Any]:
    container = {"name": "x", "image": "busybox", "command": [command]}
    condition = {"type": "ReplicaFailure", "status": "True", "message": message}
    return {
        "metadata": {"name": "x"},
        "spec": {"template": {"spec": {"containers": [container]}}},
        "status": {"conditions": [condition]},
    }


def refusals(message: str, command: str) -> Iterator[Finding]:
    path = f"/apis/apps/v1/namespaces/{PLANE}/deployments"
    with Cluster({path: {"items": [refusing(message, command)]}}) as cluster:
        yield from refused(cluster, PLANE, lambda each: of_plane((), each))


@pytest.mark.parametrize("message", PRIVILEGED.values(), ids=PRIVILEGED)
def test_nobody_is_told_to_take_pod_security_off(message: str) -> None:
    (found,) = refusals(message, "./bin/docker-entrypoint-api.sh")
    assert found.fix.startswith(f"kubectl -n {PLANE} describe deployment x ")
    assert "enforce" not in found.fix


def test_nobody_loosens_a_namespace_for_a_strangers_deployment() -> None:
    assert list(refusals(HARDLY, "miner")) == []
    (found,) = refusals(HARDLY, "./bin/docker-entrypoint-migrator.sh")
    assert "pod-security.kubernetes.io/enforce=baseline " in found.fix


def hold(connection: socket.socket) -> None:
    """Say nothing."""
    connection.recv(1)
    time.sleep(10)


def trickle(connection: socket.socket) -> None:
    """A byte now and then, so that no wait for a single one is long."""
    for _ in range(100):
        connection.sendall(b"H")
        time.sleep(0.1)


def refuse(connection: socket.socket) -> None:
    body = b'{"message": "you may not"}'
    connection.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


def serve(connection: socket.socket) -> None:
    """What a command prints and how it ends, as a kubelet sends it by way of the API server."""
    asked = connection.recv(65536)
    (key,) = re.findall(rb"(?i)sec-websocket-key: (\S+)", asked)
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324 - RFC 6455
    head = b"HTTP/1.1 101 x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: " + accept
    connection.sendall(head + b"\r\nsec-websocket-protocol: v4.channel.k8s.io\r\n\r\n")
    for frame in (b"\1said", b'\3{"status": "Success"}'):
        connection.sendall(bytes([0x82, len(frame)]) + frame)
    connection.sendall(bytes([0x88, 0]))


def executed(server: Callable[[socket.socket], None]) -> Ended | ApiError:
    """What comes of a command in a container, for which a second is given."""
    came: list[Ended | ApiError] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with listening.accept()[0] as connection, contextlib.suppress(OSError):
                server(connection)

        def execute() -> None:  # not in the test's own thread, which could wait for ever
            try:
                came.append(api(listening.getsockname()[1]).execute(PLANE, "p", "c", ["x"], limit=99, seconds=1.0))
            except ApiError as error:
                came.append(error)

        Thread(target=answer, daemon=True).start()
        thread = Thread(target=execute, daemon=True)
        thread.start()
        thread.join(6)
        assert not thread.is_alive()
    return came[0]


@pytest.mark.parametrize("server", [hold, trickle])
def test_an_api_server_that_does_not_answer_is_not_waited_for(server: Callable[[socket.socket], None]) -> None:
    """It takes the connection, and the WebSocket's handshake does not end."""
    error = executed(server)
    assert isinstance(error, ApiError)
    assert (error.status, str(error).partition(": ")[2]) == (0, "no answer: none within 1 seconds")


def test_what_an_api_server_answers_comes_through() -> None:
    error = executed(refuse)
    assert isinstance(error, ApiError)
    assert (error.status, "you may not" in str(error)) == (403, True)
    assert executed(serve) == Ended(0, b"said", b"")
