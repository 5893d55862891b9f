"""What is installed of the webhook: Deployment, Secret, registration, read and written as they are in the cluster."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from webhook.cluster.api import Api, ApiError
from webhook.cluster.certificates import FILES, Files
from webhook.cluster.endpoints import SERVICE
from webhook.cluster.registration import CONDITION, NAME
from webhook.settings import Settings, SettingsError, parse

OPERATE = "plane-webhook-operate"  # its Deployment, its Lease, and the manager of the fields that it sets
REGISTRATION = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{NAME}"
WEBHOOK = f"inject.pods.{NAME}"
_FILE = "configuration.yaml"  # as the Deployment's --config names it


class Installed:
    """The webhook's Deployment, and by what it mounts the names of its Secret and of its configuration's ConfigMap."""

    def __init__(self, api: Api, namespace: str) -> None:
        """Read it. Raises ApiError, also where it isn't there."""
        self._api = api
        self.namespace = namespace
        found = api.find(f"/apis/apps/v1/namespaces/{namespace}/deployments/{SERVICE}")
        if found is None:
            raise ApiError(
                f"there is no Deployment {SERVICE} in the namespace {namespace}; name the right one "
                f"(--webhook-namespace), or install it{_left(api, namespace)}"
            )
        self.deployment: dict[str, Any] = msgspec.json.decode(found)
        volumes = {each["name"]: each for each in self.deployment["spec"]["template"]["spec"].get("volumes") or ()}
        try:
            self.secret: str = volumes["tls"]["secret"]["secretName"]
            self.configuration: str = volumes["configuration"]["configMap"]["name"]
        except KeyError as error:
            raise ApiError(
                f"the Deployment {SERVICE} in {namespace} mounts no {error}: it is not as installed"
            ) from error

    def settings(self) -> Settings:
        """The configuration that the cluster has. Raises ApiError."""
        raw = self._api.find(f"/api/v1/namespaces/{self.namespace}/configmaps/{self.configuration}")
        if raw is None:
            raise ApiError(
                f"the ConfigMap {self.configuration}, which the Deployment {SERVICE} mounts, is not in {self.namespace}"
            )
        where = f"configmap/{self.configuration} in {self.namespace}"
        text = (msgspec.json.decode(raw).get("data") or {}).get(_FILE)
        if text is None:
            raise ApiError(f"{where}: it has no {_FILE}, without which no replica starts")
        try:
            return parse(text)
        except SettingsError as error:
            raise ApiError(f"{where}: {error}") from error


class Secret:
    """The Secret with the webhook's files, at the version that was read; `files` is None where there is none."""

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        """Read it. Raises ApiError."""
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
        self._metadata: dict[str, Any] = {"name": name, "namespace": namespace}
        found = api.find(self._path)
        self.files: Files | None = None
        if found is not None:
            secret = msgspec.json.decode(found)
            self._metadata["resourceVersion"] = secret["metadata"]["resourceVersion"]
            data = secret.get("data") or {}
            self.files = {name: _decoded(data[name]) for name in FILES if name in data}

    def store(self, files: Files) -> None:
        """Put these files there. Raises ApiError; a conflict if somebody wrote since it was read."""
        data = {name: base64.b64encode(content).decode() for name, content in files.items()}
        manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": self._metadata, "data": data}
        self._api.apply(self._path, manifest, manager=OPERATE)


class ConfigMap:
    """One that `operate` keeps in the webhook's namespace, at the version that was read."""

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        """Read it. Raises ApiError."""
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
        self._metadata: dict[str, Any] = {"name": name, "namespace": namespace}
        self.data: dict[str, str] = {}
        found = api.find(self._path)
        if found is not None:
            self._take(found)

    def write(self, data: Mapping[str, str]) -> None:
        """Put this there. Raises ApiError; a conflict if somebody wrote since it was read."""
        if "resourceVersion" not in self._metadata:
            # Without data, and by another manager, so that what somebody else has put there stays.
            bare = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": self._metadata}
            self._take(self._api.apply(self._path, bare, manager=f"{OPERATE}-make"))
            if self.data:
                raise ApiError(f"{self._path}: somebody else has written it meanwhile", HTTPStatus.CONFLICT)
        metadata = {**self._metadata, "labels": {"app.kubernetes.io/name": OPERATE}}
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        self._take(self._api.apply(self._path, manifest, manager=OPERATE))
        self.data = dict(data)  # what others have put there is nothing to compare with

    def _take(self, raw: bytes) -> None:
        found = msgspec.json.decode(raw)
        self.data = found.get("data") or {}
        self._metadata["resourceVersion"] = found["metadata"]["resourceVersion"]


class Registration:
    """The MutatingWebhookConfiguration at the version that was read; `webhook` is None where ours isn't in it."""

    def __init__(self, api: Api) -> None:
        """Read it. Raises ApiError."""
        self._api = api
        self.webhook: Mapping[str, Any] | None = None
        self.at = 0  # where in the list it stands
        self._owned = False
        found = api.find(REGISTRATION)
        if found is None:
            return
        registration = msgspec.json.decode(found)
        metadata = registration["metadata"]
        self._version = metadata["resourceVersion"]
        webhooks = enumerate(registration.get("webhooks") or ())
        self.at, self.webhook = next(((at, each) for at, each in webhooks if each.get("name") == WEBHOOK), (0, None))
        for entry in metadata.get("managedFields") or ():
            if entry.get("manager") == OPERATE:
                self._owned = "f:matchConditions" in msgspec.json.encode(entry.get("fieldsV1")).decode()

    @property
    def bundle(self) -> bytes | None:
        """The caBundle as PEM; None where nothing is registered."""
        if self.webhook is None:
            return None
        return _decoded(self.webhook.get("clientConfig", {}).get("caBundle") or "")

    def elsewhere(self, namespace: str) -> str:
        """The Service that it leads to, if that is not the webhook's in this namespace: another installation's."""
        service = (self.webhook or {}).get("clientConfig", {}).get("service")  # None where it has a URL
        leads = f"{service['namespace']}/{service['name']}" if service else ""
        return "" if leads == f"{namespace}/{SERVICE}" else leads

    def lacks(self, condition: str) -> bool:
        """Whether the condition is ours to set, for the applied registration leaves it out, and isn't this one.

        Of the others in the list nothing is said: the API server keeps it by name, and those are somebody else's.
        """
        conditions = (self.webhook or {}).get("matchConditions") or []
        ours = next((each["expression"] for each in conditions if each["name"] == CONDITION), None)
        return ours != condition and (ours is None or self._owned)

    def set(self, bundle: bytes, condition: str) -> None:
        """Fill in the caBundle, and the condition where that is ours. Raises ApiError; a conflict as for the Secret."""
        webhook: dict[str, Any] = {
            "name": WEBHOOK,
            "clientConfig": {"caBundle": base64.b64encode(bundle).decode()},
        }
        if self._owned or self.lacks(condition):
            webhook["matchConditions"] = [{"name": CONDITION, "expression": condition}]
        manifest = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": NAME, "resourceVersion": self._version},
            "webhooks": [webhook],
        }
        self._api.apply(REGISTRATION, manifest, manager=OPERATE)


def _left(api: Api, namespace: str) -> str:
    """What a registration that is there all the same says or does, where it may be read."""
    try:
        registration = Registration(api)
    except ApiError:
        return ""
    if registration.webhook is None:
        return ""
    if elsewhere := registration.elsewhere(namespace):
        return f". The MutatingWebhookConfiguration {NAME} leads to the Service {elsewhere}"
    return (
        f". The MutatingWebhookConfiguration {NAME} is there and leads to it: no pod of Plane's is injected, and under "
        f"failurePolicy Fail none is created. If it is not to be installed again: kubectl delete "
        f"mutatingwebhookconfiguration {NAME}"
    )


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return b""
