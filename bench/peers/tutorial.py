"""The tutorials' way: a route of FastAPI, the review as a dict, the pod changed in a copy, and jsonpatch.make_patch.

python -m bench.peers.tutorial INJECTION CERT KEY PORT
"""

import base64
import copy
import json
import sys
from pathlib import Path
from typing import Any

import jsonpatch
from fastapi import FastAPI

from bench.peers.floor import serve


def main() -> None:
    """Serve until it is killed."""
    additions, cert, key, port = sys.argv[1:]
    added = json.loads(Path(additions).read_text())
    app = FastAPI()

    @app.post("/mutate")
    async def mutate(review: dict[str, Any]) -> dict[str, Any]:
        request = review["request"]
        pod = copy.deepcopy(request["object"])
        for container in pod["spec"]["containers"]:
            if any("docker-entrypoint-api" in word for word in container.get("command") or ()):
                container["command"] = added["prefix"] + container["command"]
                container.setdefault("env", []).extend(added["env"])
                container.setdefault("volumeMounts", []).append(added["mount"])
                pod["spec"].setdefault("volumes", []).append(added["volume"])
                pod["metadata"].setdefault("annotations", {}).update(added["annotations"])
        patch = jsonpatch.make_patch(request["object"], pod).to_string()
        response = {"uid": request["uid"], "allowed": True, "patchType": "JSONPatch"}
        response["patch"] = base64.b64encode(patch.encode()).decode()
        return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}

    serve(app, cert, key, port)


if __name__ == "__main__":
    main()
