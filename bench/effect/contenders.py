"""The pods that are compared: Plane's API as a chart makes it; `ours` have been through the webhook's code."""

from __future__ import annotations

import base64
import json
from copy import deepcopy
from typing import Any

import jsonpatch
import yaml

from webhook import admission
from webhook.settings import parse

Json = dict[str, Any]

ASKED = {
    "GUNICORN_MAX_REQUESTS": "0",
    "GUNICORN_MAX_REQUESTS_JITTER": "0",
    "CELERY_TASK_PUBLISH_RETRY": "True",
    "CELERY_BROKER_POOL_LIMIT": "10",
}
WHAT = {
    "upstream": "Plane as its chart runs it",
    "exported": "the four asked-for variables in the container's env, nothing that reads them",
    "asked": "the asked-for values in effect (a Plane that reads them), no confirms",
    "ours": "the webhook's defaults",
    "ours-rotating": "the webhook with GUNICORN_MAX_REQUESTS=200",
}
ROTATE_AFTER = 200  # requests: Plane's own 1200 to 2200 would need thousands of publishes a cell


# As the charts have them; the worker is one that takes a single queue, so that the others' messages can be counted.
RELAY = "celery.importer"
COMMANDS = {
    "api": ["./bin/docker-entrypoint-api.sh"],
    "worker": ["/bin/bash", "-c", f"set -e\n\nexec ./bin/docker-entrypoint-worker.sh {RELAY}\n"],
    "beat": ["./bin/docker-entrypoint-beat.sh"],
}


def pod(contender: str, env: dict[str, str], publish: Json | None = None, *, workload: str = "api") -> Json:
    """The pod as the API server stores it. `publish` overrides keys of the webhook's `publish` settings."""
    command = COMMANDS[workload]
    variables = {"GUNICORN_WORKERS": "1", **env}
    if contender in ("exported", "asked"):
        variables |= ASKED
    if contender == "asked":
        command = ["./bin/docker-entrypoint-api-asked.sh"]
        variables["DJANGO_SETTINGS_MODULE"] = "plane.settings.asked"
    container = {
        "name": workload,
        "image": "makeplane/plane-backend:stable",
        "command": command,
        "env": [{"name": name, "value": value} for name, value in variables.items()],
    }
    made = {"metadata": {"name": contender, "namespace": "plane"}, "spec": {"containers": [container]}}
    if not contender.startswith("ours"):
        return made
    settings: Json = {"publish": publish or {}, "workloads": list(COMMANDS)}
    if contender == "ours-rotating":
        settings["env"] = {"gunicorn_max_requests": ROTATE_AFTER}
    return injected(made, settings)


def injected(stored: Json, settings: Json) -> Json:
    """What a pod becomes by the webhook's answer to a review of it."""
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "1",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "operation": "CREATE",
            "namespace": "plane",
            "object": stored,
        },
    }
    answer = admission.answer(json.dumps(review).encode(), parse(yaml.safe_dump(settings)))
    response = json.loads(answer.body)["response"]
    if "patch" not in response:
        raise AssertionError(f"the webhook left the pod as it was: {answer.reason}")
    return jsonpatch.apply_patch(deepcopy(stored), json.loads(base64.b64decode(response["patch"])))
