"""What a process of Plane's that ends in order has not seen confirmed is given back at once, and others deliver it.

With a real RabbitMQ and Redis, and as processes of Plane end: Python itself, gunicorn's worker, a worker's pool.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from bench.effect.lab import Kind, Lab
from lab.dns import NameServer
from lab.faults import SWALLOW, Flow
from lab.fixtures import need
from lab.process import wait_for
from tests.effect.test_publishing import FIVE, Client, cli, image, names, proxy, url
from tests.effect.test_publishing_odds import by_another, count

if TYPE_CHECKING:
    from lab.broker import Broker
    from lab.faults import Proxy
    from lab.images import Image
    from lab.redis import Redis

__all__ = ["image", "proxy"]  # fixtures

pytestmark = pytest.mark.lab

SOON = 4.0  # seconds: a dead process's doubts would be found after 10 at the earliest, its lease would end after 5


def test_what_was_doubtful_waits_for_nobody_and_goes_first(
    image: Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, FIVE) as client:
        client.run()
        proxy.flow(up=SWALLOW, down=SWALLOW)
        proxy.door("refuse")
        assert {outcome for outcome, _ in {**client.go_on(), **client.go_on()}.values()} == {"sent"}
        assert count(redis, "doubt") == 1
        start = time.monotonic()
        client.go_on()
        assert time.monotonic() - start < 3  # what it waits for the broker, and Python's own end
    assert (count(redis, "doubt"), count(redis, "queue")) == (0, 6)
    proxy.heal()
    assert by_another(image, proxy, broker, redis, 8, within=SOON) == ["first", *names(5), "last"]


# It ends when some are on their way at a time.
DRAINS = """
send("first")
wait()
for n in range(300):
    its.send_task("lab.task", task_id="kept-%d" % n)
wait()
own = patches.publisher_for(its.connection_for_write())
while len(own.delivery.batch) < 16:
    time.sleep(0.001)
"""


def test_what_is_on_its_way_to_a_broker_that_is_well_comes_once_and_the_rest_at_once(
    image: Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, DRAINS) as client:
        client.run()
        proxy.refuse()
        client.go_on()
        proxy.flow(down=Flow(delay=0.05), live=False, fresh=True)
        proxy.door("open")
        client.go_on()
    assert cli(redis, "KEYS", "*:lease").strip() == ""
    proxy.heal()
    assert by_another(image, proxy, broker, redis, 302, within=SOON) == ["first", *names(300)]


ONE = """
send("first")
wait()
send("kept-0")
wait()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a name server listens on port 53, which takes root")
def test_it_ends_in_a_second_where_nobody_knows_the_name_of_redis(image: Image, proxy: Proxy, redis: Redis) -> None:
    """A Python that ends has no threads to ask for it on any more, and a resolver asks for 10 s."""
    with NameServer() as server, Client(image, url(proxy), redis, ONE, names=server) as client:
        client.run()
        proxy.flow(up=SWALLOW, down=SWALLOW)
        proxy.door("refuse")
        client.go_on()
        server.mode = "silent"
        cli(redis, "CLIENT", "KILL", "TYPE", "normal")
        start = time.monotonic()
        client.go_on()
        assert time.monotonic() - start < 3
        assert count(redis, "doubt") == 1


# The signal strikes while the main thread is where Redis' client has a lock, if it ever is there.
STRUCK = """
import queue, signal, types
sys.modules["gunicorn"] = types.ModuleType("gunicorn")
install()
send("first")
wait()
send("kept-0")
wait()
take = queue.LifoQueue._get
def struck(pool):
    if threading.current_thread() is threading.main_thread():
        os.kill(os.getpid(), signal.SIGTERM)
    return take(pool)
queue.LifoQueue._get = struck
"""


def test_a_sigterm_while_it_leaves_ends_it(image: Image, proxy: Proxy, redis: Redis) -> None:
    """As a pod's end does to a worker of uvicorn's that gunicorn's rotation ends just then."""
    with Client(image, url(proxy), redis, STRUCK, install="") as client:
        client.run()
        proxy.flow(up=SWALLOW, down=SWALLOW)
        proxy.door("refuse")
        client.go_on()
        assert client.process.stdin
        client.process.stdin.write("\n")
        client.process.stdin.flush()
        assert client.process.wait(5) in (0, -signal.SIGTERM)
    assert (count(redis, "doubt"), count(redis, "queue")) == (0, 1)


def test_who_has_nothing_on_its_way_asks_nobody(image: Image, proxy: Proxy, redis: Redis) -> None:
    with Client(image, url(proxy), redis, "send('first')\nwait()") as client:
        client.run()
        cli(redis, "CONFIG", "RESETSTAT")
        client.go_on()
    assert "cmdstat_eval" not in cli(redis, "INFO", "commandstats")


KINDS: list[Kind] = ["default", "worker-default"]


@pytest.mark.parametrize("kind", KINDS)
def test_as_gunicorn_s_worker_and_a_worker_s_pool_end(broker: Broker, kind: Kind) -> None:
    need("rabbitmq-server", "bubblewrap", "util-linux", "dash")
    with Lab(["ours"], broker=broker) as lab:
        (stack,) = lab.stacks(kind)
        stack.warm()
        stack.proxy.flow(up=SWALLOW, down=SWALLOW)
        stack.proxy.door("deaf")
        assert stack.publish().status == 200
        wait_for(lambda: count(stack.redis, "doubt") == 1, 5, "it is doubtful")
        if kind == "worker-default":
            stack.container.terminate()
        else:
            for process in stack.container.processes()[1:]:
                stack.signal(process.pid, signal.SIGTERM)
        wait_for(lambda: (count(stack.redis, "doubt"), count(stack.redis, "queue")) == (0, 1), SOON, "it is given back")
        stack.proxy.heal()
        if kind == "default":
            stack.container.wait_ready(stack.port)
            assert stack.score().silent == 0
