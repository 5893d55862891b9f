"""A command that can't do its work in the cluster says in one sentence why, and exits 2."""

from __future__ import annotations

import json
import pwd
import socket
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from kubernetes.config import incluster_config

from tests.edges.strangers import Cluster
from webhook.cli import main
from webhook.cluster.api import ApiError
from webhook.cluster.exporter import Exporter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """One of a cluster that nobody asks for anything."""
    return written(tmp_path / "kubeconfig", "http://127.0.0.1:1")


def written(path: Path, server: str, **how: bool) -> Path:
    named = {"name": "a"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{**named, "cluster": {"server": server, **how}}],
        "users": [{**named, "user": {"token": "x"}}],
        "contexts": [{**named, "context": {"cluster": "a", "user": "a"}}],
        "current-context": "a",
    }
    path.write_text(json.dumps(config))
    return path


def one_line(capfd: pytest.CaptureFixture[str]) -> str:
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_a_metrics_port_that_is_taken(kubeconfig: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        own = ["--namespace", "x", "--kubeconfig", str(kubeconfig), "--host", "127.0.0.1"]
        assert main(["operate", *own, "--metrics-port", str(port)]) == 2
    assert one_line(capfd) == (
        f"plane-webhook: --metrics-port {port} on 127.0.0.1 can't be listened on (Address already in use): choose "
        "another --metrics-port or --host, or end the process that has it\n"
    )


def test_an_api_server_that_nobody_checks_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    insecure = written(tmp_path / "kubeconfig", "https://127.0.0.1:1", **{"insecure-skip-tls-verify": True})
    with socket.create_server(("127.0.0.1", 0)) as other:  # so that it ends
        port = str(other.getsockname()[1])
        words = ["--namespace", "x", "--kubeconfig", str(insecure), "--host", "127.0.0.1", "--metrics-port", port]
        assert main(["operate", *words]) == 2
    first, second = capfd.readouterr().err.splitlines()
    assert "insecure-skip-tls-verify: whoever answers is taken for the API server" in first
    assert "can't be listened on" in second


@pytest.mark.parametrize("host", ["", "::", "::1", "0.0.0.0", "127.0.0.1"])
def test_metrics_are_where_a_kubelet_asks_for_them(host: str) -> None:
    """By IPv6 alone in a cluster that has no other: its liveness probe would end `operate` again and again."""
    addresses = {"": ["127.0.0.1", "[::1]"], "::": ["127.0.0.1", "[::1]"], "::1": ["[::1]"]}
    with Exporter().listening(host, 0) as port:
        for address in addresses.get(host, ["127.0.0.1"]):
            with urllib.request.urlopen(f"http://{address}:{port}/livez", timeout=5) as answer:
                assert answer.read() == b"ok"


@pytest.fixture
def page() -> Iterator[str]:
    """A server that answers all with a page, as a proxy does that wants somebody to log in."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>\n<title>Log in</title>")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_that_is_no_api_server(page: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--kubeconfig", str(written(tmp_path / "kubeconfig", page))]) == 2
    said = one_line(capfd)
    assert f"{page} answers, and not as an API server does: '<html>\\n<title>Log in</title>'" in said
    assert said.endswith("Is its address right, and is no proxy in between?\n")


def test_nor_does_it_end_a_process_that_runs() -> None:
    with Cluster({"/a": b"<html>", "/b": b"", "/c": b" {}"}) as api:
        for path in ("/a", "/b"):
            with pytest.raises(ApiError, match="not as an API server does"):
                api.find(path)
        assert api.find("/c") == b" {}"


@pytest.mark.parametrize(
    "words",
    [
        ["operate", "--namespace", ""],
        ["operate", "--namespace", "Plane"],
        ["operate", "--namespace", "x/../y"],
        ["operate", "--namespace", "x", "--secret", "a/b"],
        ["doctor", "-n", "a b"],
        ["preview", "--namespace", ""],
        ["preview", ""],
        ["preview", "--config", ""],
        ["serve", "--cert-dir", ""],
        ["certs", "issue", "--host", "x", "--dir", ""],
        ["preview", "--namespace", "Foo Bar"],
        ["doctor", "--webhook-namespace", "a" * 64],
    ],
)
def test_names_that_nothing_can_have(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert f"{words[-1]!r} is no " in capfd.readouterr().err


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for command in (["doctor"], ["operate", "--namespace", "x"]):
        assert main([*command, "--kubeconfig", str(tmp_path / "none")]) == 2
        assert f"{tmp_path / 'none'}: " in one_line(capfd)


def test_so_is_one_that_the_environment_names(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert main(["doctor"]) == 2
    assert f"{tmp_path / 'none'}: there is no such file. " in one_line(capfd)


def test_in_a_pod_too_doctor_asks_by_the_kubeconfig_that_kubectl_would_take(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a pod that runs jobs for another cluster, say; `operate` asks by its pod's own account."""
    for name in ("TOKEN", "CERT"):
        (tmp_path / name).write_text("of the pod")
        monkeypatch.setattr(incluster_config, f"SERVICE_{name}_FILENAME", str(tmp_path / name))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert main(["doctor"]) == 2
    assert f"{tmp_path / 'none'}: there is no such file. " in one_line(capfd)
    monkeypatch.setenv("KUBECONFIG", "")
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube/config").write_text("kubeconfig")
    assert main(["doctor"]) == 2
    assert f"{tmp_path / '.kube/config'}: can't be used as a kubeconfig: " in one_line(capfd)


def test_where_it_is_looked_for_when_nobody_names_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", "")
    assert main(["doctor"]) == 2
    assert "~/.kube/config: there is no such file. Name another with --kubeconfig or KUBECONFIG\n" in one_line(capfd)


def test_so_it_is_where_the_user_has_no_home(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A uid that is in no passwd file, as containers run under."""

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME")
    for named, said in (("", "~/.kube/config"), (str(tmp_path / "none"), str(tmp_path / "none"))):
        monkeypatch.setenv("KUBECONFIG", named)
        assert main(["doctor"]) == 2
        assert f"{said}: there is no such file. " in one_line(capfd)


def _kubeconfig(user: str) -> str:
    return f"""\
apiVersion: v1
kind: Config
current-context: a
contexts: [{{name: a, context: {{cluster: a, user: a}}}}]
clusters:
- name: a
  cluster: {{server: "https://127.0.0.1:1"}}
users:
- name: a
  user: {user}
"""


BROKEN = {
    "cut": ("clusters: [\nb: {", "while parsing a flow "),
    "empty": ("", "file is empty"),
    "a word": ("kubeconfig", "it has another shape than one"),
    "a list": ("[kubeconfig]", "it has another shape than one"),
    "a cluster that is a word": (
        _kubeconfig("{}").replace("cluster: {server", "cluster: x #{server"),
        "its server is '', no https:// address",
    ),
    "no URL": (_kubeconfig("{}").replace("https://", ""), "its server is '127.0.0.1:1', no https:// address"),
    "a plugin that is not there": (
        _kubeconfig("{exec: {apiVersion: client.authentication.k8s.io/v1, command: no-such-plugin}}"),
        "its credential plugin fails: [Errno 2] No such file or directory: 'no-such-plugin'",
    ),
    "a plugin that fails": (
        _kubeconfig("{exec: {apiVersion: client.authentication.k8s.io/v1, command: 'false'}}"),
        "its credential plugin fails: exec: process returned 1",
    ),
    "without a context": ("{apiVersion: v1, kind: Config}", "Expected key current-context"),
}


@pytest.mark.parametrize(("text", "why"), BROKEN.values(), ids=BROKEN)
def test_a_kubeconfig_that_is_broken_is_named_in_one_line(
    text: str,
    why: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(path))
    for named in ([], ["--kubeconfig", str(path)]):
        assert main(["doctor", *named]) == 2
        said = one_line(capfd)
        assert f"{path}: can't be used as a kubeconfig: " in said
        assert why in said
