"""The pods of the namespaces that are opted in, read page by page: nothing of other namespaces is ever asked for."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from webhook.admission import INJECT, review
from webhook.cluster.api import Api
from webhook.cluster.pods import Judged, judge
from webhook.settings import Settings

# An injected pod has some 50 kB: a page is a few MB, and one at a time is in memory.
_PAGE = "50"
_OVER = ("Succeeded", "Failed")


class _Owner(msgspec.Struct):
    kind: str
    name: str
    uid: str
    api_version: str = msgspec.field(name="apiVersion", default="")
    controller: bool | None = None


class _Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None
    owner_references: list[_Owner] | None = None
    continue_: str | None = msgspec.field(name="continue", default=None)


class _Status(msgspec.Struct):
    phase: str = ""


class _Pod(msgspec.Struct):
    metadata: _Metadata
    status: _Status | None = None


class _Page(msgspec.Struct):
    metadata: _Metadata
    items: list[msgspec.Raw]


class _Named(msgspec.Struct):
    metadata: _Metadata


class _Names(msgspec.Struct):
    metadata: _Metadata
    items: list[_Named]


class Owner(msgspec.Struct, frozen=True):
    """What people know a pod by: its Deployment or the like, or the pod itself."""

    api_version: str
    kind: str
    name: str
    uid: str

    @property
    def shown(self) -> str:
        """As kubectl names it."""
        return f"{self.kind.lower()}/{self.name}"


class Found(msgspec.Struct, frozen=True):
    """A pod of Plane's, or of anybody's in an opted-in namespace."""

    namespace: str
    name: str
    owner: Owner
    judged: Judged


def namespaces(api: Api) -> list[str]:
    """The namespaces that are opted in. Raises ApiError."""
    query = {"labelSelector": f"{INJECT}=enabled"}
    found = msgspec.json.decode(api.request("GET", "/api/v1/namespaces", query=query), type=_Names)
    return sorted(each.metadata.name for each in found.items if each.metadata.deletion_timestamp is None)


def pods(api: Api, namespace: str, settings: Settings) -> Iterator[Found]:
    """Every pod of the namespace that lives, judged. Raises ApiError."""
    profile = settings.profile(namespace)
    owners: dict[str, Owner] = {}
    more: str | None = ""
    while more is not None:
        query = {"limit": _PAGE, **({"continue": more} if more else {})}
        page = msgspec.json.decode(api.request("GET", f"/api/v1/namespaces/{namespace}/pods", query=query), type=_Page)
        for raw in page.items:
            seen = msgspec.json.decode(raw, type=_Pod)
            if seen.metadata.deletion_timestamp or (seen.status and seen.status.phase in _OVER):
                continue
            pod = review.parse_pod(raw)
            if pod is not None:
                yield Found(namespace, seen.metadata.name, _owner(api, namespace, seen, owners), judge(pod, profile))
        more = page.metadata.continue_ or None


def _owner(api: Api, namespace: str, pod: _Pod, known: dict[str, Owner]) -> Owner:
    """The controller, and of a ReplicaSet its Deployment: that is what people look at."""
    first = next((each for each in pod.metadata.owner_references or () if each.controller), None)
    if first is None:
        return Owner("v1", "Pod", pod.metadata.name, pod.metadata.uid)
    if first.uid not in known:
        above = None
        if first.kind == "ReplicaSet":
            found = api.find(f"/apis/apps/v1/namespaces/{namespace}/replicasets/{first.name}")
            references = msgspec.json.decode(found, type=_Named).metadata.owner_references if found else None
            above = next((each for each in references or () if each.controller), None)
        owner = above or first
        known[first.uid] = Owner(owner.api_version, owner.kind, owner.name, owner.uid)
    return known[first.uid]
