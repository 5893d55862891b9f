"""Have the API server rehearse a pod like Plane's (dryRun: nothing is made), and tell whether it would be injected.

Runs in the pod of `helm test` with Python alone. Arguments: the namespace, the entrypoint that the pod runs, and the
namespace of the webhook.
"""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
PATIENCE = 15  # seconds: a registration acts a moment after it is applied
NOT_INJECTED = """\
not injected: the API server would make the pod as it came. Mostly one of these is so:
- no replica is ready: kubectl -n {own} get pods -l app.kubernetes.io/name=plane-webhook
- the API server can't reach the port of the webhook's pods: apiserver_admission_webhook_fail_open_count counts that
- the registration's caBundle has not signed the Secret's tls.crt: the API server's log and the webhook's say so
If none of them is, `plane-webhook doctor` knows more."""


def rehearsed(namespace: str, entrypoint: str) -> dict:
    """Return the pod as it would be stored. OSError: it would be refused, or nobody answers."""
    container = {
        "name": "plane",
        "image": "makeplane/plane-backend:rehearsal",
        "command": [entrypoint],
        "resources": {name: {"cpu": "50m", "memory": "64Mi"} for name in ("requests", "limits")},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {
        "metadata": {"name": "rehearsal"},
        "spec": {"securityContext": security, "automountServiceAccountToken": False, "containers": [container]},
    }
    token = Path(ACCOUNT, "token").read_text()
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    where = f"[{host}]" if ":" in host else host
    url = f"https://{where}:{os.environ['KUBERNETES_SERVICE_PORT']}/api/v1/namespaces/{namespace}/pods?dryRun=All"
    request = urllib.request.Request(url, json.dumps(pod).encode(), headers, method="POST")
    trust = ssl.create_default_context(cafile=f"{ACCOUNT}/ca.crt")
    with urllib.request.urlopen(request, timeout=PATIENCE, context=trust) as answer:
        return json.load(answer)


def main(namespace: str, entrypoint: str, own: str) -> int:
    """Print what would become of the pod; 0 if it would be injected, else 1."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            annotations = rehearsed(namespace, entrypoint)["metadata"].get("annotations", {})
            trouble = None if "plane-webhook/injected" in annotations else NOT_INJECTED.format(own=own)
        except urllib.error.HTTPError as error:
            trouble = f"refused by the API server: {error.read().decode(errors='replace')}"
        except OSError as error:
            trouble = f"the API server can't be asked from this pod: {error}"
        if trouble is None:
            print(f"injected: a pod that runs {entrypoint} would get {annotations['plane-webhook/provenance']}")
            return 0
        if time.monotonic() > deadline:
            print(trouble)
            return 1
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
