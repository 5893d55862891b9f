"""What each component of the control plane is told: command lines, certificates, kubeconfig. Starts nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path

# What makes pods from a chart, cleans up after it, and makes namespaces and service accounts usable. The
# other controllers wait for nodes, clouds and volumes, and would only take time from what is measured.
CONTROLLERS = (
    *("deployment", "replicaset", "statefulset", "daemonset", "job", "cronjob", "disruption"),
    *("namespace", "garbage-collector", "endpointslice"),
    *("serviceaccount", "serviceaccount-token", "root-ca-certificate-publisher"),
)


def etcd(data: Path, url: str, peer: str) -> list[str]:
    return [
        f"--data-dir={data}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # the data does not outlive the process
    ]


def apiserver(files: Path, etcd_url: str, port: int) -> list[str]:
    return [
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={files / 'apiserver.crt'}",
        f"--tls-private-key-file={files / 'apiserver.key'}",
        f"--client-ca-file={files / 'ca.crt'}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={files / 'tokens.key'}",
        f"--service-account-key-file={files / 'tokens.key'}",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--endpoint-reconciler-type=none",  # it refuses a loopback address, and nobody routes to it
        "--v=2",
    ]


def controller_manager(files: Path, kubeconfig: Path) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        f"--service-account-private-key-file={files / 'tokens.key'}",
        f"--root-ca-file={files / 'ca.crt'}",
        "--leader-elect=false",
        "--secure-port=0",
        "--controllers=" + ",".join(f"{name}-controller" for name in CONTROLLERS),
        # The defaults (20, 30) would have tests wait for the client's own limiter.
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]


def write_certificates(files: Path, *hosts: str, node: str = "") -> None:
    """Write ca.crt and, as NAME.crt and NAME.key: apiserver, admin (may do anything), tokens (signs them), kubelet.

    The API server's is for loopback and for `hosts`; the kubelet's is that of the node of that name, if there is one.
    """
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(files / "ca.crt"))
    issued = {
        "apiserver": authority.issue_cert("127.0.0.1", "localhost", "kubernetes.default.svc", *hosts),
        "admin": authority.issue_cert("admin", common_name="admin", organization_name="system:masters"),
        "tokens": authority.issue_cert("tokens"),
    }
    if node:
        identity = {"common_name": f"system:node:{node}", "organization_name": "system:nodes"}
        issued["kubelet"] = authority.issue_cert(node, **identity)
    for name, leaf in issued.items():
        leaf.private_key_pem.write_to_path(str(files / f"{name}.key"))
        leaf.cert_chain_pems[0].write_to_path(str(files / f"{name}.crt"))


def write_kubeconfig(path: Path, url: str, user: str = "admin") -> Path:
    """Write a kubeconfig for one of the certificates beside it."""
    files = path.parent
    cluster = {"server": url, "certificate-authority": str(files / "ca.crt")}
    client = {"client-certificate": str(files / f"{user}.crt"), "client-key": str(files / f"{user}.key")}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": "lab", "user": client}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        "current-context": "lab",
    }
    path.write_text(json.dumps(config, indent=2))  # JSON is YAML
    return path
