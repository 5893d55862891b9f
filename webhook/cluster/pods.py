"""What became of a pod that is in the cluster, against what would become of it if it were created now.

Pure: it judges values. A change of the settings that makes no difference for a pod, and another version that puts the
same into effect, are none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from webhook.admission import Reason, Risk, decide
from webhook.admission.guard import ARGV0
from webhook.admission.injection import PROVENANCE, variables
from webhook.admission.review import Container, Pod
from webhook.settings import Profile, Publish


class State(StrEnum):
    """How a pod stands."""

    INJECTED = "injected"
    MISSED = "missed"  # it would be injected if it were created now, and it isn't
    OUTDATED = "outdated"  # injected with other settings than hold now
    UNCOVERED = "uncovered"  # Plane's, and can't be injected; the reason says why
    OUT = "out"  # nothing is to be done: not Plane's, no publisher, not asked for, or opted out


@dataclass(frozen=True, slots=True)
class Judged:
    """A pod's state; `reason` is the decision about it, made now.

    `risks` stay open in it; `kept` are variables that it sets itself, so that the configuration's are not in effect.
    """

    state: State
    reason: Reason
    workload: str = ""
    container: str = ""
    risks: tuple[Risk, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What is so, what that causes, and what would put it right."""
        if self.state is State.MISSED:
            return (
                "would be injected if it were created now, and it is not: its tasks can be lost. It was created before "
                "its namespace was opted in, or while nothing answered the API server. Create it anew"
            )
        if self.state is State.OUTDATED:
            return "is injected with other settings than the configuration has now. Create it anew"
        return self.reason.sentence


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
    decision = decide(pod, profile)
    reason = decision.reason
    told = _told(pod)
    if reason is Reason.ALREADY_INJECTED:
        in_effect = bool(told) and all(_same(each, profile) for each in told)
        state = State.INJECTED if in_effect else State.OUTDATED
    elif reason is Reason.INJECTED:
        annotations = (pod.metadata.annotations if pod.metadata else None) or {}
        state = State.OUTDATED if PROVENANCE in annotations else State.MISSED
    else:
        state = State.UNCOVERED if reason in _UNCOVERED else State.OUT
    kept = dict.fromkeys(str(name) for each in told for name in each.get("kept") or ())
    return Judged(state, reason, decision.workload, decision.container, decision.risks, tuple(kept))


def _told(pod: Pod) -> list[dict[str, Any]]:
    """What our guard in each container was told."""
    spec = pod.spec
    containers = [*((spec and spec.containers) or ()), *((spec and spec.init_containers) or ())]
    return [settings for each in containers if (settings := _settings(each)) is not None]


def _settings(container: Container) -> dict[str, Any] | None:
    """Of one container; None where there is no guard, {} where what it was told can't be read."""
    words = (container.command or []) + (container.args or [])
    if ARGV0 not in words:
        return None
    for word in words[words.index(ARGV0) + 1 :][:5]:
        if word.startswith("{"):
            try:
                told = json.loads(word.replace("$$", "$"))
            except ValueError:
                return {}
            return told if isinstance(told, dict) else {}
    return {}


def _same(told: dict[str, Any], profile: Profile) -> bool:
    # What an earlier version did not know was as it is by default.
    defaults = Publish().model_dump(mode="json")
    publish = {**defaults, **(told.get("publish") or {})}
    return (
        {name: publish[name] for name in defaults} == profile.publish.model_dump(mode="json")
        and told.get("env") == variables(profile, str(told.get("workload")))
        and told.get("precedence") == profile.precedence
    )
