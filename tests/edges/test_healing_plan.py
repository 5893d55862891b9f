"""Healing as webhook.cluster.healing decides, over days: never two at once, back-off, an end, and it says so."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec
import pytest

from webhook.admission import Reason
from webhook.cluster import healing
from webhook.cluster.census import Found, Owner
from webhook.cluster.healing import PATIENCE, PAUSES, Courses, plan
from webhook.cluster.pods import Judged, State

PASS = 15.0
HOUR, DAY = 3600.0, 86_400.0


@dataclass
class Pod:
    """One that the world has."""

    uid: str
    maker: str
    state: State
    ready_at: float
    gone_at: float | None = None


@dataclass
class World:
    """Controllers that keep up a number of pods; an `operate` that looks each few seconds, and may die."""

    seed: int = 0
    replicas: dict[str, int] = field(default_factory=lambda: {"api": 3})
    comes_out: State = State.INJECTED  # what a new pod is
    budget: bool = True  # whether an eviction is allowed
    now: float = 0.0
    pods: list[Pod] = field(default_factory=list)
    courses: Courses = field(default_factory=dict)
    evictions: list[tuple[float, str]] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    given_up: set[str] = field(default_factory=set)
    bad_since: dict[str, float] = field(default_factory=dict)
    since: tuple[Courses, float] = ({}, 0.0)
    made: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311 - the same each time
        for maker, count in self.replicas.items():
            self.pods += [self.make(maker, State.MISSED, 0.0) for _ in range(count)]

    def make(self, maker: str, state: State, takes: float) -> Pod:
        self.made += 1
        return Pod(f"{maker}-{self.made}", maker, state, self.now + takes)

    def crash(self) -> None:
        """`operate` starts anew, and knows what is written down."""
        self.bad_since, self.since = {}, ({"": healing.Course("", "", "", (), 0)}, 0.0)

    def found(self) -> list[Found]:
        return [self.seen(each) for each in self.pods]

    def seen(self, pod: Pod) -> Found:
        return Found(
            namespace="plane",
            name=pod.uid,
            uid=pod.uid,
            owner=Owner("apps/v1", "Deployment", pod.maker, pod.maker),
            controller=Owner("apps/v1", "ReplicaSet", pod.maker, pod.maker),
            ready=self.now >= pod.ready_at,
            leaving=pod.gone_at is not None,
            judged=Judged(pod.state, Reason.INJECTED),
        )

    def step(self) -> None:
        """One pass of `operate`."""
        found = self.found()
        bad = {each.uid for each in found if healing.eligible(each)}
        self.bad_since = {uid: self.bad_since.get(uid, self.now) for uid in bad}
        if self.since[0] != self.courses:
            self.since = (self.courses, self.now)
        step = plan(
            found,
            self.replicas,
            self.courses,
            bad_for={uid: self.now - since for uid, since in self.bad_since.items()},
            unchanged=self.now - self.since[1],
        )
        self.given_up |= {each.owner.name for each in step.given_up}
        self.courses = step.courses
        if step.evict is not None:
            (pod,) = [each for each in self.pods if each.uid == step.evict.uid]
            if not self.budget:
                self.refusals.append(self.now)
                return
            self.evictions.append((self.now, pod.uid))
            self.available()
            pod.gone_at = self.now + self.random.uniform(1, 40)

    def available(self) -> None:
        """Before each eviction: no pod of the namespace is missing, and none is on its way."""
        for maker, count in self.replicas.items():
            of = [each for each in self.pods if each.maker == maker]
            assert len(of) == count, self.evictions
            assert all(each.gone_at is None for each in of), self.evictions

    def elapse(self, span: float) -> None:
        """Pods go, and controllers make others, which take their time; some looks come before there is another."""
        self.now += span
        if self.random.random() < 0.1:
            self.pods = [each for each in self.pods if each.gone_at is None]
            return
        self.pods = [each for each in self.pods if each.gone_at is None or self.now < each.gone_at]
        for maker, count in self.replicas.items():
            living = sum(each.maker == maker and each.gone_at is None for each in self.pods)
            self.pods += [self.make(maker, self.comes_out, self.random.uniform(5, 90)) for _ in range(count - living)]

    def run(self, seconds: float, *, crashes: float = 0.0) -> None:
        end = self.now + seconds
        while self.now < end:
            self.step()
            if self.random.random() < crashes:
                self.crash()
            self.elapse(PASS)

    def states(self) -> set[State]:
        return {each.state for each in self.pods}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("crashes", [0.0, 0.05])
def test_a_release_that_was_opted_in_and_not_restarted_comes_right_pod_by_pod(seed: int, crashes: float) -> None:
    world = World(seed, replicas={"api": 3, "worker": 2, "beat": 1})
    world.run(PATIENCE - PASS)
    assert world.evictions == []
    world.run(4 * HOUR, crashes=crashes)
    assert world.states() == {State.INJECTED}
    assert len(world.evictions) == len(set(world.evictions)) == 6  # each once
    assert world.courses == {}
    assert world.given_up == set()


@pytest.mark.parametrize("crashes", [0.0, 0.001])
def test_where_new_pods_come_out_bad_it_backs_off_ends_and_says_so(crashes: float) -> None:
    """The dry run says that they would be injected, and they aren't."""
    world = World(comes_out=State.MISSED)
    world.run(3 * DAY, crashes=crashes)
    assert len(world.evictions) == 1 + len(PAUSES)
    times = [when for when, _ in world.evictions]
    gaps = [later - before for before, later in pairwise(times)]
    assert all(gap >= pause for gap, pause in zip(gaps, PAUSES, strict=True))
    assert world.given_up == {"api"}


def test_after_an_end_nothing_is_tried_until_somebody_has_put_it_right() -> None:
    world = World(comes_out=State.OUTDATED)
    world.run(DAY)
    for each in world.pods:  # a rollout restart
        each.state = State.INJECTED
    world.run(DAY)
    before = len(world.evictions)
    world.comes_out = State.INJECTED
    world.pods[0].state = State.MISSED  # another one slips by, a day later
    world.run(DAY)
    assert len(world.evictions) == before + 1
    assert world.states() == {State.INJECTED}


def test_a_new_template_of_the_same_controller_begins_anew() -> None:
    """A StatefulSet's pods are made by the same controller after a change; a ReplicaSet's are not."""
    world = World(comes_out=State.OUTDATED)
    world.run(DAY)
    assert world.given_up == {"api"}
    spent = {uid: msgspec.structs.replace(each, template="before") for uid, each in world.courses.items()}
    assert healing.as_of_now(spent, {"api": "before"}) == spent
    world.courses, world.comes_out = healing.as_of_now(spent, {"api": "after"}), State.INJECTED
    world.run(DAY)
    assert world.states() == {State.INJECTED}


def test_what_holds_an_eviction_up_is_told_apart_from_a_pause() -> None:
    world = World()
    first, second, _ = world.found()
    course = {"api": healing.Course("ReplicaSet", "api", first.uid, (first.uid, second.uid), 1)}
    leaves = msgspec.structs.replace(first, leaving=True)
    known = {"bad_for": {}, "unchanged": 10 * HOUR}
    assert plan([leaves, second], {"api": 3}, course, **known).held_up
    assert plan([second], {"api": 3}, course, **known).held_up  # another one is not ready
    assert not plan([first, second], {"api": 2}, course, **known).held_up


def test_a_budget_that_refuses_is_asked_a_few_times_and_not_for_ever() -> None:
    world = World(replicas={"api": 1}, budget=False)
    world.run(3 * DAY)
    assert len(world.refusals) == 1 + len(PAUSES)
    assert world.given_up == {"api"}


def test_a_pod_that_does_not_become_ready_ends_it_in_its_namespace() -> None:
    world = World(replicas={"api": 3, "worker": 2})
    world.run(PATIENCE + PASS)
    (first,) = world.evictions
    for each in world.pods:
        if each.state is State.INJECTED:
            each.ready_at = 10 * DAY
    world.run(DAY)
    assert world.evictions == [first]


def test_while_a_pod_is_not_ready_only_that_one_may_go() -> None:
    """It is missed by nobody; the others are all that there is."""
    world = World()
    world.pods[1].ready_at = DAY
    world.run(PATIENCE + PASS)
    assert [pod for _, pod in world.evictions] == ["api-2"]
    world = World()
    world.pods[1].ready_at = DAY
    world.pods[1].state = State.INJECTED
    world.run(HOUR)
    assert world.evictions == []


@pytest.mark.parametrize("seed", range(20))
def test_of_two_that_act_at_once_one_attempt_is_written_and_made(seed: int) -> None:
    """Both see the same; the second's write names a version that is gone, and so it evicts nothing."""
    world = World(seed, replicas={"api": 3, "worker": 2})
    world.run(PATIENCE)
    found, courses = world.found(), world.courses
    bad_for = {each.uid: PATIENCE for each in found}
    steps = [plan(found, world.replicas, courses, bad_for=bad_for, unchanged=0.0) for _ in range(2)]
    assert steps[0] == steps[1]
    assert steps[0].evict is not None
    for unchanged in (0.0, PAUSES[0] - 1):  # who reads what the first wrote, before its eviction is seen
        assert plan(found, world.replicas, steps[0].courses, bad_for=bad_for, unchanged=unchanged).evict is None


@pytest.mark.parametrize(
    "controller",
    [
        None,
        Owner("batch/v1", "Job", "j", "j"),
        Owner("apps.kruise.io/v1", "StatefulSet", "s", "s"),
        Owner("v1", "Node", "n", "n"),
    ],
)
def test_what_nobody_would_make_again_is_never_evicted(controller: Owner | None) -> None:
    world = World(replicas={"api": 1})
    (pod,) = world.found()
    lone = Found(**{name: getattr(pod, name) for name in pod.__struct_fields__} | {"controller": controller})
    assert not healing.eligible(lone)
    wanted = {controller.uid if controller else "": 1}
    assert plan([lone], wanted, {}, bad_for={lone.uid: DAY}, unchanged=DAY).evict is None


@pytest.mark.parametrize("state", [State.INJECTED, State.NOT_IN_EFFECT, State.UNCOVERED, State.OUT])
def test_what_an_eviction_would_not_change_is_left_alone(state: State) -> None:
    world = World()
    for each in world.pods:
        each.state = state
    world.run(DAY)
    assert world.evictions == []
