"""The node's programs, built from Go modules into the cache like the control plane's, and pinned like them.

`python -m lab.node.programs --lock` pins the versions below in modules/. Kubernetes' is a module of its own, so that
what the control plane is built from stays as it is. runc, nft, iptables and ipset are Debian's.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab import cache
from lab.cache import LabError
from lab.controlplane.programs import VERSIONS, Module, build, pin
from lab.packages import ensure_packages

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCKED = Path(__file__).parent / "modules"

_CMD = "k8s.io/kubernetes/cmd"
_CONTAINERD = "github.com/containerd/containerd/v2"
_PLUGINS = "github.com/containernetworking/plugins"


@dataclass(frozen=True)
class Program:
    """A program of the node, and how long its build takes on 2 cores once the control plane's are built."""

    package: str
    takes: str


KUBERNETES = {
    "kubelet": Program(f"{_CMD}/kubelet", "2 to 4 minutes"),
    "kube-scheduler": Program(f"{_CMD}/kube-scheduler", "about half a minute"),
    "kube-proxy": Program(f"{_CMD}/kube-proxy", "about half a minute"),
}
CONTAINERD = {
    "containerd": Program(f"{_CONTAINERD}/cmd/containerd", "2 to 4 minutes"),
    "containerd-shim-runc-v2": Program(f"{_CONTAINERD}/cmd/containerd-shim-runc-v2", "some seconds"),
}
CNI = {
    "ptp": Program(f"{_PLUGINS}/plugins/main/ptp", "about 10 seconds"),
    "host-local": Program(f"{_PLUGINS}/plugins/ipam/host-local", "some seconds"),
    "loopback": Program(f"{_PLUGINS}/plugins/main/loopback", "some seconds"),
}
PACKAGES = ("runc", "nftables", "iproute2", "busybox-static", "util-linux")
ROUTER = {"kube-router": Program("github.com/cloudnativelabs/kube-router/v2/cmd/kube-router", "3 to 7 minutes")}
ROUTER_PACKAGES = ("iptables", "ipset")


def _module(
    name: str, path: str, version: str, programs: dict[str, Program], tags: tuple[str, ...] = ()
) -> tuple[Module, dict[str, Program]]:
    packages = tuple(program.package for program in programs.values())
    return Module(name, path, version, packages, LOCKED, ",".join(tags)), programs


MODULES = (
    _module("kubernetes-node", "k8s.io/kubernetes", VERSIONS["kubernetes"], KUBERNETES),
    # Snapshotters that need libraries, or that nobody has here.
    _module("containerd", _CONTAINERD, "2.3.7", CONTAINERD, ("no_btrfs", "no_devmapper", "no_zfs")),
    _module("cni", _PLUGINS, "1.9.1", CNI),
)
# What enforces NetworkPolicies, for a node that is asked to: no other needs it, and it takes as long as the kubelet.
POLICIES = _module("kube-router", "github.com/cloudnativelabs/kube-router/v2", "2.1.0", ROUTER)


def binaries(*, policies: bool = False) -> dict[str, Path]:
    """Return every program of the node by name, built where it isn't in the cache. LabError says what is missing."""
    ensure_packages(*PACKAGES, *(ROUTER_PACKAGES if policies else ()))
    wanted = _all(policies=policies)
    return {name: build(name, program.package, module, takes=program.takes) for module, name, program in wanted}


def built(*, policies: bool = False) -> bool:
    """Tell whether every program is in the cache: then a node costs seconds, not minutes."""
    wanted = _all(policies=policies)
    return all((cache.root() / f"{module.name}-{module.version}" / name).exists() for module, name, _ in wanted)


def _all(*, policies: bool) -> Iterator[tuple[Module, str, Program]]:
    for module, programs in (*MODULES, POLICIES) if policies else MODULES:
        for name, program in programs.items():
            yield module, name, program


if __name__ == "__main__":
    try:
        for each, _ in (*MODULES, POLICIES) if "--lock" in sys.argv else ():
            pin(each)
        for path in () if "--lock" in sys.argv else binaries().values():
            print(path)
    except LabError as error:
        sys.exit(str(error))
