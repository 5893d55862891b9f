"""What the overlay does to a process that publishes, against a real RabbitMQ, on the oldest and the newest packages.

Each test runs a few lines in a Python of Plane's image, without Django: `bound()` is called as the overlay does.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.effect.versions import COMBINATIONS, Combination
from lab import images
from lab.faults import SWALLOW, AtPublish, Flow, Proxy
from webhook import payload
from webhook.settings import Publish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.broker import Broker

pytestmark = pytest.mark.lab

DEADLINE, TIMEOUT = 3.0, 0.5
POLICY = {"max_retries": 5, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.2}
OLDEST_AND_NEWEST = (COMBINATIONS[1], COMBINATIONS[0], COMBINATIONS[-1])

BEGIN = f"""
import sys, threading, time, atexit
sys.path.insert(0, {str(Path(payload.__file__).parent)!r})
import plane_webhook_settings
if sys.argv[2] == "ours":
    plane_webhook_settings.bound({DEADLINE}, {TIMEOUT})
from celery import Celery
from kombu import Connection, Producer, Queue
POLICY = {POLICY}
OPTIONS = dict(confirm_publish=True, read_timeout={TIMEOUT}, write_timeout={TIMEOUT},
               connect_retries_timeout={DEADLINE}, **POLICY)
def app(**more):
    made = Celery("plane", broker=sys.argv[1])
    made.conf.update(broker_transport_options=OPTIONS, broker_connection_timeout={TIMEOUT},
                     task_publish_retry_policy=POLICY, **more)
    return made
def tell(name, publish):
    start = time.monotonic()
    try:
        publish()
        said = "sent"
    except Exception as error:
        said = type(error).__name__
    sys.stdout.write("%s %s %.2f\\n" % (name, said, time.monotonic() - start))
    sys.stdout.flush()
def wait():
    print("WAITS", flush=True)
    sys.stdin.readline()
"""


class Client:
    """Python lines that run until they say WAITS, and on when told to."""

    def __init__(self, image: images.Image, url: str, text: str, *, ours: bool = True) -> None:
        argv = [image.root / "bin/python", "-B", "-c", BEGIN + text, url, "ours" if ours else "upstream"]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines: list[str] = []

    def run(self) -> dict[str, tuple[str, float]]:
        """Let it go on until it waits or ends; what it told meanwhile: by name, the outcome and the seconds."""
        assert self.process.stdin
        assert self.process.stdout
        told = {}
        for line in self.process.stdout:
            if line == "WAITS\n":
                return told
            name, outcome, seconds = line.split()
            told[name] = outcome, float(seconds)
        assert self.process.wait(30) == 0
        return told

    def go_on(self) -> dict[str, tuple[str, float]]:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.run()


@pytest.fixture(scope="module", params=OLDEST_AND_NEWEST, ids=str)
def image(request: pytest.FixtureRequest) -> images.Image:
    combination: Combination = request.param
    if missing := combination.missing():
        pytest.skip(missing)
    return images.build(combination.lock, combination.python)


@pytest.fixture
def proxy(broker: Broker) -> Iterator[Proxy]:
    with Proxy(broker.port) as running:
        yield running
    with broker.channel() as channel:
        channel.queue_delete("exports")


def url(proxy: Proxy) -> str:
    return f"amqp://guest:guest@127.0.0.1:{proxy.port}//"


LATE = """
connection = Connection(sys.argv[1], transport_options=OPTIONS, connect_timeout=0.5)
channel = connection.channel()
Queue("exports", channel=channel, durable=True).declare()
producer = Producer(channel)
def publish(key):
    tell(key, lambda: producer.publish("x", routing_key=key, mandatory=True, delivery_mode=2))
publish("exports")
wait()
publish("nowhere")
wait()
publish("exports")
"""


@pytest.mark.parametrize("ours", [True, False])
def test_an_answer_to_another_message_is_none(image: images.Image, proxy: Proxy, broker: Broker, *, ours: bool) -> None:
    """On one channel, of which nothing is dropped: the unroutable is acknowledged late, and the next is lost."""
    client = Client(image, url(proxy), LATE, ours=ours)
    assert client.run()["exports"][0] == "sent"
    proxy.flow(down=Flow(keep_ack=True))
    assert client.go_on()["nowhere"][0] == "ChannelError"
    proxy.at_publish(AtPublish())
    said = client.go_on()["exports"][0]
    assert broker.queue_depth("exports") == 1
    assert (said == "sent") != ours


RETRIES = """
connection = Connection(sys.argv[1], transport_options=dict(OPTIONS, max_retries=COUNT), connect_timeout=0.5)
producer = Producer(connection)
connection.default_channel
wait()
policy = dict(POLICY, max_retries=COUNT)
tell("it", lambda: producer.publish("x", routing_key="exports", retry=True, retry_policy=policy))
"""


@pytest.mark.parametrize("count", [0, 1, 3])
def test_it_tries_as_often_as_it_was_asked_to(image: images.Image, proxy: Proxy, count: int) -> None:
    """Where every new connection is closed: ours adds no tries to kombu's."""
    tried = []
    for ours in (True, False):
        client = Client(image, url(proxy), RETRIES.replace("COUNT", str(count)), ours=ours)
        client.run()
        proxy.door("reject")
        proxy.cut()
        before = proxy.accepted
        assert client.go_on()["it"][0] == "OperationalError"
        tried.append(proxy.accepted - before)
        proxy.heal()
    assert tried[0] == tried[1]


CROWD = """
its = app(broker_pool_limit=2)
its.send_task("first")
wait()
crowd = [threading.Thread(target=tell, args=("client-%d" % n, lambda: its.send_task("x"))) for n in range(9)]
for each in crowd:
    each.start()
for each in crowd:
    each.join()
"""


def test_more_clients_than_connections_wait_no_longer_than_the_worst_case(image: images.Image, proxy: Proxy) -> None:
    """Celery fills the pool of producers twice: half of them would wait for a connection, with no limit at all."""
    client = Client(image, url(proxy), CROWD)
    client.run()
    proxy.door("deaf")
    proxy.flow(up=SWALLOW, down=SWALLOW)
    told = client.go_on()
    assert len(told) == 9
    assert {outcome for outcome, _ in told.values()} == {"OperationalError"}
    worst = Publish.model_validate({"timeout": TIMEOUT, "deadline": DEADLINE, "retry": POLICY}).worst_case
    # Two seconds of a loaded machine's own. With a pool that is too large it is 9 s.
    assert max(seconds for _, seconds in told.values()) < worst + 2


LAST = """
its = app()
atexit.register(lambda: tell("at-exit", lambda: its.send_task("last")))
def late():
    threading.main_thread().join()
    tell("after-main", lambda: app().send_task("later"))
threading.Thread(target=late).start()
"""


def test_what_is_published_while_python_ends_is_sent(image: images.Image, proxy: Proxy) -> None:
    """No thread can be started then, from Python 3.12 on."""
    told = Client(image, url(proxy), LAST).run()
    assert {name: outcome for name, (outcome, _) in told.items()} == {"at-exit": "sent", "after-main": "sent"}


OTHERS = """
its = app(broker_pool_limit=1)
with its.producer_pool.acquire(block=True):
    tell("at-once", lambda: its.producer_pool.acquire(block=False))
    tell("in-time", lambda: its.producer_pool.acquire(block=True, timeout=0.1))
connection = its.connection_for_write()
got = []
consumer = connection.Consumer([Queue("exports", durable=True)], callbacks=[lambda *what: got.append(what)])
consumer.consume()
producer = its.amqp.Producer(connection, auto_declare=False)
tell("unserializable", lambda: producer.publish(object(), serializer="json", routing_key="exports", retry=True))
producer.publish("x", serializer="json", routing_key="exports", retry=True)
tell("consumes", lambda: got or connection.drain_events(timeout=2))
"""


def test_what_others_do_with_kombu_goes_on(image: images.Image, proxy: Proxy) -> None:
    told = {name: outcome for name, (outcome, _) in Client(image, url(proxy), OTHERS).run().items()}
    assert told == {
        "at-once": "LimitExceeded",
        "in-time": "LimitExceeded",
        "unserializable": "EncodeError",
        "consumes": "sent",
    }
