"""What is wrong with the pods of one of Plane's namespaces, and how each of them stands."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import msgspec

from webhook.admission import INJECT, Reason, review
from webhook.admission.guard import Told, told
from webhook.cluster import census
from webhook.cluster.api import Api, ApiError
from webhook.cluster.census import Found
from webhook.cluster.doctor import proof
from webhook.cluster.doctor.finding import Finding, Row, harmless
from webhook.cluster.logs import Logs
from webhook.cluster.pods import State
from webhook.settings import Settings

_FOREIGN = (Reason.NOT_PLANE, Reason.NOT_A_PUBLISHER)


def not_opted_in(api: Api, namespace: str | None) -> Finding:
    """That the namespace, or with None each of them, lacks the label. Raises ApiError, also where it isn't there."""
    wrong, name = f"none carries the label {INJECT}=enabled", namespace or "plane"
    if namespace is not None:
        raw = api.find(f"/api/v1/namespaces/{namespace}")
        if raw is None:
            raise ApiError(f"there is no namespace {namespace}")
        value = (msgspec.json.decode(raw)["metadata"].get("labels") or {}).get(INJECT)
        wrong = f"it does not carry the label {INJECT}=enabled" + (f", but {INJECT}={value}" if value else "")
    return Finding(
        "not-opted-in",
        f"namespace/{namespace}" if namespace else "namespaces",
        wrong,
        "the API server does not ask about its pods: none is injected",
        f"kubectl label namespace {shlex.quote(name)} {INJECT}=enabled --overwrite",
    )


def left_out(own: str, namespace: str) -> Finding:
    """That the registration leaves this namespace out."""
    whose = "the webhook's" if namespace == own else "the cluster's"
    return Finding(
        "left-out",
        f"namespace/{namespace}",
        f"it is {whose} own, which the registration leaves out",
        "the API server does not ask about its pods: none is injected, whatever its label says",
        f"kubectl get namespaces -L {INJECT}   # Plane and the webhook need a namespace each: install one of them anew",
    )


class Census:
    """The pods of a namespace, read once."""

    def __init__(self, api: Api, namespace: str, settings: Settings) -> None:
        """Read them. Raises ApiError."""
        self._api = api
        self._namespace = namespace
        self._kubectl = f"kubectl -n {shlex.quote(namespace)}"
        found = [each for each in census.pods(api, namespace, settings) if each.judged.reason not in _FOREIGN]
        self._found = Logs(api).look(found)
        # Of each owner the pods that stand alike.
        self._groups: dict[tuple[str, State, str], list[Found]] = {}
        for each in self._found:
            self._groups.setdefault((each.owner.uid, each.judged.state, each.judged.reason), []).append(each)

    def rows(self) -> Iterator[Row]:
        """How each stands."""
        for each in sorted(self._found, key=lambda each: each.name):
            judged = each.judged
            yield Row(
                namespace=each.namespace,
                pod=each.name,
                owner=harmless(each.owner.shown),
                state=judged.state,
                reason=judged.reason,
                workload=judged.workload,
                version=harmless(judged.version, 40),
                settings=harmless(judged.settings, 64),
            )

    def findings(self) -> Iterator[Finding]:
        """Of each owner's pods that stand alike, one. Raises ApiError."""
        for (_, state, _), group in sorted(self._groups.items()):
            first, judged = group[0], group[0].judged
            where, names = f"{self._namespace}/{harmless(first.owner.shown)}", ", ".join(each.name for each in group)
            if state is State.MISSED:
                why = "tasks that they publish can be lost"
                yield Finding("not-injected", where, f"not injected: {names}", why, self._restart(group))
            elif state is State.OUTDATED:
                wrong = f"injected with other settings: {names}"
                why = "what the configuration says now is not in effect there"
                copied = "if it stays so, its template was copied from an injected pod: give it Plane's own again"
                yield Finding("other-settings", where, wrong, why, f"{self._restart(group)}   # {copied}")
            elif state is State.NOT_IN_EFFECT:
                wrong = f"container {judged.container} says in its log that it is NOT IN EFFECT: {names}"
                why = "what was asked for is not, or not all, in effect there: tasks can be lost"
                yield Finding("not-in-effect", where, wrong, why, first.why)
            elif state is State.UNCOVERED:
                why = f"{judged.reason.sentence} ({judged.reason})"
                look = f"{self._kubectl} get pod {shlex.quote(first.name)} -o yaml"
                yield Finding("not-covered", where, f"can't be injected: {names}", why, look)
            elif judged.reason is Reason.OPTED_OUT:
                why = "tasks that they publish can be lost, as whoever set the label wants it"
                look = f"{self._kubectl} get pod {shlex.quote(first.name)} --show-labels   # it comes of its template"
                yield Finding("opted-out", where, f"kept out by the label {INJECT}: disabled: {names}", why, look)
            elif state is State.INJECTED:
                yield from self._chart(where, first)

    def proofs(self) -> Iterator[Finding]:
        """Run `proof` in each injected container that runs. Raises ApiError."""
        for each in self._found:
            for container, _ in self._injected(each, running=True):
                wrong = proof.run(self._api, self._namespace, each.name, container["name"])
                if wrong:
                    yield Finding(
                        "not-in-effect",
                        f"{self._namespace}/pod/{each.name}",
                        f"container {container['name']}: {wrong}",
                        "what was asked for is not, or not all, in effect there: tasks can be lost",
                        f"{self._restart([each])}   # if it stays so: {self._kubectl} logs {shlex.quote(each.name)} -c "
                        f"{shlex.quote(container['name'])} | grep plane-webhook: says why",
                    )

    def _restart(self, group: list[Found]) -> str:
        owner = group[0].owner
        if (owner.api_version, owner.kind) == ("batch/v1", "Job"):  # to delete its pod may end it as failed
            return f"{self._kubectl} get {shlex.quote(owner.shown)}   # let it end: those that run later come out right"
        if group[0].restart:
            return group[0].restart
        first, *others = (each.name for each in group)
        again = "what made it makes another" if group[0].controller else "and make it again"
        if others:  # all at once would leave nobody to answer
            again += f"; when that one is ready, the next: {shlex.join(others)}"
        return f"{self._kubectl} delete pod {shlex.quote(first)}   # {again}"

    def _injected(self, found: Found, *, running: bool = False) -> Iterator[tuple[dict[str, Any], Told]]:
        """Each container with our guard, as the API server stores it, and what the guard was told. Raises ApiError.

        `running`: of a pod that runs, and nothing of others.
        """
        raw = self._api.find(f"/api/v1/namespaces/{self._namespace}/pods/{found.name}")
        pod = review.parse_pod(raw) if raw is not None else None
        if raw is None or pod is None or pod.spec is None:
            return
        whole = msgspec.json.decode(raw)
        if running and (whole.get("status") or {}).get("phase") != "Running":
            return
        spec = whole["spec"]
        staying = [*zip(spec["containers"], pod.spec.containers or (), strict=True)]
        # An init container is over when the pod runs, unless it is a sidecar.
        first = zip(spec.get("initContainers") or (), pod.spec.init_containers or (), strict=True)
        staying += [each for each in first if each[1].restart_policy == "Always"]
        for container, seen in staying:
            said = told(seen)
            if said is not None:
                yield container, said

    def _chart(self, where: str, found: Found) -> Iterator[Finding]:
        """What ConfigMaps of the chart's say of our variables, and whose value wins. Raises ApiError."""
        sources: dict[str, list[str]] = {}
        for container, said in self._injected(found):
            for source in container.get("envFrom") or ():
                name = (source.get("configMapRef") or {}).get("name")
                if name:
                    known = sources.setdefault(name, [])
                    wins = self._wins(name, source.get("prefix") or "", said)
                    known += [each for each in wins if each not in known]
        for name, known in sources.items():
            if known:
                yield Finding(
                    "chart-sets",
                    where,
                    f"configmap/{name} brings variables of ours too: {'; '.join(known)}",
                    "whoever changes them where they don't win changes nothing",
                    f"{self._kubectl} get configmap {shlex.quote(name)} -o yaml   # `precedence` in the configuration "
                    "says who wins",
                )

    def _wins(self, name: str, prefix: str, said: Told) -> Iterator[str]:
        try:
            raw = self._api.find(f"/api/v1/namespaces/{self._namespace}/configmaps/{name}")
        except ApiError as error:
            if error.status != HTTPStatus.FORBIDDEN:
                raise
            yield "whether it does can't be told, for you may not read it"
            return
        data = {prefix + key: value for key, value in (msgspec.json.decode(raw or b"{}").get("data") or {}).items()}
        for variable, ours in (said.get("env") or {}).items():
            if variable not in data:
                continue
            theirs = harmless(data[variable], 40)
            if variable in (said.get("kept") or ()):
                winner = "the container's own env wins"
            elif said.get("precedence") == "chart":
                winner = f"it wins over {ours} of the webhook's configuration"
            else:
                winner = f"{ours} of the webhook's configuration wins"
            yield f"{variable}={theirs} ({winner})"
