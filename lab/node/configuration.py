"""What each component of the node is told: command lines and files. Starts nothing.

What is off a kubelet's defaults is so because the node shares a machine with others, or because it has to be quick.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from lab.cache import LabError
from lab.node.inside import ADDRESS, PODS, SERVICES

if TYPE_CHECKING:
    from pathlib import Path

NAME = "node"
URL = f"https://{ADDRESS}:6443"  # the API server's, for whoever is in the node
API = "10.96.0.1"  # its Service's: the first address of SERVICES
REGISTRY = f"{ADDRESS}:5000"
PAUSE = "lab.test/pause:1"
SOCKET = "/run/containerd/containerd.sock"

# Beside those that a control plane alone has.
CONTROLLERS = ("node-lifecycle", "taint-eviction", "pod-garbage-collector")


def apiserver(files: Path) -> list[str]:
    """What differs from the control plane's API server; the later of two flags wins, and lists grow."""
    return [
        "--bind-address=0.0.0.0",
        "--secure-port=6443",
        f"--advertise-address={ADDRESS}",
        "--endpoint-reconciler-type=lease",
        f"--service-cluster-ip-range={SERVICES}",
        "--authorization-mode=Node",
        "--enable-admission-plugins=NodeRestriction",
        f"--kubelet-client-certificate={files / 'admin.crt'}",
        f"--kubelet-client-key={files / 'admin.key'}",
        "--kubelet-preferred-address-types=InternalIP",
    ]


def controller_manager() -> list[str]:
    return ["--controllers=" + ",".join(f"{name}-controller" for name in CONTROLLERS)]


def scheduler(kubeconfig: Path) -> list[str]:
    return [f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--authentication-skip-lookup=true"]


def containerd(files: Path, plugins: Path) -> list[str]:
    """Write its files and return its arguments. `plugins` is the folder of the CNI plugins. LabError without a runc."""
    runc = shutil.which("runc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if runc is None:
        raise LabError("runc isn't there: `apt-get install runc`")
    network = {
        "cniVersion": "1.0.0",
        "name": "node",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,  # nothing here leaves the node
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni-ipam",
                    "ranges": [[{"subnet": PODS}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }
    _write(files / "net.d/10-ptp.conflist", json.dumps(network))
    # Every image, whatever registry its name says, is asked of the node's own: no request leaves the node.
    host = f'server = "http://{REGISTRY}"\n[host."http://{REGISTRY}"]\ncapabilities = ["pull", "resolve"]\n'
    _write(files / "registries/_default/hosts.toml", host)
    images, runtime = 'plugins."io.containerd.cri.v1.images"', 'plugins."io.containerd.cri.v1.runtime"'
    tables: dict[str, dict[str, Any]] = {
        "grpc": {"address": SOCKET},
        images: {"snapshotter": "overlayfs", "discard_unpacked_layers": True},
        f"{images}.registry": {"config_path": str(files / "registries")},
        f"{images}.pinned_images": {"sandbox": PAUSE},
        runtime: {"restrict_oom_score_adj": True},  # a machine in a container may not lower a score
        f"{runtime}.cni": {"bin_dirs": [str(plugins)], "conf_dir": str(files / "net.d")},
        f"{runtime}.containerd": {"default_runtime_name": "runc"},
        f"{runtime}.containerd.runtimes.runc": {"runtime_type": "io.containerd.runc.v2"},
        f"{runtime}.containerd.runtimes.runc.options": {"SystemdCgroup": False, "BinaryName": runc},
    }
    own: dict[str, Any] = {
        "version": 3,
        "root": "/var/lib/containerd",
        "state": "/run/containerd",
        "disabled_plugins": ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"],
    }
    lines = [*_toml(own), *(line for name, table in tables.items() for line in (f"[{name}]", *_toml(table)))]
    return ["--config", str(_write(files / "containerd.toml", "\n".join(lines) + "\n"))]


def kubelet(files: Path, kubeconfig: Path) -> list[str]:
    """Write its file and return its arguments."""
    never = dict.fromkeys(
        ("memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree"), "0%"
    )
    configuration = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(files / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "resolvConf": "",  # the machine's name servers can't be reached from here
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,
        "volumePluginDir": "/run/kubelet-volume-plugins",
        "evictionHard": never,  # how full the machine is is not the node's business
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "syncFrequency": "10s",  # how soon a changed Secret is in a volume
        "nodeStatusUpdateFrequency": "4s",
    }
    path = _write(files / "kubelet.json", json.dumps(configuration))
    return [f"--config={path}", f"--kubeconfig={kubeconfig}", f"--hostname-override={NAME}", f"--node-ip={ADDRESS}"]


def proxy(files: Path, kubeconfig: Path) -> list[str]:
    """Write its file and return its arguments."""
    keep = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    configuration = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": PODS,
        "oomScoreAdj": 0,
        "conntrack": keep,  # the machine's
        "nftables": {"minSyncPeriod": "100ms"},
    }
    return [f"--config={_write(files / 'kube-proxy.json', json.dumps(configuration))}", f"--hostname-override={NAME}"]


def router(kubeconfig: Path) -> list[str]:
    """What enforces NetworkPolicies is told: that, and nothing else that it could do."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={NAME}",
        f"--service-cluster-ip-range={SERVICES}",
        "--run-firewall=true",
        "--run-router=false",
        "--run-service-proxy=false",
        "--run-loadbalancer=false",
        "--metrics-port=0",
    ]


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _toml(table: dict[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]  # strings, lists and booleans are JSON's
