"""A real node: the control plane of lab.controlplane with a scheduler, kubelet, containerd and kube-proxy beside it.

Control plane, node and pods live in a mount, network, pid and cgroup namespace of their own, which end as one: no
process, cgroup, mount, interface or rule is left, also when the Python process is killed (keeper.py). The API server is
on a port of loopback too, so whatever is done with a ControlPlane can be done with a Node. There are no name servers:
pods reach Services by address, and what runs on this machine by `expose`.

    with Node() as node:
        node.registry.add("library/busybox:1", images.busybox())
        node.kubectl("run", "one", "--image=busybox:1", "--", "sleep", "60")
        node.wait_ready("default")

With `policies` NetworkPolicies hold: kube-router enforces them, but for what the node itself sends, the API server too.
It needs root, and a machine that still has cgroup v1. This module must never change anything outside of its namespaces.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.cache import LabError
from lab.controlplane import START_TIMEOUT, ControlPlane, components
from lab.controlplane.programs import binary
from lab.node import configuration, images, network
from lab.node.inside import ADDRESS
from lab.node.keeper import NAME, hierarchies
from lab.node.programs import binaries
from lab.node.registry import Registry
from lab.process import Process, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ADDRESS", "Node", "ensure_possible", "is_ready"]

_KEEPER = Path(__file__).with_name("keeper.py")
_ETCD = "http://127.0.0.1:2379"
_JOIN = 'for each in /sys/fs/cgroup/*/cgroup.procs; do echo 0 > "$each"; done; exec "$@"'


def ensure_possible() -> None:
    """LabError says why no node can run here, if none can."""
    if os.geteuid() != 0:
        raise LabError("a node needs root: its namespaces, cgroups and mounts are made by it")
    if missing := {"cpu", "memory", "pids", "devices", "freezer"} - {
        n for each in hierarchies() for n in each.split(",")
    }:
        raise LabError(
            f"a node needs cgroup v1 hierarchies, and this machine has none for {', '.join(sorted(missing))}"
        )


class Node(ControlPlane):
    """A cluster of one node. `registry` holds what its pods can be made of; add to it at any time."""

    registry: Registry

    def __init__(self, *, apiserver_args: Sequence[str] = (), policies: bool = False) -> None:
        """Take what else the API server is told, and whether NetworkPolicies are to hold. Starts nothing."""
        super().__init__(apiserver_args=apiserver_args)
        self._policies = policies
        self._keeper: subprocess.Popen[bytes] | None = None
        self._programs: dict[str, Path] = {}

    def start(self) -> None:
        """Start everything and return when the node is Ready. LabError says what is missing, or what failed."""
        ensure_possible()
        self._programs = binaries(policies=self._policies)
        self._files = Path(tempfile.mkdtemp(prefix="plane-webhook-node-"))
        self._pid = self._start_keeper()
        self._out, self._into = network.Forwarder(self._pid), network.Forwarder()
        self.registry = Registry(network.listener((ADDRESS, 5000), self._pid))
        self.registry.add(configuration.PAUSE.partition("/")[2], images.pause())
        components.write_certificates(self._files, ADDRESS, configuration.API, node=configuration.NAME)
        self._connect(self.forward((ADDRESS, 6443)))
        admin, kubelet = (
            components.write_kubeconfig(self._files / f"{user}.kubeconfig", configuration.URL, user)
            for user in ("admin", "kubelet")
        )
        need = [self._run("etcd", *components.etcd(self._files / "etcd", _ETCD, "http://127.0.0.1:2380"))]
        plugins = self._programs["ptp"].parent
        need.append(self._run("containerd", *configuration.containerd(self._files, plugins)))
        self._start_apiserver(_ETCD, 6443, *configuration.apiserver(self._files), need=need)
        need.append(self._run("kubelet", *configuration.kubelet(self._files, kubelet)))
        need.append(self._run("kube-proxy", *configuration.proxy(self._files, admin)))
        need.append(self._run("kube-scheduler", *configuration.scheduler(admin)))
        self._start_controllers(admin, *configuration.controller_manager(), need=need)
        wait_for(self._ready, START_TIMEOUT, "the node is Ready", need=need)
        if self._policies:  # it ends at once where its node isn't there yet
            need.append(self._run("kube-router", *configuration.router(admin)))
            enforces = "KUBE-ROUTER-FORWARD"
            wait_for(lambda: enforces in self.inside("iptables", "-S"), START_TIMEOUT, "policies hold", need=need)

    def close(self) -> None:
        """End everything and see it gone. Twice is the same as once."""
        if self._keeper is not None:
            assert self._keeper.stdin is not None
            self._keeper.stdin.close()
            self._keeper.wait()
            self._keeper = None
        for name in ("registry", "_out", "_into"):
            if part := self.__dict__.pop(name, None):
                part.close()
        if hasattr(self, "_files"):
            super().close()

    def forward(self, address: tuple[str, int]) -> int:
        """Return a port of this machine's loopback that leads to an address in the node: a pod's or a Service's."""
        port = free_port()
        self._out.add(network.listener(("127.0.0.1", port)), address)
        return port

    def expose(self, port: int) -> None:
        """Have a server on this machine's loopback also at that port of ADDRESS, for the node and its pods."""
        self._into.add(network.listener((ADDRESS, port), self._pid), ("127.0.0.1", port))

    def inside(self, *argv: str) -> str:
        """Return what a program of this machine prints that runs in the node's network. LabError unless it exits 0."""
        enter = ["nsenter", f"--target={self._pid}", "--mount", "--net", "--wdns=/"]
        path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        done = subprocess.run([*enter, *argv], env=path, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"`{' '.join(argv)}` failed in the node with exit code {done.returncode}:\n{done.stderr}")
        return done.stdout

    def restart(self, component: str) -> None:
        """Start a component again that was killed. A kubelet ends at once where no container engine answers."""
        super().restart(component)
        if component == "containerd":
            process, _ = self._components[component]
            wait_for(self._engine_answers, START_TIMEOUT, "containerd takes connections", need=[process])

    def pid_1(self, pod: dict[str, Any]) -> int:
        """Return the pid, as this machine numbers it, of the first process of the pod's only container."""
        (status,) = pod["status"]["containerStatuses"]
        container = status["containerID"].rpartition("/")[2]
        (group,) = (hierarchies()["pids"] / f"{NAME}{self._keeper.pid}/kubepods").glob(f"**/{container}")
        pids = (group / "cgroup.procs").read_text().split()
        return next(int(pid) for pid in pids if re.search(r"^NSpid:.*\t1$", _status(pid), re.MULTILINE))

    def wait_ready(self, namespace: str, selector: str = "", *, timeout: float = 60) -> list[dict[str, Any]]:
        """Return the namespace's pods once there are some and all are ready. LabError says which are not, and why."""

        def ready() -> list[dict[str, Any]]:
            pods = self.pods(namespace, selector)
            return pods if pods and all(map(is_ready, pods)) else []

        try:
            return wait_for(ready, timeout, f"the pods of {namespace} are ready")
        except LabError as error:
            events = self.kubectl("-n", namespace, "get", "pods,events", check=False)
            raise LabError(f"{error}\n{events}") from None

    def _engine_answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(f"/proc/{self._pid}/root{configuration.SOCKET}") == 0

    def _ready(self) -> bool:
        found = self.api.get(f"/api/v1/nodes/{configuration.NAME}")
        return found.is_success and is_ready(found.json()) and not found.json()["spec"].get("taints")

    def _start_keeper(self) -> int:
        with (self._files / "keeper.log").open("wb") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", _KEEPER, self._files],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for Python, which then ends the node in the right order
            )
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        if not line:
            raise LabError(
                "the node's namespaces can't be made: run `unshare --mount --net --pid --fork true` to see why"
            )
        return int(line)

    def _run(self, name: str, *args: str) -> Process:
        path = self._programs.get(name) or binary(name)
        process = _Inside(self._pid, [path, *args], log=self._files / f"{name}.log")
        self._processes.append(process)
        self._components[name] = process, args
        return process


class _Inside(Process):
    """A program in the namespaces and cgroups of PID 1 of the node. `pid` is that of the nsenter that waits for it."""

    def __init__(self, inside: int, argv: Sequence[str | Path], *, log: Path) -> None:
        enter = ["nsenter", "--target", str(inside), "--mount", "--net", "--pid", "--cgroup", "--wdns=/"]
        environment: Mapping[str, str] = {
            "PATH": f"{Path(argv[0]).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
        }
        super().__init__([*enter, "--", "sh", "-c", _JOIN, "sh", *argv], log=log, env=environment)

    def signal(self, number: signal.Signals) -> None:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        for pid in children.read_text().split() if self.alive() else ():
            with suppress(ProcessLookupError):
                os.kill(int(pid), number)

    def stop(self, timeout: float = 15) -> None:
        self.signal(signal.SIGTERM)
        with suppress(LabError):
            self.wait(timeout)
        self.kill()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait(15)


def _status(pid: str) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def is_ready(thing: dict[str, Any]) -> bool:
    """Tell whether a pod or a node has that condition."""
    conditions = thing.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
