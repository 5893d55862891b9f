"""The pod that all contenders are asked about, and what each of them has to add to it: all values, no I/O."""

from __future__ import annotations

import base64
import copy
import json
import uuid
from typing import Any

import jsonpatch

from webhook.admission import answer, injection
from webhook.settings import Settings

Json = dict[str, Any]
SETTINGS = Settings()


def pod(variables: int = 12, *, containers: int = 1, more: int = 0) -> Json:
    """Plane's API as its enterprise chart makes it, as the API server sends it: its own fields are in it too.

    It can have the API more than once, and one variable more, with a value of `more` bytes.
    """
    name, account = "plane-app-api-wl", "kube-api-access-x7k2p"
    env = [
        {"name": f"PLANE_SETTING_{number}", "value": f"the value of number {number}" * 6} for number in range(variables)
    ]
    if more:
        env.append({"name": "PLANE_LONG", "value": "x" * more})
    container = {
        "name": "plane-app-api",
        "image": "registry.example/makeplane/backend-commercial:v2.6.1",
        "imagePullPolicy": "Always",
        "command": ["/bin/bash", "-c", "set -e\nexec ./bin/docker-entrypoint-api-ee.sh\n"],
        "envFrom": [
            {"configMapRef": {"name": "plane-app-app-vars"}},
            {"secretRef": {"name": "plane-app-app-secrets"}},
            {"secretRef": {"name": "plane-app-doc-store-secrets"}},
        ],
        "env": env,
        "resources": {"requests": {"cpu": "50m", "memory": "50Mi"}, "limits": {"cpu": "500m", "memory": "1000Mi"}},
        "readinessProbe": {
            "httpGet": {"path": "/", "port": 8000, "scheme": "HTTP"},
            "failureThreshold": 30,
            "periodSeconds": 10,
            "successThreshold": 1,
            "timeoutSeconds": 1,
        },
        "volumeMounts": [
            {"name": account, "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
        ],
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "stdin": True,
        "tty": True,
    }
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    ]
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{name}-6d5f8c", "uid": str(uuid.UUID(int=7))}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{name}-6d5f8c-",
            "namespace": "plane",
            "labels": {"app.name": "plane-plane-app-api", "pod-template-hash": "6d5f8c"},
            "annotations": {"timestamp": "2026-11-26T07:00:00Z"},
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        },
        "spec": {
            "volumes": [{"name": account, "projected": {"sources": sources, "defaultMode": 420}}],
            "containers": [
                {**container, "name": f"{container['name']}{f'-{number}' if number else ''}"}
                for number in range(containers)
            ],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "plane-app-srv-account",
            "securityContext": {},
            "schedulerName": "default-scheduler",
            "enableServiceLinks": True,
            "preemptionPolicy": "PreemptLowerPriority",
        },
        "status": {},
    }


def review(it: Json) -> bytes:
    """The AdmissionReview about the creation of a pod."""
    pods = {"group": "", "version": "v1", "resource": "pods"}
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    request = {
        "uid": str(uuid.UUID(int=42)),
        "kind": kind,
        "resource": pods,
        "requestKind": kind,
        "requestResource": pods,
        "namespace": "plane",
        "operation": "CREATE",
        "object": it,
        "oldObject": None,
        "dryRun": False,
        "userInfo": {
            "username": "system:serviceaccount:kube-system:replicaset-controller",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
        },
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    }
    tree = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
    return json.dumps(tree, separators=(",", ":")).encode()


def answered(it: Json, body: bytes) -> Json:
    """The pod after the patch of an answer, an AdmissionReview, as the jsonpatch library applies it."""
    response = json.loads(body)["response"]
    assert response["allowed"]
    return jsonpatch.apply_patch(copy.deepcopy(it), json.loads(base64.b64decode(response["patch"])))


def ours(it: Json) -> bytes:
    """Our own answer."""
    return answer(review(it), SETTINGS).body


def additions(it: Json) -> Json:
    """What the others have as a file: prefix of the command, env, mount, volume and annotations that we add."""
    after = answered(it, ours(it))
    before, container = it["spec"]["containers"][0], after["spec"]["containers"][0]
    return {
        "prefix": container["command"][: -len(before["command"])],
        "env": container["env"][len(before["env"]) :],
        "mount": container["volumeMounts"][-1],
        "volume": after["spec"]["volumes"][-1],
        "annotations": {
            key: after["metadata"]["annotations"][key] for key in (injection.PROVENANCE, injection.INJECTED)
        },
    }
