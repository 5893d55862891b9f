"""Healing, in the namespaces that ask for it: bad pods are evicted one by one, and their controllers make good ones.

`webhook.cluster.healing` decides; here is what it needs to know, and what is done. An attempt is written to a ConfigMap
at the version that was read before it is made, so of two that act at once one is refused, and one that is killed and
starts anew knows of it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from webhook import log
from webhook.admission import Reason, review
from webhook.cluster import healing, report
from webhook.cluster.api import Api, ApiError
from webhook.cluster.census import Found
from webhook.cluster.endpoints import SERVICE
from webhook.cluster.exporter import Exporter
from webhook.cluster.healing import Course, Courses
from webhook.cluster.installed import OPERATE, ConfigMap
from webhook.cluster.pods import State, judge
from webhook.settings import Settings

HEAL = "plane-webhook/heal"
COURSES = "plane-webhook-healing"
# What is to be bound in a namespace, for healing to be possible there.
ROLE = "plane-webhook-heal"
# Seconds after a try that showed that an eviction would not help, until the next one.
TRY_AGAIN = 60.0
# Seconds for which the last eviction may hold up the next one before that is said.
HELD_UP = 600.0


class _Metadata(msgspec.Struct):
    uid: str


class _Controller(msgspec.Struct):
    metadata: _Metadata
    spec: dict[str, Any]
    status: dict[str, Any] = {}

    @property
    def wanted(self) -> int:
        """How many pods it should have: a DaemonSet says so in its status."""
        return int(self.status.get("desiredNumberScheduled", self.spec.get("replicas", 1)))

    @property
    def template(self) -> str:
        """A digest of what it makes pods of."""
        text = msgspec.json.encode(self.spec["template"], order="deterministic")
        return hashlib.sha256(text).hexdigest()[:16]


class Healer:
    """What one process does about it; `own` is the webhook's namespace."""

    def __init__(
        self, api: Api, own: str, settings: Settings, exporter: Exporter, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._own = own
        self._settings = settings
        self._exporter = exporter
        self._clock = clock
        self._bad: dict[str, float] = {}  # uid of a pod: since when it has been seen to be bad
        self._courses: dict[str, tuple[Courses, float]] = {}  # of a namespace, and since when they are as they are
        self._tried: dict[str, float] = {}
        self._said: set[tuple[str, str]] = set()

    def heal(self, notebook: Notebook, found: Mapping[str, Sequence[Found]]) -> None:
        """Do the next thing in each of these namespaces, all of whose pods are `found`. Raises ApiError.

        The notebook is from before they were listed.
        """
        now = self._clock()
        bad = {each.uid for pods in found.values() for each in pods if healing.eligible(each)}
        self._bad = {uid: self._bad.get(uid, now) for uid in bad}
        owners = {each.owner.uid for pods in found.values() for each in pods}
        self._said = {each for each in self._said if each[0] in owners}
        self._courses = {name: each for name, each in self._courses.items() if name in found}
        self._tried = {name: each for name, each in self._tried.items() if name in found}
        for namespace, pods in found.items():
            try:
                self._namespace(namespace, pods, notebook, now)
            except ApiError as error:
                if not error.lacks_right:
                    raise
                self._tried[namespace] = now
                self._unbound(namespace, pods, error)

    def _namespace(self, namespace: str, pods: Sequence[Found], notebook: Notebook, now: float) -> None:
        courses = notebook.courses(namespace)
        if self._courses.get(namespace, (None, now))[0] != courses:
            self._courses[namespace] = (courses, now)
        since = self._courses.setdefault(namespace, (courses, now))[1]
        makers = self._makers(namespace, pods, courses)
        step = healing.plan(
            pods,
            {uid: each.wanted for uid, each in makers.items()},
            healing.as_of_now(courses, {uid: each.template for uid, each in makers.items()}),
            bad_for={uid: now - each for uid, each in self._bad.items()},
            unchanged=now - since,
        )
        for each in step.given_up:
            many = len(healing.PAUSES) + 1
            what = f"is left as it is: {many} attempts in a row did not put it right{report.remedy(each)}"
            self._say(each, "given up", what)
        if step.held_up and now - since >= HELD_UP and (waiting := next(filter(healing.eligible, pods), None)):
            what = (
                "is not evicted yet, for the last eviction is not over: its pod is still there, or another is not ready"
            )
            self._say(waiting, "held up", f"{what}: kubectl -n {namespace} get pods")
        if step.evict is None:
            if step.courses != courses:
                notebook.write(namespace, step.courses)
            return
        if now - self._tried.get(namespace, now - TRY_AGAIN) < TRY_AGAIN:
            return
        pod = step.evict
        assert pod.controller is not None  # noqa: S101 - what may be evicted has one
        problem = self._would_stay(pod, makers[pod.controller.uid])
        if problem:
            self._tried[namespace] = now
            self._say(pod, "no better", f"is not evicted, for {problem}")
            return
        uid = pod.controller.uid
        course = msgspec.structs.replace(step.courses[uid], template=makers[uid].template)
        notebook.write(namespace, {**step.courses, uid: course})
        self._evict(pod)

    def _makers(self, namespace: str, pods: Sequence[Found], courses: Courses) -> dict[str, _Controller]:
        """The controllers that matter: those of bad pods, and those that have had a pod evicted."""
        matter = {uid: (course.kind, course.name) for uid, course in courses.items()}
        for each in pods:
            if each.controller is not None and healing.eligible(each):
                matter[each.controller.uid] = (each.controller.kind, each.controller.name)
        found = {uid: self._maker(namespace, uid, *which) for uid, which in matter.items()}
        return {uid: each for uid, each in found.items() if each is not None}

    def _maker(self, namespace: str, uid: str, kind: str, name: str) -> _Controller | None:
        raw = self._api.find(f"/apis/apps/v1/namespaces/{namespace}/{kind.lower()}s/{name}")
        found = msgspec.json.decode(raw, type=_Controller) if raw is not None else None
        return found if found is not None and found.metadata.uid == uid else None

    def _would_stay(self, pod: Found, maker: _Controller) -> str | None:
        """Why another pod of this template would be no better, by a server-side dry run; None if it would be."""
        template = maker.spec["template"]
        metadata = {key: value for key, value in (template.get("metadata") or {}).items() if value}
        metadata.pop("creationTimestamp", None)
        metadata["generateName"] = f"{pod.controller.name if pod.controller else ''}-"
        try:
            answer = self._api.rehearse(pod.namespace, metadata, template["spec"])
        except ApiError as error:
            if error.status == 0 or error.lacks_right:
                raise
            # A quota, Pod Security, somebody else's webhook.
            return f"a pod like it would be refused now (tried by a server-side dry run): {error}"
        parsed = review.parse_pod(answer)
        judged = judge(parsed, self._settings.profile(pod.namespace)) if parsed is not None else None
        if judged is not None and (judged.state, judged.reason) in _AS_CONFIGURED:
            return None
        elsewhere = "" if self._own == SERVICE else f" --webhook-namespace {self._own}"
        look = f"plane-webhook doctor -n {pod.namespace}{elsewhere}"
        return f"a pod like it would not come out right now (tried by a server-side dry run). What is wrong: {look}"

    def _evict(self, pod: Found) -> None:
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/eviction"
        try:
            self._api.request("POST", path, body=msgspec.json.encode(body))
        except ApiError as error:
            if error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                return  # somebody else was faster
            if error.status == 0 or error.lacks_right:
                raise
            # 429: its budget. 500: it has two.
            self._exporter.evictions.labels(pod.namespace, "refused").inc()
            self._say(pod, "refused", f"can't be evicted: {error}")
            return
        self._exporter.evictions.labels(pod.namespace, "made").inc()
        self._said = {each for each in self._said if each[0] != pod.owner.uid}
        log.line("info", "healing: a pod is evicted", namespace=pod.namespace, pod=pod.name, owner=pod.owner.shown)
        report.say(self._api, pod, "Evicted", f"Pod {pod.name} {_EVICTED[pod.judged.state]}", normal=True)

    def _unbound(self, namespace: str, pods: Sequence[Found], error: ApiError) -> None:
        bind = (
            f"kubectl -n {namespace} create rolebinding {ROLE} --clusterrole={ROLE} "
            f"--serviceaccount={self._own}:{OPERATE}"
        )
        for each in {pod.owner.uid: pod for pod in pods if healing.eligible(pod)}.values():
            what = f"is not healed, though its namespace asks for it, for the right is missing ({error}): {bind}"
            self._say(each, "no right", what)

    def _say(self, pod: Found, topic: str, what: str) -> None:
        """Once a topic until a pod of this owner is evicted: in an error's text there are names that are drawn anew."""
        if (pod.owner.uid, topic) not in self._said:
            self._said.add((pod.owner.uid, topic))
            log.line("warning", f"healing: {pod.name} {what}", namespace=pod.namespace, owner=pod.owner.shown)
            report.say(self._api, pod, "NotHealed", f"Pod {pod.name} {what}")


# How a pod comes out that is right: also not injected, where its workload is no longer asked for.
_AS_CONFIGURED = {(State.INJECTED, Reason.ALREADY_INJECTED), (State.OUT, Reason.NOT_ASKED)}
_EVICTED = {
    State.MISSED: "is evicted, for it is not injected; the one in its place will be",
    State.OUTDATED: "is evicted, for it has other settings than the configuration; the one in its place won't",
}


class Notebook:
    """The courses of all namespaces, in a ConfigMap."""

    def __init__(self, api: Api, own: str, opted_in: Collection[str]) -> None:
        """Read it. Raises ApiError. Those of other namespaces than `opted_in` go with the next that is written."""
        self._written = ConfigMap(api, own, COURSES)
        self._opted_in = opted_in

    def courses(self, namespace: str) -> dict[str, Course]:
        """Those of one namespace; none where what is written can't be read."""
        try:
            return msgspec.json.decode(self._written.data.get(namespace, "{}"), type=dict[str, Course])
        except msgspec.MsgspecError:
            return {}

    def write(self, namespace: str, courses: Courses) -> None:
        """Note them. Raises ApiError; a conflict if somebody wrote since it was read."""
        others = {
            name: text for name, text in self._written.data.items() if name != namespace and name in self._opted_in
        }
        noted = {namespace: msgspec.json.encode(courses).decode()} if courses else {}
        self._written.write({**others, **noted})
