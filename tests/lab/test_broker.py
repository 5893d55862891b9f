"""The lab's RabbitMQ does what the fault lab relies on."""

from __future__ import annotations

import re
import socket
import time
from contextlib import suppress

import amqp
import pytest

from lab.broker import Broker
from lab.cache import LabError
from lab.cluster import Cluster
from lab.fixtures import need, of_kind
from lab.process import wait_for

pytestmark = pytest.mark.lab


def publish(broker: Broker, task: str) -> None:
    """Publish a persistent message and wait until the broker has confirmed it."""
    host = f"127.0.0.1:{broker.port}"
    with amqp.Connection(host=host, confirm_publish=True, read_timeout=2) as connection:
        message = amqp.Message("{}", delivery_mode=2, application_headers={"id": task})
        connection.channel().basic_publish(message, exchange="celery", routing_key="celery")


def test_confirmed_messages_survive_a_stop_and_a_crash() -> None:
    need("rabbitmq-server", "bubblewrap")
    with Broker() as broker:
        broker.declare()
        publish(broker, "one")
        broker.stop()
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", broker.port)) != 0
        broker.start()
        publish(broker, "two")
        broker.kill()
        broker.start()
        assert broker.queue_depth() == 2
        assert broker.take() == ["one", "two"]
        assert broker.take() == []
    assert not broker.folder.exists()


def test_a_kind_that_the_lab_has_not_is_named_beside_those_that_it_has() -> None:
    with pytest.raises(LabError, match=r"no RabbitMQ 3\.13, only 4\.0, 4\.0-quorum, 4\.3"):
        Broker(kind="3.13")


@pytest.mark.parametrize("kind", ["4.3-quorum"])
def test_a_broker_of_today_keeps_what_it_confirmed(kind: str) -> None:
    need("bubblewrap")
    with of_kind(kind) as broker:
        version, _, queues = kind.partition("-")
        assert broker.rabbitmqctl("eval", "rabbit_misc:version().").startswith(f'"{version}.')
        broker.declare()
        assert broker.rabbitmqctl("list_queues", "type").split()[-1] == (queues or "classic")
        time.sleep(3)  # RabbitMQ 4.3 forgets what a quorum queue has that was declared at the moment of a crash
        publish(broker, "one")
        broker.kill()
        broker.start()
        wait_for(lambda: gives(broker, "one"), 60, "it gives what it confirmed")


def test_a_cluster_lives_on_without_one_of_its_nodes() -> None:
    need("bubblewrap")
    kind = "4.3-quorum"
    of_kind(kind).close()
    with Cluster(kind) as cluster:
        first, second, third = cluster.nodes
        first.declare()
        publish(first, "one")
        first.kill()
        wait_for(lambda: publishes(second, "two"), 20, "another node leads")
        first.start()
        assert set(third.take()) == {"one", "two"}


def gives(broker: Broker, task: str) -> bool:
    """A quorum queue has no leader when its broker has just started, and seems to be empty or is an error then."""
    with suppress(OSError, amqp.AMQPError):
        return broker.take() == [task]
    return False


def publishes(broker: Broker, task: str) -> bool:
    with suppress(OSError, amqp.AMQPError):
        publish(broker, task)
        return True
    return False


def test_two_brokers_run_side_by_side(broker: Broker) -> None:
    with Broker() as other:
        other.declare("only-here")
        assert "only-here" in other.rabbitmqctl("list_queues", "name")
        assert "only-here" not in broker.rabbitmqctl("list_queues", "name")


def test_a_memory_alarm_blocks_publishers_until_it_ends(broker: Broker) -> None:
    broker.declare()
    broker.memory_alarm(on=True)
    try:
        with pytest.raises(TimeoutError):
            publish(broker, "blocked")
    finally:
        broker.memory_alarm(on=False)
    publish(broker, "passes")
    assert "passes" in broker.take()


def test_it_listens_on_loopback_only(broker: Broker) -> None:
    listening = broker.rabbitmqctl("eval", "[inet:sockname(P) || P <- erlang:ports(), {ok, _} <- [inet:getstat(P)]].")
    addresses = set(re.findall(r"\{ok,\{\{([\d,]+)\}", listening))
    assert addresses == {"127,0,0,1"}
