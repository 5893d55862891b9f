"""Pure: AdmissionReview bytes in, decision out. No I/O, no clock, no network, no framework.

A request's way is a straight line: bytes -> review -> facts -> targets -> injection -> patch -> bytes. Skipping is a
value with a reason code; an exception means bytes that are no review, or a bug. No answer ever refuses a pod.
"""

from __future__ import annotations

from functools import cached_property

import msgspec

from webhook.admission import injection, review
from webhook.admission.facts import INJECT, as_json, facts
from webhook.admission.injection import Injection
from webhook.admission.reasons import Reason, Risk
from webhook.admission.review import MalformedReview, Pod
from webhook.admission.target import Target, targets
from webhook.settings import Profile, Settings

__all__ = ["INJECT", "Answer", "Decision", "MalformedReview", "Reason", "Risk", "answer", "decide"]

# There is nothing that whoever creates the pod could do about these.
_QUIET = {Reason.INJECTED, Reason.ALREADY_INJECTED, Reason.OPTED_OUT}
_QUIET |= {Reason.NOT_ASKED, Reason.OTHER_MEANS, Reason.NOT_A_PUBLISHER}
_UNCOVERED = {Reason.NOT_KNOWN, Reason.OTHER_MEANS}

# Decisions by what they were made from; the oldest goes. Facts of real pods have some 300 bytes. Longer ones are not
# kept: whoever makes pods can't fill the memory with them.
_SEEN = 256
_KEPT = 8 * 1024
_seen: dict[tuple[bytes, str], Decision] = {}


class Decision(msgspec.Struct, frozen=True, dict=True):
    """What becomes of a pod. `injection` is None where it stays as it is."""

    reason: Reason
    workload: str = ""
    container: str = ""
    injection: Injection | None = None
    risks: tuple[Risk, ...] = ()

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for whoever creates the pod: only of pods that run what was asked for and need a hand."""
        spoken = [self.reason] if self.container and self.reason not in _QUIET else []
        return tuple(
            f"plane-webhook: container {self.container}: {each.sentence} ({each.value})"
            for each in (*spoken, *self.risks)
        )


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A response (an AdmissionReview as JSON, in two parts) and what is to be logged and counted of it."""

    parts: tuple[bytes, bytes]
    uid: str
    namespace: str
    name: str
    dry_run: bool
    reason: Reason
    workload: str
    container: str
    warnings: tuple[str, ...]
    risks: tuple[Risk, ...]

    @property
    def body(self) -> bytes:
        """All of the response."""
        return b"".join(self.parts)


def answer(body: bytes, settings: Settings) -> Answer:
    """Answer an AdmissionReview; `allowed` is always true. Raises MalformedReview for what is none."""
    request, pod, size = review.parse(body)
    if not request.creates_pod:
        decision, pod = Decision(Reason.NOT_A_POD_CREATION), None
    elif pod is not None:
        decision = decide(pod, settings.profile(request.namespace or ""), size=size)
    else:
        decision = Decision(Reason.POD_UNREADABLE if size <= review.UNREAD else Reason.POD_TOO_LARGE)
    end = injection.encoded(decision.injection) if decision.injection else review.END
    metadata = pod.metadata if pod else None
    warnings = decision.warnings
    return Answer(
        parts=review.response(request.uid, reason=decision.reason, warnings=warnings, end=end),
        uid=request.uid,
        namespace=request.namespace or "",
        name=request.name or (metadata and (metadata.name or metadata.generate_name)) or "",
        dry_run=bool(request.dry_run),
        reason=decision.reason,
        workload=decision.workload,
        container=decision.container,
        warnings=warnings,
        risks=decision.risks,
    )


def decide(pod: Pod, profile: Profile, *, size: int = 0) -> Decision:
    """What becomes of `pod`, whose JSON has `size` bytes (0: unknown, from a file)."""
    deciding = facts(pod)
    key = (as_json(deciding), profile.digest)
    decision = _seen.get(key)
    if decision is None:
        decision = _decided(deciding, profile)
        if len(key[0]) <= _KEPT:
            if len(_seen) == _SEEN:
                del _seen[next(iter(_seen))]
            _seen[key] = decision
    if decision.injection and (reason := injection.excess(decision.injection, pod, size)):
        return Decision(reason, decision.workload, decision.container)
    return decision


def _decided(pod: Pod, profile: Profile) -> Decision:
    labels = (pod.metadata.labels if pod.metadata else None) or {}
    found = list(targets(pod, profile.images))
    if not found:
        return Decision(Reason.NOT_PLANE)
    asked = [target for target in found if target.workload in profile.workloads]
    wrapped = [target for target in asked if target.wrappable]
    if not asked:
        return _uncovered(found, opted_out=labels.get(INJECT) == "disabled")
    first = (wrapped or asked)[0]
    workload, container = first.workload, first.container.name or ""
    if labels.get(INJECT) == "disabled":
        return Decision(Reason.OPTED_OUT, workload, container)
    if not wrapped:
        return Decision(Reason.NOT_EFFECTIVE, workload, container)
    risks = tuple(dict.fromkeys([risk for target in wrapped for risk in injection.risks(target, pod, profile)]))
    if len(wrapped) < len(asked):
        risks += (Risk.BARE_NEIGHBOUR,)
    if not _UNCOVERED.isdisjoint([target.role for target in found]):
        risks += (Risk.UNCOVERED_NEIGHBOUR,)
    planned = injection.plan(pod, wrapped, profile)
    if isinstance(planned, Reason):
        return Decision(planned, workload, container, risks=risks if planned is Reason.ALREADY_INJECTED else ())
    return Decision(Reason.INJECTED, workload, container, planned, risks)


def _uncovered(found: list[Target], *, opted_out: bool) -> Decision:
    """What to say of a pod with nothing that was asked for: of several reasons, the one that may want a hand."""
    order = (Reason.NOT_KNOWN, Reason.OTHER_MEANS, Reason.NOT_ASKED, Reason.NOT_A_PUBLISHER)
    reasons = [target.role if isinstance(target.role, Reason) else Reason.NOT_ASKED for target in found]
    reason = min(reasons, key=order.index)
    first = found[reasons.index(reason)]
    return Decision(Reason.OPTED_OUT if opted_out else reason, first.workload, first.container.name or "")
