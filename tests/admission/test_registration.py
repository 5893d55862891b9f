"""The MutatingWebhookConfiguration as a value; whether an API server takes it is tests/e2e's to say."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

import certs
from webhook import cli
from webhook.admission.target import FOREIGN_IMAGES
from webhook.cluster import registration
from webhook.cluster.registration import RegistrationError
from webhook.settings import Settings, parse

SERVICE = {"namespace": "plane-webhook", "name": "plane-webhook", "path": "/mutate", "port": 443}


def made(settings: Settings | None = None, **options: Any) -> Any:
    options = {"client_config": {"service": SERVICE}, "ca_bundle": b"PEM", **options}
    return registration.manifest(settings or Settings(), **options)


@pytest.mark.parametrize(
    ("text", "service"),
    [
        ("plane-webhook/plane-webhook", SERVICE),
        ("a/b:8443", {"namespace": "a", "name": "b", "path": "/mutate", "port": 8443}),
        ("a-1/b-2:65535", {"namespace": "a-1", "name": "b-2", "path": "/mutate", "port": 65535}),
    ],
)
def test_service(text: str, service: dict[str, Any]) -> None:
    assert registration.service(text) == {"service": service}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a/",
        "/b",
        "a/b/c",
        "a/b:",
        "a/b:0",
        "a/b:65536",
        "a/b:x",
        "a/b:-1",
        "a/b:٣",
        "A/b",
        "-a/b",
        "a/b-",
        f"{'a' * 64}/b",
        "a/b c",
        "a/b\n",
        "https://a/b",
    ],
)
def test_a_service_that_can_not_be_meant(text: str) -> None:
    with pytest.raises(RegistrationError, match="expected NAMESPACE/NAME, as in plane-webhook/plane-webhook"):
        registration.service(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://host", "https://host/mutate"),
        ("https://host/", "https://host/mutate"),
        ("https://host:8443//", "https://host:8443/mutate"),
        ("https://10.0.0.1:8443/mutate", "https://10.0.0.1:8443/mutate"),
        ("https://[::1]:8443", "https://[::1]:8443/mutate"),
        ("https://host/behind/a/proxy", "https://host/behind/a/proxy"),
    ],
)
def test_url(text: str, url: str) -> None:
    assert registration.url(text) == {"url": url}


@pytest.mark.parametrize(
    "text",
    [
        "", "host", "host:8443", "http://host", "https://", "https:///mutate", "https://host:0", "https://host:65536",
        "https://host:port", "https://[::1", "https://user@host", "https://:secret@host", "https://host?x=1",
        "https://host?", "https://host#x", "https://ho st", "https://host/a b", "https://host\n",
    ],
)  # fmt: skip
def test_a_url_that_an_api_server_would_not_take(text: str) -> None:
    with pytest.raises(RegistrationError, match="expected https://HOST"):
        registration.url(text)


def test_the_whole_object() -> None:
    assert made(failure_policy="Fail") == {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "plane-webhook", "labels": {"app.kubernetes.io/name": "plane-webhook"}},
        "webhooks": [
            {
                "name": "inject.pods.plane-webhook",
                "admissionReviewVersions": ["v1"],
                "clientConfig": {"service": SERVICE, "caBundle": base64.b64encode(b"PEM").decode()},
                "rules": [
                    {
                        "operations": ["CREATE"],
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "resources": ["pods"],
                        "scope": "Namespaced",
                    }
                ],
                "namespaceSelector": {
                    "matchLabels": {"plane-webhook/inject": "enabled"},
                    "matchExpressions": [
                        {
                            "key": "kubernetes.io/metadata.name",
                            "operator": "NotIn",
                            "values": ["kube-system", "plane-webhook"],
                        }
                    ],
                },
                "objectSelector": {
                    "matchExpressions": [
                        {"key": "plane-webhook/inject", "operator": "NotIn", "values": ["disabled"]},
                    ]
                },
                "matchConditions": [{"name": "runs-plane", "expression": registration.condition(Settings())}],
                "failurePolicy": "Fail",
                "matchPolicy": "Equivalent",
                "reinvocationPolicy": "IfNeeded",
                "sideEffects": "None",
                "timeoutSeconds": 5,
            }
        ],
    }
    assert made()["webhooks"][0]["failurePolicy"] == "Ignore"


@pytest.mark.parametrize(
    ("client_config", "out"),
    [
        ({"service": {**SERVICE, "namespace": "tools"}}, ["kube-system", "tools"]),
        ({"service": {**SERVICE, "namespace": "kube-system"}}, ["kube-system"]),
        ({"url": "https://host/mutate"}, ["kube-system", "plane-webhook"]),
    ],
)
def test_the_webhooks_own_namespace_is_always_out(client_config: dict[str, Any], out: list[str]) -> None:
    (webhook,) = made(client_config=client_config)["webhooks"]
    assert webhook["namespaceSelector"]["matchExpressions"][0]["values"] == out


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("", {"makeplane/backend-commercial", "makeplane/plane-backend"}),
        ("workloads: [api]", {"makeplane/backend-commercial", "makeplane/plane-backend"}),
        ("images: []", set()),
        ("images: [x]\nnamespaces: {x: {images: [a/b]}}", {"x", "a/b"}),
    ],
)
def test_the_condition_asks_for_all_that_is_planes_under_any_profile(text: str, images: set[str]) -> None:
    condition = registration.condition(parse(text))
    assert set(re.findall(r"c\.image\.contains\('([^']*)'\)", condition)) == {*images, *FOREIGN_IMAGES}
    assert "text.contains('docker-ent') && text.contains('ntrypoint-')" in condition
    assert condition.count("(") == condition.count(")")
    # Each field is asked for with has() before it is read, and each list for not being null.
    for field in ("c.command", "c.args", "c.image"):
        assert condition.index(f"has({field})") < condition.index(f"{field}.")
    for field in ("object.spec.containers", "object.spec.initContainers"):
        assert f"has({field}) && {field} != null && {field}.exists(" in condition


def test_what_is_asked_for_does_not_depend_on_the_workloads() -> None:
    """A publisher that is not asked for is met by a log line and a metric too."""
    assert registration.condition(parse("workloads: [beat]")) == registration.condition(Settings())


# --- the command


@pytest.fixture
def ca_file(tmp_path: Path) -> str:
    certs.issue(tmp_path / "tls", ["localhost"], days=1, force=False, now=datetime.now(UTC))
    return str(tmp_path / "tls" / "ca.crt")


def test_the_command_prints_what_can_be_applied(ca_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--service", "plane-webhook/plane-webhook", "--ca-file", ca_file, "--failure-policy", "Fail"]
    assert cli.main(["registration", *arguments]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    bundle = base64.b64decode(printed["webhooks"][0]["clientConfig"]["caBundle"])
    assert bundle == Path(ca_file).read_bytes()
    assert printed == made(ca_bundle=bundle, failure_policy="Fail")


def test_wrong_arguments_are_said_and_exit_2(ca_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, key = tmp_path / "empty.crt", Path(ca_file).with_name("tls.key")
    empty.touch()
    config = tmp_path / "config.yaml"
    config.write_text("env: 1")
    for arguments, said in (
        (["--service", "a", "--ca-file", ca_file], "--service a: expected NAMESPACE/NAME"),
        (["--url", "http://a", "--ca-file", ca_file], "--url http://a: expected https://HOST"),
        (["--service", "a/b", "--ca-file", "nowhere.crt"], "nowhere.crt: can't be read: No such file"),
        (["--service", "a/b", "--ca-file", str(empty)], f"{empty}: holds no PEM certificate"),
        (["--service", "a/b", "--ca-file", str(key)], f"{key}: holds a private key"),
        (["--service", "a/b", "--ca-file", ca_file, "--config", str(config)], f"{config}: env: should hold keys"),
    ):
        assert cli.main(["registration", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"plane-webhook: {said}")
        assert "PRIVATE" not in err
