"""What others show and write where `operate` looks: nothing of it ends the process, or makes it say what isn't so."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import certs
from tests.edges.strangers import Cluster
from webhook.cluster.endpoints import Endpoint, served
from webhook.cluster.evictions import COURSES, Notebook
from webhook.cluster.exporter import Exporter
from webhook.cluster.healing import Course
from webhook.cluster.pods import State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def strange(tmp_path: Path) -> Iterator[Endpoint]:
    """Who shows a certificate of a version of X.509 that there is not, which OpenSSL takes and others don't."""
    pair = certs.generate(["a.svc"], days=1, now=datetime.now(UTC))
    der = x509.load_pem_x509_certificate(pair["tls.crt"]).public_bytes(Encoding.DER)
    der = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)
    (tmp_path / "tls.crt").write_text(ssl.DER_cert_to_PEM_cert(der))
    (tmp_path / "tls.key").write_bytes(pair["tls.key"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")

    def work() -> None:
        with suppress(OSError), context.wrap_socket(listening.accept()[0], server_side=True) as connection:
            connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        Thread(target=work, daemon=True).start()
        yield Endpoint("127.0.0.1", listening.getsockname()[1], ready=True)


def value(exporter: Exporter, name: str, **labels: str) -> float | None:
    return exporter.registry.get_sample_value(f"plane_webhook_operate_{name}", labels)


def test_a_certificate_that_can_not_be_read_is_one_that_answers(strange: Endpoint) -> None:
    exporter = Exporter()
    assert exporter.serving(served([strange])) is None
    assert value(exporter, "endpoints_answering") == 1
    now = datetime.now(UTC).replace(microsecond=0)
    pair = certs.generate(["a.svc"], days=1, now=now)
    leaf = x509.load_pem_x509_certificate(pair["tls.crt"]).public_bytes(Encoding.DER)
    assert exporter.serving([b"", None, b"0", leaf]) == now + timedelta(days=1)


def test_of_namespaces_that_come_and_go_no_counters_stay() -> None:
    exporter = Exporter()
    for number in range(100):
        exporter.census(["plane", f"preview-{number}"], [(f"preview-{number}", State.MISSED)])
        exporter.evictions.labels("plane", "made").inc()
    assert value(exporter, "evictions_total", plane_namespace="plane", outcome="made") == 100
    (family,) = [each for each in exporter.registry.collect() if each.name == "plane_webhook_operate_evictions"]
    assert {each.labels["plane_namespace"] for each in family.samples} == {"plane", "preview-99"}


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("attempts", -5),
        ("name", ""),
        ("name", "x/../../../../v1/namespaces/plane-webhook/secrets/plane-webhook-tls"),
        ("name", "x\n"),
        ("kind", "Deployment"),
    ],
)
def test_what_can_not_have_been_written_down_is_not_read(key: str, written: str | int) -> None:
    course = msgspec.to_builtins(Course("ReplicaSet", "api-1", "pod", ("pod",), 1))
    path = f"/api/v1/namespaces/own/configmaps/{COURSES}"
    data = {"plane": msgspec.json.encode({"uid": {**course, key: written}}).decode()}
    good = {"other": msgspec.json.encode({"uid": course}).decode()}
    with Cluster({path: {"metadata": {"resourceVersion": "1"}, "data": {**data, **good}}}) as api:
        notebook = Notebook(api, "own", ["plane", "other"])
        assert notebook.courses("plane") == {}
        assert notebook.courses("other")["uid"].name == "api-1"
