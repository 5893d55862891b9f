"""What stands around the real Plane, which needs no checkout; and, where a checkout is named, a release of it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest

from bench.effect.contenders import injected
from bench.effect.stack import vhosts
from bench.plane.arrivals import Arrival, Arrivals
from bench.plane.flows import Walk, differences
from bench.plane.outage import Seen
from bench.plane.traffic import Request, new_mark, sign_in
from bench.plane.worker import Seen as OfWorker
from bench.plane.worker import worse
from lab.cache import LabError
from lab.fixtures import need
from lab.kubelet import materialise
from lab.process import wait_for
from lab.realplane import image
from lab.realplane.pod import config_maps, pod, secrets
from lab.realplane.release import WORKSPACE, Release
from lab.realplane.storage import HOOK, Storage

if TYPE_CHECKING:
    from lab.broker import Broker
    from lab.postgres import Postgres

CHECKOUT = "PLANE_WEBHOOK_PLANE"
IMAGE = SimpleNamespace(env={}, entrypoint=(), cmd=(), workdir="/code")
STANDS = {"database": "postgresql://d", "redis": "redis://r", "amqp": "amqp://a", "storage": "http://s"}


@pytest.mark.parametrize("workload", ["api", "worker", "beat"])
def test_its_pods_are_injected_and_a_kubelet_would_start_them(workload: Any) -> None:
    stored = injected(pod(workload, "r"), {"workloads": ["api", "worker", "beat"]})
    name = stored["spec"]["containers"][0]["name"]
    spec = materialise(stored, name, IMAGE, config_maps=config_maps(8000), secrets=secrets(**STANDS))
    assert spec.argv[-1] == f"./bin/docker-entrypoint-{workload}.sh"
    assert spec.argv[0] == "/bin/sh"
    assert spec.env["AMQP_URL"] == "amqp://a"
    assert spec.env["HOSTNAME"] == f"r-{workload}"


def test_a_folder_without_plane_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"is no checkout of Plane: .*docker-entrypoint-api.sh is missing"):
        image.build(tmp_path)


def test_the_storage_says_yes_and_knows_webhooks_again() -> None:
    told = b'{"event": "issue", "action": "create", "data": {"id": "1"}}'
    with Storage() as storage:
        for path, body in ((HOOK, told), ("/uploads/x", b"content")):
            assert httpx.post(storage.url + path, content=body).status_code == 200
        assert storage.webhooks == ["issue create 1"]


@pytest.mark.lab
def test_a_database_is_loaded_as_it_was_dumped(postgres: Postgres, tmp_path: Path) -> None:
    dump = tmp_path / "dump.sql"
    dump.write_text("CREATE TABLE there (); CREATE INDEX broken ON nothing (x);")
    with pytest.raises(LabError, match="nothing"):
        postgres.load(dump)
    postgres.dump(dump)
    assert "CREATE TABLE public.there" in dump.read_text()


def seen(requests: list[Request], came: list[str], healed: float = 10.0) -> Seen:
    """What was seen when the tasks of these marks came one second after the other, from second 11 on."""
    arrivals = [Arrival(11.0 + number, "task", mark) for number, mark in enumerate(came)]
    fake = SimpleNamespace(seen=arrivals, marks=lambda: Counter(came))
    return Seen(requests, cast("Arrivals", fake), 0, 0, 0.0, healed)


def test_what_was_promised_and_did_not_come_is_lost_and_an_error_is_not() -> None:
    requests = [Request("export", "a", 1, 1, 200), Request("export", "b", 2, 1, 500), Request("token", "c", 3, 1, 200)]
    found = seen(requests, ["c", "c"])
    assert (found.lost("export"), found.lost("token"), found.answers("export")) == (1, 0, "1/1/0")
    assert found.row()[-3:] == ["1", "1.0", "0"]


def test_what_the_broker_gives_again_is_no_copy() -> None:
    arrivals = Arrivals(cast("Release", SimpleNamespace(name="ours")))
    marks = [("a", False), ("a", True), ("b", True), ("c", False), ("c", False), ("", False)]
    arrivals.seen = [Arrival(1.0, "task", mark, again) for mark, again in marks]
    assert arrivals.marks() == {"a": 1, "b": 1, "c": 2}


def test_the_order_is_that_of_requests_that_did_not_overlap() -> None:
    requests = [Request("export", mark, start, 2, 200) for mark, start in (("a", 1), ("b", 2), ("c", 4))]
    assert seen(requests, ["b", "a", "c"]).out_of_order() == 0
    assert seen(requests, ["a", "c", "b", "a"]).out_of_order() == 0  # c began when b ended
    assert seen(requests, ["b", "c", "a"]).out_of_order() == 1


def test_walks_differ_where_a_status_or_a_number_of_tasks_does() -> None:
    one, other = (
        cast("Walk", SimpleNamespace(release=SimpleNamespace(name=name), steps=steps, tasks=Counter(tasks)))
        for name, steps, tasks in (("a", [("GET /", 200)], {"t": 1}), ("b", [("GET /", 500)], {"t": 1, "u": 2}))
    )
    assert differences(one, one) == []
    assert differences(one, other) == ["GET /: 200 by a, 500 by b", "u: 0 by a, 2 by b"]


def test_a_worker_that_lives_and_does_nothing_is_worse() -> None:
    upstream = OfWorker(answers=Counter({201: 15}), during=3, exits=[], tasks=93, again=8, webhooks=15, copies=1)
    ours = OfWorker(answers=Counter({201: 15}), during=3, exits=[], tasks=8, again=0, webhooks=0, copies=0)
    assert worse(upstream, upstream) == []
    assert worse(ours, upstream) == ["webhooks delivered: 0, and 15 by the other"]


@pytest.mark.lab
@pytest.mark.timeout(1800)
@pytest.mark.skipif(CHECKOUT not in os.environ, reason=f"needs a checkout of Plane: name it in {CHECKOUT}")
def test_an_export_of_the_real_plane_arrives_through_the_injection(broker: Broker) -> None:
    need("postgresql", "redis-server", "util-linux", "dash")
    vhosts(broker, ["real"])
    plane = image.build(Path(os.environ[CHECKOUT]))
    with Release("real", plane, broker, inject=lambda stored: injected(stored, {})) as release:
        with Arrivals(release) as arrivals:
            body = {"provider": "csv", "project": [release.seed.project, mark := new_mark()], "multiple": False}
            answer = sign_in(release).post(f"/api/workspaces/{WORKSPACE}/export-issues/", json=body)
            assert answer.status_code == 200
            wait_for(lambda: arrivals.marks()[mark], 10, "the export's task arrives")
        assert release.api.exec(["/plane-webhook/proof"]).returncode == 0
