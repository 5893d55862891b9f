"""What became of a pod that is in the cluster, against what would become of it if it were created now.

Pure: it judges values. A change of the settings that makes no difference for a pod, and another version that puts the
same into effect, are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from webhook.admission import Reason, Risk, decide
from webhook.admission.command import command_line
from webhook.admission.guard import Told, told
from webhook.admission.injection import PROVENANCE, variables
from webhook.admission.review import Container, Pod
from webhook.admission.target import Target
from webhook.settings import Env, Profile, Publish


class State(StrEnum):
    """How a pod stands."""

    INJECTED = "injected"
    MISSED = "missed"  # it would be injected if it were created now, and it isn't
    OUTDATED = "outdated"  # injected with other settings than hold now, or no longer asked for
    NOT_IN_EFFECT = "not-in-effect"  # injected, and a container's log says that it does not work; never judged here
    UNCOVERED = "uncovered"  # Plane's, and can't be injected; the reason says why
    OUT = "out"  # nothing is to be done: not Plane's, no publisher, not asked for, or opted out


def states(*, logs: bool) -> list[State]:
    """Those that a pod can be found in; `logs`: where these are read."""
    return [each for each in State if logs or each is not State.NOT_IN_EFFECT]


@dataclass(frozen=True, slots=True)
class Judged:
    """A pod's state; `reason` is the decision about it, made now.

    `risks` stay open in it; `kept` are variables that it sets itself, so that the configuration's are not in effect.
    """

    state: State
    reason: Reason
    workload: str = ""
    container: str = ""
    version: str = ""  # of the webhook that injected it
    settings: str = ""  # by which: their digest
    risks: tuple[Risk, ...] = ()
    kept: tuple[str, ...] = ()
    guarded: tuple[tuple[str, str], ...] = ()  # each container with our guard, and the workload that this was told of

    @property
    def sentence(self) -> str:
        """What is so, what that causes, and what would put it right."""
        if self.state is State.MISSED:
            return (
                "would be injected if it were created now, and it is not: its tasks can be lost. It was created before "
                "its namespace was opted in or the configuration asked for it, or while nothing answered the API "
                "server. Create it anew"
            )
        if self.state is State.OUTDATED:
            return "is injected with other settings than the configuration has now. Create it anew"
        if self.state is State.NOT_IN_EFFECT:
            return "says in its log that what was injected is not, or not all, in effect: its tasks can be lost. Why"
        return self.reason.sentence


_OURS = frozenset(Env().variables())  # a stranger's word for one of them must not get into an Event
_UNCOVERED = {
    Reason.NOT_EFFECTIVE,
    Reason.NOT_KNOWN,
    Reason.OTHER_MEANS,
    Reason.MOUNT_TAKEN,
    Reason.ANNOTATIONS_FULL,
    Reason.POD_TOO_LARGE,
}


def judge(pod: Pod, profile: Profile) -> Judged:
    """How `pod`, as the API server stores it, stands under the settings of its namespace."""
    spec = pod.spec
    containers = [*((spec and spec.containers) or ()), *((spec and spec.init_containers) or ())]
    guarded = [(each, settings) for each in containers if (settings := told(each)) is not None]
    decision = decide(pod, profile)
    if decision.reason is Reason.OPTED_OUT and guarded:  # of what is injected already the label changes nothing
        decision = decide(_unlabelled(pod), profile)
    reason = decision.reason
    said = [settings for _, settings in guarded]
    if reason is Reason.ALREADY_INJECTED:
        # Every container of ours got what it would get now.
        in_effect = bool(said) and all(_same(*each, profile) for each in guarded)
        state = State.INJECTED if in_effect else State.OUTDATED
    elif reason is Reason.INJECTED:
        annotations = (pod.metadata.annotations if pod.metadata else None) or {}
        state = State.OUTDATED if PROVENANCE in annotations else State.MISSED
    elif reason is Reason.NOT_ASKED and guarded:
        state = State.OUTDATED
    else:
        state = State.UNCOVERED if reason in _UNCOVERED else State.OUT
    first = said[0] if said else Told()
    return Judged(
        state,
        reason,
        decision.workload,
        decision.container,
        version=first.get("version", ""),
        settings=first.get("digest", ""),
        risks=decision.risks,
        kept=tuple(dict.fromkeys(name for each in said for name in each.get("kept", ()) if name in _OURS)),
        guarded=tuple((each.name or "", settings.get("workload", "")) for each, settings in guarded),
    )


def _unlabelled(pod: Pod) -> Pod:
    metadata = pod.metadata and msgspec.structs.replace(pod.metadata, labels=None)
    return msgspec.structs.replace(pod, metadata=metadata)


def _same(container: Container, said: Told, profile: Profile) -> bool:
    # What an earlier version did not know was as it is by default.
    defaults = Publish().model_dump(mode="json")
    publish = {**defaults, **(said.get("publish") or {})}
    target = Target.of("containers", 0, container, str(said.get("workload")), command_line(container))
    return (
        target.workload in profile.workloads
        and {name: publish[name] for name in defaults} == profile.publish.model_dump(mode="json")
        and said.get("env") == variables(profile, limits=target.limits)
        and said.get("precedence") == profile.precedence
    )
