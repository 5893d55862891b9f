"""The lab's simulated kubelet does as the real one: what is shown with it holds on a node."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lab.container import Container
from lab.node import images
from lab.pods import create
from lab.process import wait_for

if TYPE_CHECKING:
    from lab.images import Image
    from lab.node import Node

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("minutes_allowed")]

LOOK = """
import json, os
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
mounts = [line.split()[4:6] + [line.split(" - ")[1].split()[0]] for line in open("/proc/self/mountinfo")]
print(json.dumps({
    "argv": open("/proc/self/cmdline").read().split(chr(0))[3:-1],
    "env": {k: v for k, v in os.environ.items() if not k.startswith("KUBERNETES_")},
    "user": [os.getuid(), os.getgid(), sorted({*os.getgroups()} - {os.getgid()})],
    "capabilities": [status[each].strip() for each in ("CapEff", "CapBnd")],
    "cwd": os.getcwd(),
    "writable": [path for path in ("/", "/tmp", "/scratch", "/disk", "/settings") if os.access(path, os.W_OK)],
    "memory": [kind for path, _, kind in mounts if path == "/scratch"],
    "files": {name: [open("/settings/" + name).read(), oct(os.stat("/settings/" + name).st_mode & 0o777)]
              for name in sorted(os.listdir("/settings")) if not name.startswith("..")},
}, sort_keys=True))
"""


def test_the_simulated_kubelet_does_as_the_real_one(node: Node, image: Image) -> None:
    namespace = node.namespace("twins")
    settings = {"greeting": "hello $(WHO)", "colour": "teal"}
    node.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s", "namespace": namespace}, "data": settings}
    )
    node.registry.add("lab/plane:1", images.plane(image, "dash"))
    asked = {
        "metadata": {"name": "twin", "labels": {"app": "twin"}},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1001, "fsGroup": 1002},
            "volumes": [
                {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "disk", "emptyDir": {}},
                {"name": "settings", "configMap": {"name": "s", "defaultMode": 0o440}},
            ],
            "containers": [
                {
                    "name": "c",
                    "image": "lab/plane:1",
                    "command": ["python", "-c", LOOK],
                    "args": ["", "two  words", "$(WHO) $$(WHO) $(NOBODY)", "é\n'\""],
                    "envFrom": [{"configMapRef": {"name": "s"}, "prefix": "S_"}],
                    "env": [
                        {"name": "WHO", "value": "you"},
                        {"name": "TO", "value": "$(WHO), $(S_colour)"},
                        {"name": "EMPTY"},
                        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    ],
                    "volumeMounts": [
                        {"name": name, "mountPath": f"/{name}"} for name in ("scratch", "disk", "settings")
                    ],
                    "securityContext": {"readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
    create(node, namespace, asked).raise_for_status()
    phase = "jsonpath={.status.phase}"
    wait_for(lambda: node.kubectl("-n", namespace, "get", "pod", "twin", "-o", phase) == "Succeeded", 60, "it ends")
    pod = node.pods(namespace)[0]
    real = json.loads(node.kubectl("-n", namespace, "logs", "twin"))
    with Container.from_pod(pod, image=image, config_maps={"s": settings}) as container:
        assert container.wait() == 0, container.stderr
        simulated = json.loads(container.stdout)
    differing = real.pop("env").items() ^ simulated.pop("env").items()
    # Bubblewrap sets the one; the other is the lab's, whose containers share the host's network.
    assert {name for name, _ in differing} == {"PWD", "BIND_HOST"}
    assert simulated == real
