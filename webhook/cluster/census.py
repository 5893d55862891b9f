"""The pods of the namespaces that are opted in, read page by page: nothing of other namespaces is ever asked for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from webhook.admission import INJECT, review
from webhook.cluster.api import Api
from webhook.cluster.pods import Judged, judge
from webhook.settings import Settings

# An injected pod has some 40 kB: a page is a few MB, and one at a time is in memory.
_WHOLE_PAGE = "50"
# Of their metadata alone more go into a page.
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_METADATA_PAGE = "250"
# Pods of a namespace that are read one by one when they have changed; of more, all are read page by page.
_SINGLY = 200
_OVER = ("Succeeded", "Failed")
# What `kubectl rollout restart` takes; other APIs have Deployments too, which it doesn't.
_ROLLED = ("Deployment", "StatefulSet", "DaemonSet")
# What a name, a kind and a version may be. The API server takes any text in an owner reference, and whoever creates a
# pod writes it: it must not get into a path, an Event or a command that somebody is told to run.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}")
_VERSION = re.compile(r"([a-z0-9][-a-z0-9.]{0,251}/)?v[a-z0-9]{1,62}")
_UID = re.compile(r"[-A-Za-z0-9]{1,64}")


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
    labels: dict[str, str] | None = None
    owner_references: list[_Owner] | None = None
    continue_: str | None = msgspec.field(name="continue", default=None)


class _Condition(msgspec.Struct):
    type: str
    status: str


class _Running(msgspec.Struct, rename="camel"):
    started_at: str | None = None


class _State(msgspec.Struct):
    running: _Running | None = None


class _ContainerStatus(msgspec.Struct, rename="camel"):
    name: str = ""
    container_id: str = msgspec.field(name="containerID", default="")
    state: _State | None = None


class _Status(msgspec.Struct, rename="camel"):
    phase: str = ""
    conditions: list[_Condition] | None = None
    container_statuses: list[_ContainerStatus] | None = None
    init_container_statuses: list[_ContainerStatus] | None = None


class _Pod(msgspec.Struct):
    metadata: _Metadata
    status: _Status | None = None


class _Named(msgspec.Struct):
    metadata: _Metadata


class _Whole(_Named):
    items: list[msgspec.Raw]


class _Names(_Named):
    items: list[_Named] | None = None  # null where there are none, in a list of metadata


_Page = TypeVar("_Page", _Whole, _Names)


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


class Start(msgspec.Struct, frozen=True):
    """A container with our guard, as it was started the last time."""

    container: str
    workload: str  # what the guard was told
    id: str  # of each start another one
    at: str  # in RFC 3339, as the kubelet writes it; empty where it does not run now


class Found(msgspec.Struct, frozen=True):
    """A pod of Plane's, or of anybody's in an opted-in namespace."""

    namespace: str
    name: str
    uid: str
    owner: Owner
    controller: Owner | None  # what makes another one when this one goes: of a Deployment's pod the ReplicaSet
    ready: bool
    leaving: bool  # deleted, and not gone yet
    judged: Judged
    starts: tuple[Start, ...] = ()

    @property
    def restart(self) -> str:
        """The command that has all pods of its owner made anew; empty where kubectl has none for this kind."""
        if self.owner.api_version != "apps/v1" or self.owner.kind not in _ROLLED:
            return ""
        return f"kubectl -n {shlex.quote(self.namespace)} rollout restart {shlex.quote(self.owner.shown)}"

    @property
    def why(self) -> str:
        """The command that shows what our lines in its container's log say."""
        where = shlex.join((self.name, "-c", self.judged.container))
        return f"kubectl -n {shlex.quote(self.namespace)} logs {where} | grep plane-webhook:"


def namespaces(api: Api, selector: str = f"{INJECT}=enabled") -> dict[str, dict[str, str]]:
    """The namespaces that are opted in, or that `selector` chooses, in order, and their labels. Raises ApiError."""
    query = {"labelSelector": selector}
    found = msgspec.json.decode(api.request("GET", "/api/v1/namespaces", query=query), type=_Names)
    here = [each.metadata for each in found.items or () if each.metadata.deletion_timestamp is None]
    return {each.name: each.labels or {} for each in sorted(here, key=lambda each: each.name)}


class Census:
    """The pods of some namespaces, look by look: read whole once, and from then on only those that have changed.

    Of injected pods the API server hands out 40 kB each, and of their metadata 2: with thousands of them that is the
    difference between ten seconds and one.
    """

    def __init__(self, api: Api, settings: Settings) -> None:
        self._api = api
        self._settings = settings
        # Of a namespace each pod by its uid: the version that was read, and what was found, if it is not over.
        self._known: dict[str, dict[str, tuple[str, Found | None]]] = {}

    def look(self, namespaces: Iterable[str]) -> dict[str, list[Found]]:
        """Every pod of these namespaces that is not over, judged; those that leave too. Raises ApiError."""
        self._known = {name: self._look(name) for name in namespaces}
        return {name: [found for _, found in known.values() if found] for name, known in self._known.items()}

    def _look(self, namespace: str) -> dict[str, tuple[str, Found | None]]:
        known = self._known.get(namespace)
        if known is None:
            return dict(_read(self._api, namespace, self._settings))
        now: dict[str, tuple[str, Found | None]] = {}
        changed = []
        for page in _pages(self._api, namespace, _Names, accept=_METADATA, limit=_METADATA_PAGE):
            for pod in (each.metadata for each in page.items or ()):
                before = known.get(pod.uid)
                if before is not None and before[0] == pod.resource_version:
                    now[pod.uid] = before
                else:
                    changed.append(pod.name)
        if len(changed) > _SINGLY:
            return dict(_read(self._api, namespace, self._settings))
        for name in changed:
            now |= _read(self._api, namespace, self._settings, fieldSelector=f"metadata.name={name}")
        return now


def pods(api: Api, namespace: str, settings: Settings) -> Iterator[Found]:
    """Every pod of the namespace that is neither over nor leaving, judged. Raises ApiError."""
    return (found for _, (_, found) in _read(api, namespace, settings) if found is not None and not found.leaving)


def _read(api: Api, namespace: str, settings: Settings, **query: str) -> Iterator[tuple[str, tuple[str, Found | None]]]:
    """Each pod's uid, its version, and what is found of it unless it is over. Raises ApiError."""
    profile = settings.profile(namespace)
    owners: dict[str, Owner] = {}
    for page in _pages(api, namespace, _Whole, limit=_WHOLE_PAGE, **query):
        for raw in page.items:
            seen = msgspec.json.decode(raw, type=_Pod)
            pod = review.parse_pod(raw)
            status = seen.status or _Status()
            found = None
            if pod is not None and status.phase not in _OVER:
                maker = _controller(seen.metadata)
                judged = judge(pod, profile)
                found = Found(
                    namespace=namespace,
                    name=seen.metadata.name,
                    uid=seen.metadata.uid,
                    owner=_owner(api, namespace, seen, maker, owners),
                    controller=maker,
                    ready=any(each.type == "Ready" and each.status == "True" for each in status.conditions or ()),
                    leaving=seen.metadata.deletion_timestamp is not None,
                    judged=judged,
                    starts=_starts(judged, status),
                )
            yield seen.metadata.uid, (seen.metadata.resource_version, found)


def _pages(
    api: Api, namespace: str, kind: type[_Page], *, accept: str = "application/json", **query: str
) -> Iterator[_Page]:
    """A list of pods, page by page. Raises ApiError."""
    more: str | None = ""
    while more is not None:
        asked = {**query, **({"continue": more} if more else {})}
        answer = api.request("GET", f"/api/v1/namespaces/{namespace}/pods", query=asked, accept=accept)
        page = msgspec.json.decode(answer, type=kind)
        yield page
        more = page.metadata.continue_ or None


def _starts(judged: Judged, status: _Status) -> tuple[Start, ...]:
    guarded = dict(judged.guarded)
    return tuple(
        Start(each.name, guarded[each.name], each.container_id, (running and running.started_at) or "")
        for each in (*(status.container_statuses or ()), *(status.init_container_statuses or ()))
        if each.name in guarded and each.container_id
        for running in (each.state and each.state.running,)
    )


def controller(raw: bytes) -> Owner | None:
    """What an object, as JSON, says to be made by."""
    return _controller(msgspec.json.decode(raw, type=_Named).metadata)


def _controller(metadata: _Metadata) -> Owner | None:
    """The first that says to be the controller, unless it can't be one."""
    first = next((each for each in metadata.owner_references or () if each.controller), None)
    if first is None or not _plausible(first):
        return None
    return Owner(first.api_version, first.kind, first.name, first.uid)


def _plausible(owner: _Owner) -> bool:
    texts = ((_NAME, owner.name), (_KIND, owner.kind), (_VERSION, owner.api_version), (_UID, owner.uid))
    return all(allowed.fullmatch(text) for allowed, text in texts)


def _owner(api: Api, namespace: str, pod: _Pod, maker: Owner | None, known: dict[str, Owner]) -> Owner:
    """The controller, and of a ReplicaSet its Deployment: that is what people look at."""
    if maker is None:
        return Owner("v1", "Pod", pod.metadata.name, pod.metadata.uid)
    if maker.uid not in known:
        above = None
        if (maker.api_version, maker.kind) == ("apps/v1", "ReplicaSet"):
            found = api.find(f"/apis/apps/v1/namespaces/{namespace}/replicasets/{maker.name}")
            above = controller(found) if found else None
        known[maker.uid] = above or maker
    return known[maker.uid]
