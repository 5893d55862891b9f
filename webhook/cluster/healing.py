"""Which pod to evict next so that its controller makes another one, which is right: a value out of what was seen.

Pure: it asks nobody and never looks at the clock. The rules:

- A pod is evicted only if it is missed or outdated, has been so for `PATIENCE`, and has a controller that makes another
  one.
- One at a time in a namespace: not while the one before leaves, and not while a controller whose pod was evicted, or
  is about to be, lacks a ready pod. So what an eviction breaks is broken once.
- An attempt is written down before it is made. It came right when its pod is gone and its controller has no bad pod
  that was not there before. If it did not, the next one waits, longer each time, and after `len(PAUSES)` pauses there
  is none, until the controller's template changes. (A ReplicaSet's never does: after a change there is another one.)
- Pauses count from when this process first saw what is written down: no other clock is believed, and a process that
  starts anew waits longer, not shorter.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from webhook.cluster.census import Found
from webhook.cluster.pods import State

# Seconds. A rollout that somebody has begun, and a replica that still has the settings of before, are given this long.
PATIENCE = 60.0
# Seconds after the first, second and third attempt in a row that did not come right. After a fourth there is no more.
PAUSES = (60.0, 300.0, 1800.0)
# What makes another pod when one goes. A Job counts it as a failure, and of others it is not known.
CONTROLLERS = ("ReplicaSet", "StatefulSet", "DaemonSet")


class Course(msgspec.Struct, frozen=True):
    """The last attempt on a controller's pods, as it is written down."""

    # The controller's: it is looked at too while it has no pod, so whatever somebody writes here gets into a path.
    kind: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(CONTROLLERS)})\\Z")]
    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")]
    pod: str  # uid of the pod that was to be evicted
    bad: tuple[str, ...]  # uids of all that wanted it then
    attempts: Annotated[int, msgspec.Meta(ge=0)]  # in a row that did not come right, with this one
    template: str = ""  # the digest of what the controller made pods of


Courses = Mapping[str, Course]  # by the controller's uid


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now in one namespace: write `courses` down where they changed, then `evict` a pod, or nothing."""

    evict: Found | None
    courses: Courses
    given_up: tuple[Found, ...] = ()  # of each controller that is left alone for good, a pod
    held_up: bool = False  # by the last eviction: its pod leaves, or another one is not ready yet


def as_of_now(courses: Courses, templates: Mapping[str, str]) -> Courses:
    """The courses, each begun anew where its controller (uid) makes pods of another template now."""
    return {
        uid: msgspec.structs.replace(course, attempts=0)
        if templates.get(uid, course.template) != course.template
        else course
        for uid, course in courses.items()
    }


def eligible(pod: Found) -> bool:
    """Whether an eviction could put the pod right."""
    controller = pod.controller
    return (
        pod.judged.state in (State.MISSED, State.OUTDATED)
        and not pod.leaving
        and controller is not None
        and controller.kind in CONTROLLERS
        and controller.api_version == "apps/v1"
    )


def plan(
    found: Sequence[Found],
    wanted: Mapping[str, int],
    courses: Courses,
    *,
    bad_for: Mapping[str, float],
    unchanged: float,
) -> Step:
    """What to do next in the namespace whose pods are `found`, those that are leaving too.

    They were listed after `courses` were read: what these speak of has been seen as it is since, or later.
    `wanted`: how many pods a controller (uid) should have; `bad_for`: seconds for which a pod (uid) was seen to be bad;
    `unchanged`: seconds for which `courses` have been seen as they are.
    """
    here = {each.uid: each for each in found}
    bad = {uid: tuple(sorted(each.uid for each in found if eligible(each) and _of(each) == uid)) for uid in wanted}
    for uid, course in courses.items():
        evicted = here.get(course.pod)
        # Not leaving yet: it may be evicted this very moment, by who wrote that down.
        if evicted is not None and (evicted.leaving or unchanged < PAUSES[0]):
            return Step(None, courses, held_up=True)
        if evicted is None and uid in wanted and _ready(found, uid) < wanted[uid]:
            return Step(None, courses, held_up=True)
    kept = {uid: course for uid, course in courses.items() if bad.get(uid)}
    given_up: dict[str, Found] = {}
    # Who isn't ready is missed by nobody.
    for pod in sorted((each for each in found if eligible(each)), key=lambda each: (each.ready, each.name)):
        uid = _of(pod)
        if pod.controller is None or uid not in wanted:
            continue
        attempts = _failed(courses.get(uid), here, bad[uid])
        if attempts > len(PAUSES):
            given_up[uid] = pod
        elif (
            (attempts == 0 or unchanged >= PAUSES[attempts - 1])
            and bad_for.get(pod.uid, 0.0) >= PATIENCE
            and _ready(found, uid) >= wanted[uid] - (not pod.ready)
        ):
            course = Course(pod.controller.kind, pod.controller.name, pod.uid, bad[uid], attempts + 1)
            return Step(pod, {**kept, uid: course}, tuple(given_up.values()))
    return Step(None, kept, tuple(given_up.values()))


def _failed(course: Course | None, here: Collection[str], bad: Sequence[str]) -> int:
    """How many attempts in a row did not come right, up to now."""
    if course is None or (course.pod not in here and set(bad) <= set(course.bad)):
        return 0
    return course.attempts


def _of(pod: Found) -> str:
    return pod.controller.uid if pod.controller else ""


def _ready(found: Sequence[Found], uid: str) -> int:
    return sum(each.ready and not each.leaving and _of(each) == uid for each in found)
