"""Who serves: the endpoints of the webhook's Service, and the certificate that each of them shows."""

from __future__ import annotations

import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

import msgspec

from webhook.cluster.api import Api

SERVICE = "plane-webhook"
# Seconds; in a cluster's network a handshake takes milliseconds.
_TIMEOUT = 3.0


class _Port(msgspec.Struct):
    name: str | None = None
    port: int | None = None


class _Conditions(msgspec.Struct):
    ready: bool | None = None


class _Endpoint(msgspec.Struct):
    addresses: list[str] = []
    conditions: _Conditions | None = None


class _Slice(msgspec.Struct):
    endpoints: list[_Endpoint] | None = None
    ports: list[_Port] | None = None


class _Slices(msgspec.Struct):
    items: list[_Slice]


class Endpoint(msgspec.Struct, frozen=True):
    """Where a replica listens for the API server; not ready ones too, for they may be in a moment."""

    address: str
    port: int
    ready: bool


def endpoints(api: Api, namespace: str) -> list[Endpoint]:
    """All that there are, in a fixed order. Raises ApiError."""
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    found = api.request("GET", path, query={"labelSelector": f"kubernetes.io/service-name={SERVICE}"})
    return sorted(
        (
            Endpoint(each.addresses[0], port.port, bool(each.conditions is None or each.conditions.ready is not False))
            for every in msgspec.json.decode(found, type=_Slices).items
            for port in every.ports or ()
            if port.name == "https" and port.port
            for each in every.endpoints or ()
            if each.addresses
        ),
        key=lambda each: (each.address, each.port),
    )


def served(all_of_them: list[Endpoint]) -> list[bytes | None]:
    """The leaf that each endpoint shows, as DER; None where no handshake came about."""
    if not all_of_them:
        return []
    with ThreadPoolExecutor(min(8, len(all_of_them))) as pool:
        return list(pool.map(_leaf, all_of_them))


def _leaf(endpoint: Endpoint) -> bytes | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # It is looked at, not believed: what it shows is compared with what it should.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((endpoint.address, endpoint.port), timeout=_TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname=None) as connection,
        ):
            return connection.getpeercert(binary_form=True)
    except OSError:
        return None
