"""What the payload does to a process that publishes, with a real RabbitMQ and Redis, on the oldest and newest packages.

Each test runs a few lines in a Python of Plane's image, without Django: `install()` is called as the overlay does.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Self

import amqp
import pytest
from amqp.exceptions import MessageNacked
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from bench.effect.versions import COMBINATIONS, Combination
from lab import images
from lab.broker import Broker
from lab.dns import NameServer
from lab.faults import SWALLOW, AtPublish, Flow, Proxy
from lab.process import wait_for
from lab.redis import Redis
from webhook import payload

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.lab

PATIENCE, TIMEOUT = 1.0, 2.0
WAIT = 0.5  # seconds that a request waits for Redis at most
OLDEST_AND_NEWEST = (COMBINATIONS[1], COMBINATIONS[0], COMBINATIONS[-1])
SECRET = "a secret that nobody else has, of many characters"
QUEUE = "celery"
ATTEMPTS = 4  # that a process makes at a time
# What the machine's own slowness may add to a publish that waits for nobody; alone it takes 1 or 2 ms.
AT_ONCE = 0.5

BEGIN = f"""
import sys, threading, time, atexit, os
# Those of the second line a first publish would read, which takes seconds on a busy machine.
import amqp
import celery.canvas, celery.events, kombu.transport.pyamqp, redis
from celery import Celery
from kombu import Connection, Exchange, Producer, Queue
from plane_webhook import patches
PUBLISH = dict(confirm=True, mandatory=True, patience={PATIENCE}, timeout={TIMEOUT}, spool="redis", spool_tasks=1000,
               spool_bytes=1 << 24)
def install(**publish):
    patches.install(dict(PUBLISH, **publish), sys.argv[2], {SECRET!r})
its = Celery("plane", broker=sys.argv[1])
its.conf.update(task_publish_retry_policy=dict(max_retries=1, interval_start=0.1))
def tell(name, publish):
    start = time.monotonic()
    try:
        publish()
        said = "sent"
    except Exception as error:
        said = type(error).__name__
        print("#", name, error, file=sys.stderr)
    sys.stdout.write("%s %s %.2f\\n" % (name, said, time.monotonic() - start))
    sys.stdout.flush()
def send(name, **options):
    tell(name, lambda: its.send_task("lab.task", args=("argument of " + name,), task_id=name, **options))
def wait():
    print("WAITS", flush=True)
    sys.stdin.readline()
"""


class Client:
    """Python lines that run until they say WAITS, and on when told to."""

    def __init__(
        self,
        image: images.Image,
        url: str,
        redis: Redis,
        text: str,
        *,
        install: str = "install()",
        spool: int = 0,
        options: str = "",
        names: NameServer | None = None,
    ) -> None:
        """`spool`: the port of Redis, where not its own; `options` of its URL. `names` are asked where Redis is."""
        library = str(Path(payload.__file__).parent / "lib")
        own = f"mount --bind {names.resolv_conf} /etc/resolv.conf && exec " if names else "exec "
        argv = [
            *(["unshare", "-m"] if names else []),
            *("sh", "-c", own + '"$@"', "sh"),
            image.root / "bin/python",
            "-B",
            "-c",
            f"{BEGIN}\n{install}\n{text}",
            url,
            f"redis://{'redis.lab' if names else '127.0.0.1'}:{spool or redis.port}/0{options}",
        ]
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": library, "SECRET_KEY": SECRET, "HOSTNAME": "pod"}
        env["CERTIFICATE"] = os.environ.get("CERTIFICATE", "")
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        log = self.log()
        if failed:
            print(f"a client's log:\n{log}")

    def run(self) -> dict[str, tuple[str, float]]:
        """Let it go on until it waits or ends; what it told meanwhile: by name, the outcome and the seconds."""
        assert self.process.stdout
        told = {}
        for line in self.process.stdout:
            if line == "WAITS\n":
                return told
            name, outcome, seconds = line.split()
            told[name] = outcome, float(seconds)
        assert self.process.wait(30) == 0, self.process.communicate()[1]
        return told

    def go_on(self) -> dict[str, tuple[str, float]]:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.run()

    def log(self) -> str:
        """End it and return what it wrote to stderr."""
        self.process.kill()
        return self.process.communicate()[1]


@pytest.fixture(scope="module", params=OLDEST_AND_NEWEST, ids=str)
def image(request: pytest.FixtureRequest) -> images.Image:
    combination: Combination = request.param
    if missing := combination.missing():
        pytest.skip(missing)
    return images.build(combination.lock, combination.python)


@pytest.fixture
def proxy(broker: Broker, redis: Redis) -> Iterator[Proxy]:
    empty(redis)
    with broker.channel() as channel:
        channel.queue_delete(QUEUE)
    with Proxy(broker.port) as running:
        yield running
    with broker.channel() as channel:
        channel.queue_delete(QUEUE)


def empty(redis: Redis) -> None:
    cli(redis, "FLUSHALL")


def cli(redis: Redis, *words: str, database: int = 15) -> str:
    """What redis-cli prints."""
    argv = ["redis-cli", "-p", str(redis.port), "-n", str(database), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def key(redis: Redis, name: str) -> str:
    (found,) = [line for line in cli(redis, "KEYS", f"*:{name}").split() if line]
    return found


def url(proxy: Proxy) -> str:
    return f"amqp://guest:guest@127.0.0.1:{proxy.port}//"


def arrive(broker: Broker, count: int, within: float = 15) -> list[str]:
    """The ids of the tasks that arrived, in their order, as soon as there are so many."""
    wait_for(lambda: broker.queue_depth(QUEUE) >= count, within, f"{count} tasks have arrived")
    time.sleep(0.3)  # for one too many
    return broker.take(QUEUE)


FIVE = """
send("first")
wait()
for n in range(5):
    send("kept-%d" % n)
wait()
send("last")
wait()
"""


def names(count: int) -> list[str]:
    return [f"kept-{n}" for n in range(count)]


def sent(told: dict[str, tuple[str, float]], slowest: float = AT_ONCE) -> bool:
    return all(outcome == "sent" and seconds < slowest for outcome, seconds in told.values())


def test_while_the_broker_is_away_nobody_waits_and_all_arrives_in_order(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, FIVE) as client:
        client.run()
        proxy.refuse()
        time.sleep(0.5)  # for the end of its connection to be heard: else that is the cause
        assert sent(client.go_on())
        assert broker.queue_depth(QUEUE) == 1
        back = time.monotonic()
        proxy.heal()
        ids = arrive(broker, 6)
        assert time.monotonic() - back < 2 + 1  # 0.3 s of the look itself, and a loaded machine
        assert ids == ["first", *names(5)]
        assert client.go_on()["last"][0] == "sent"
        log = client.log()
    assert log.count("the broker is in trouble: ConnectionRefusedError") == 1
    assert log.count("the broker is well again after") == 1
    assert "this process had kept 5 tasks" in log
    assert "argument of" not in log


def test_a_connection_that_died_in_silence_costs_one_second_once(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, FIVE) as client:
        client.run()
        proxy.flow(up=SWALLOW, down=SWALLOW)
        told = client.go_on()
        assert told.pop("kept-0")[1] < PATIENCE + AT_ONCE
        assert sent(told)
        assert arrive(broker, 6) == ["first", *names(5)]


def test_what_an_alarm_blocks_is_sent_once_and_nobody_waits(image: images.Image, redis: Redis) -> None:
    empty(redis)
    with Broker() as broker, Proxy(broker.port) as proxy, Client(image, url(proxy), redis, FIVE) as client:
        client.run()
        broker.memory_alarm(on=True)
        told = client.go_on()
        assert told.pop("kept-0")[1] < PATIENCE + AT_ONCE
        assert sent(told)
        time.sleep(2 * PATIENCE + TIMEOUT + 1)  # longer than any silence is borne
        broker.memory_alarm(on=False)
        assert arrive(broker, 6) == ["first", *names(5)]
        assert proxy.accepted <= 2  # the lab's own is past it


def test_a_slow_queue_is_waited_for_and_not_sent_to_again(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    """Acknowledgements are late, everything else is answered: the connection lives."""
    with Client(image, url(proxy), redis, FIVE) as client:
        client.run()
        proxy.flow(down=Flow(delay=PATIENCE * 1.5))
        told = client.go_on()
        assert told.pop("kept-0")[0] == "sent"
        assert sent(told)
        assert arrive(broker, 6) == ["first", *names(5)]


BETWEEN = """
from plane_webhook.publisher import Publisher
keep = Publisher._keep
def late(self, job):
    time.sleep(1)
    keep(self, job)
Publisher._keep = late
send("first")
wait()
send("kept-0")
wait()
"""


def test_what_is_confirmed_before_it_could_be_kept_is_not_kept(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, BETWEEN) as client:
        client.run()
        proxy.flow(down=Flow(delay=PATIENCE * 1.3))
        assert client.go_on()["kept-0"][0] == "sent"
        time.sleep(1)
        assert arrive(broker, 2) == ["first", "kept-0"]


def test_an_answer_to_another_message_is_none(image: images.Image, proxy: Proxy, broker: Broker, redis: Redis) -> None:
    """The acknowledgement of the one before comes late: it must not pass for that of the next, which is lost."""
    with Client(image, url(proxy), redis, FIVE) as client:
        client.run()
        proxy.flow(down=Flow(keep_ack=True))
        client.go_on()
        proxy.at_publish(AtPublish())
        client.go_on()
        assert set(arrive(broker, 7)) == {"first", *names(5), "last"}


BEATS = """
send("first")
wait()
for n in range(26):
    time.sleep(0.5)
    send("kept-%d" % n)
"""


def test_the_broker_s_signs_of_life_delay_nothing(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    """It sends a heartbeat each five seconds; between two of them nothing may be waited for."""
    with Client(image, url(proxy), redis, BEATS) as client:
        client.run()
        before = proxy.accepted  # a broker that is slow to answer is connected to twice
        told = client.go_on()
        log = client.log()
    assert sent(told)
    assert "in trouble" not in log
    assert proxy.accepted == before
    assert len(arrive(broker, 27)) == 27


HALF = """
send("first")
wait()
send("kept-0")
before = time.process_time()
time.sleep(3)
print("cpu used %.2f" % (time.process_time() - before), flush=True)
"""


def test_half_an_answer_does_not_make_it_spin(image: images.Image, proxy: Proxy, broker: Broker, redis: Redis) -> None:
    with Client(image, url(proxy), redis, HALF) as client:
        client.run()
        proxy.at_publish(AtPublish(forward=1, reply=9))
        assert client.go_on()["cpu"][1] < 1.0
        assert set(arrive(broker, 2)) == {"first", "kept-0"}


QUEUELESS = """
send("first")
wait()
send("second")
send("refused", queue="odd")
send("third")
"""


@pytest.fixture
def odd(broker: Broker) -> Iterator[None]:
    """A queue that Celery can't declare: it is there with arguments that Celery doesn't name."""
    with broker.channel() as channel:
        channel.queue_declare("odd", durable=True, auto_delete=False, arguments={"x-max-length": 5})
    yield
    with broker.channel() as channel:
        channel.queue_delete("odd")


@pytest.mark.usefixtures("odd")
def test_a_queue_that_was_deleted_is_declared_anew_and_one_that_can_not_be_is_an_error_at_once(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, QUEUELESS) as client:
        client.run()
        with broker.channel() as channel:
            channel.queue_delete(QUEUE)
        told = client.go_on()
        assert told["second"][0] == told["third"][0] == "sent"
        assert told["refused"][0] == "PreconditionFailed"
        assert told["refused"][1] < AT_ONCE
        assert arrive(broker, 2) == ["second", "third"]


ASIDE = """
send("first")
wait()
send("kept-0")
send("refused", queue="odd")
send("kept-1")
wait()
"""


@pytest.mark.usefixtures("odd")
def test_what_the_broker_refuses_for_good_is_set_aside_and_can_be_tried_again(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, ASIDE) as client:
        client.run()
        proxy.refuse()
        assert sent(client.go_on())
        proxy.heal()
        assert arrive(broker, 3) == ["first", "kept-0", "kept-1"]
        wait_for(lambda: cli(redis, "LLEN", key(redis, "aside")).strip() == "1", 5, "it is set aside")
        with broker.channel() as channel:
            channel.queue_delete("odd")
        again = "from plane_webhook.spool import Spool\n"
        again += f"Spool(sys.argv[2], {SECRET!r}, 9, 9).retry()\nsend('next')"
        with Client(image, url(proxy), redis, again) as other:
            assert other.run()["next"][0] == "sent"
        assert arrive(broker, 1) == ["next"]
        wait_for(lambda: broker.queue_depth("odd") == 1, 10, "it has been tried again")
        log = client.log()
    assert log.count("set aside, for the broker refuses it: lab.task[refused]: PreconditionFailed") == 1


FULL = """
queue = Queue("full", Exchange("full"), "full", queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
its.conf.task_queues = [queue, Queue("celery", Exchange("celery"), "celery")]
its.conf.task_default_queue = "celery"
send("fits", queue="full")
wait()
send("one-too-many", queue="full")
send("another", queue="celery")
wait()
"""


def fill(broker: Broker, queue: str) -> list[str]:
    """Publish until it rejects; the ids of what it took: a quorum queue takes one more than its limit."""
    ids: list[str] = []
    with broker.channel() as channel:
        while len(ids) < 9:
            message = amqp.Message("{}", priority=0, application_headers={"id": f"more-{len(ids)}"})  # as Celery's
            try:
                channel.basic_publish_confirm(message, exchange=queue, routing_key=queue)
            except MessageNacked:
                return ids
            ids.append(message.headers["id"])
    raise AssertionError(f"{queue} rejects nothing")


def test_a_full_queue_holds_up_its_own_tasks_only(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, FULL) as client:
        client.run()
        more = fill(broker, "full")
        before = proxy.accepted
        assert sent(client.go_on())
        assert arrive(broker, 1) == ["another"]
        time.sleep(2)
        assert broker.take("full") == ["fits", *more]
        wait_for(lambda: broker.queue_depth("full") == 1, 10, "there is room again")
        assert broker.take("full") == ["one-too-many"]
        assert proxy.accepted == before  # no connection for each try
    with broker.channel() as channel:
        channel.queue_delete("full")


CROWD = """
send("first")
wait()
crowd = [threading.Thread(target=send, args=("client-%d" % n,)) for n in range(30)]
for each in crowd:
    each.start()
for each in crowd:
    each.join()
"""


@pytest.mark.parametrize("spool", ["redis", "none"])
def test_no_crowd_waits_longer_than_it_was_asked_to(
    image: images.Image, proxy: Proxy, redis: Redis, spool: str
) -> None:
    with Client(image, url(proxy), redis, CROWD, install=f"install(spool={spool!r})") as client:
        client.run()
        proxy.door("deaf")
        proxy.flow(up=SWALLOW, down=SWALLOW)
        told = client.go_on()
    assert len(told) == 30
    assert {outcome for outcome, _ in told.values()} == {"sent" if spool == "redis" else "OperationalError"}
    # Celery's pool hands out twice ten producers: a second crowd waits for the first one.
    worst = 2 * PATIENCE if spool == "redis" else 2 * (PATIENCE + TIMEOUT)
    assert max(seconds for _, seconds in told.values()) < worst + 2


@pytest.mark.parametrize("spool", ["redis", "none"])
def test_without_a_spool_a_dead_connection_is_replaced_within_the_call(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis, spool: str
) -> None:
    with Client(image, url(proxy), redis, FIVE, install=f"install(spool={spool!r})") as client:
        client.run()
        proxy.flow(up=SWALLOW, down=SWALLOW)
        told = client.go_on()
        assert sent(told, slowest=2 * PATIENCE + AT_ONCE)
        assert set(arrive(broker, 6)) == {"first", *names(5)}


def test_without_a_spool_a_broker_that_is_away_is_waited_for_no_longer_than_a_publish_is(
    image: images.Image, proxy: Proxy, redis: Redis
) -> None:
    """`timeout` is for a broker that says nothing; of one that refuses to be connected to nothing is to be had."""
    with Client(image, url(proxy), redis, FIVE, install="install(spool='none', timeout=30)") as client:
        client.run()
        proxy.refuse()
        told = client.go_on()
    assert {outcome for outcome, _ in told.values()} == {"OperationalError"}
    assert told.pop("kept-0")[1] < 15
    assert all(seconds < AT_ONCE for _, seconds in told.values())


@pytest.mark.parametrize("bound", ["spool_tasks=2", "spool_bytes=4000"])
def test_what_can_not_be_kept_is_an_error_at_once(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis, bound: str
) -> None:
    with Client(image, url(proxy), redis, FIVE, install=f"install({bound})") as client:
        client.run()
        proxy.refuse()
        told = client.go_on()
        assert [told[name][0] for name in names(5)] == ["sent", "sent", *["OperationalError"] * 3]
        assert all(seconds < AT_ONCE for _, seconds in told.values())
        proxy.heal()
        assert arrive(broker, 3) == ["first", *names(2)]
        log = client.log()
    assert "it can't be kept: it is full: 2 tasks" in log
    assert log.count("plane-webhook: a task can't be kept, and is an error: it is full: 2 tasks") == 1


def test_a_redis_that_is_away_too_is_an_error_at_once_and_no_reason_to_stay_in_trouble(
    image: images.Image, proxy: Proxy, broker: Broker
) -> None:
    with Redis() as redis, Client(image, url(proxy), redis, FIVE) as client:
        client.run()
        proxy.refuse()
        redis.stop()
        told = client.go_on()
        assert {told[name][0] for name in names(5)} == {"OperationalError"}
        assert all(seconds < AT_ONCE for _, seconds in told.values())
        proxy.heal()
        time.sleep(2.5)
        assert sent(client.go_on())
        assert arrive(broker, 2) == ["first", "last"]
        lines = [line for line in client.log().splitlines() if line.startswith("plane-webhook: ")]
    assert "in trouble: ConnectionRefusedError" in lines[0], "that tasks are kept is not all that is said"
    assert lines[1].startswith("plane-webhook: a task can't be kept, and is an error: Redis: ConnectionError")


@pytest.mark.skipif(os.geteuid() != 0, reason="a name server listens on port 53, which takes root")
def test_a_redis_whose_name_nobody_knows_holds_nobody_up(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    """A resolver asks a silent name server for 10 s and more, and no client of Redis limits that."""
    with NameServer() as server, Client(image, url(proxy), redis, FIVE, names=server) as client:
        client.run()
        proxy.refuse()
        server.mode = "silent"
        cli(redis, "CLIENT", "KILL", "TYPE", "normal")
        told = client.go_on()
        assert {told[name][0] for name in names(5)} == {"OperationalError"}
        assert max(seconds for _, seconds in told.values()) < WAIT + AT_ONCE
        assert sorted(seconds for _, seconds in told.values())[-2] < AT_ONCE
        server.mode = "answer"
        proxy.heal()
        time.sleep(2.5)
        assert sent(client.go_on())
        assert arrive(broker, 2) == ["first", "last"]


LASTING = {
    "a wrong password": ("amqp://guest:wrong@127.0.0.1:{}//", "AccessRefused"),
    "no such vhost": ("amqp://guest:guest@127.0.0.1:{}/nowhere", "not found"),
}


@pytest.mark.parametrize("what", LASTING)
def test_what_time_does_not_heal_is_an_error_at_once_with_its_cause(
    image: images.Image, proxy: Proxy, redis: Redis, what: str
) -> None:
    """Far less than a caller's patience, which is long here: a first publish on a busy machine may take seconds."""
    address, cause = LASTING[what]
    text, patient = "send('one')\nsend('two')\nwait()", "install(patience=30, timeout=30)"
    with Client(image, address.format(proxy.port), redis, text, install=patient) as client:
        told = client.run()
        log = client.log()
    assert {outcome for outcome, _ in told.values()} == {"OperationalError"}
    assert max(seconds for _, seconds in told.values()) < 15
    assert cause in log
    assert "time doesn't heal that" in log


def test_a_trouble_that_time_heals_after_all_is_said_to_be_one(image: images.Image, proxy: Proxy, redis: Redis) -> None:
    """The login is refused, and then the broker is away: from then on tasks are kept."""
    text = "send('one')\nwait()\nsend('two')\nwait()"
    with Client(image, LASTING["a wrong password"][0].format(proxy.port), redis, text) as client:
        assert client.run()["one"][0] == "OperationalError"
        proxy.refuse()
        time.sleep(1.5)
        assert client.go_on()["two"][0] == "sent"
        lines = [line for line in client.log().splitlines() if "the broker is in trouble: " in line]
    assert [line.rpartition("; ")[2] for line in lines] == [
        "time doesn't heal that, so tasks are errors until it is mended",
        "tasks are kept until it is over",
    ]


LATE = """
from plane_webhook.delivery import Delivery
from plane_webhook.publisher import Publisher
leave, recovered, late = Delivery.leave, Publisher._recovered, []
def leave_and_put(self):
    leave(self)
    if not late:
        late.append(threading.Thread(target=send, args=("kept-5",)))
        late[0].start()
        late[0].join()
def look_and_recover(self):
    if self.state.name == "draining":
        print("# still kept:", sum(self.spool.waiting()), file=sys.stderr)
    recovered(self)
Delivery.leave, Publisher._recovered = leave_and_put, look_and_recover
"""


def test_what_is_kept_after_the_last_look_goes_before_all_is_well_again(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    """Else the next task would overtake it."""
    with Client(image, url(proxy), redis, LATE + FIVE) as client:
        client.run()
        proxy.refuse()
        assert sent(client.go_on())
        proxy.heal()
        assert arrive(broker, 7) == ["first", *names(6)]
        assert client.go_on()["last"][0] == "sent"
        log = client.log()
    assert log.count("# still kept: 0") == 1
    assert log.count("# still kept:") == 1


CHECKED = """
import ssl
its.conf.broker_use_ssl = dict(ca_certs=os.environ["CERTIFICATE"], cert_reqs=ssl.CERT_REQUIRED)
send("one")
send("two")
wait()
"""


def test_an_expired_certificate_of_the_broker_is_an_error_at_once_and_named(
    image: images.Image, broker: Broker, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CERTIFICATE", str(expired(tmp_path)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    with Proxy(broker.port, tls=context) as proxy:
        address = f"amqps://guest:guest@127.0.0.1:{proxy.port}//"
        with Client(image, address, redis, CHECKED) as client:
            told = client.run()
            log = client.log()
    assert {outcome for outcome, _ in told.values()} == {"OperationalError"}
    assert told["two"][1] < AT_ONCE  # the first one has made the connection's context, with its certificates, as well
    assert "in trouble: SSLCertVerificationError" in log
    assert "certificate has expired" in log
    assert "time doesn't heal that" in log


def expired(folder: Path) -> Path:
    """A key and a certificate of its own for 127.0.0.1 that ended yesterday; the certificate's path."""
    own = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, own.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now - timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(own, SHA256())
    )
    pem = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "tls.key").write_bytes(pem)
    (folder / "tls.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    return folder / "tls.crt"


TWO = """
for n in range(40):
    send("kept-%d" % n)
    time.sleep(0.1)
wait()
"""


def test_of_two_brokers_one_that_refuses_the_login_and_one_that_is_away_are_no_lasting_trouble(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Proxy(broker.port) as other:
        other.door("refuse")
        urls = f"amqp://guest:wrong@127.0.0.1:{proxy.port}//;amqp://guest:guest@127.0.0.1:{other.port}//"
        with Client(image, urls, redis, TWO) as client:
            told = client.run()
            assert {outcome for outcome, _ in told.values()} == {"sent"}
            other.heal()
            assert arrive(broker, 40) == names(40)
            assert client.log().count("in trouble") == 1


def test_a_connection_that_the_broker_closes_is_not_made_anew_for_nothing(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, FIVE) as client:
        client.run()
        before = proxy.accepted  # a broker that is slow to answer is connected to twice
        broker.rabbitmqctl("close_all_connections", "maintenance")
        time.sleep(1)
        assert proxy.accepted == before
        assert sent(client.go_on())
        assert proxy.accepted > before
        assert arrive(broker, 6) == ["first", *names(5)]


OFTEN = """
import plane_webhook.publisher
plane_webhook.publisher.LOOK = 1.0
send("first")
wait()
for n in range(30):
    time.sleep(0.2)
    send("kept-%d" % n)
wait()
"""


def test_a_redis_that_does_not_answer_is_no_trouble_of_a_healthy_broker(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Proxy(redis.port) as way, Client(image, url(proxy), redis, OFTEN, spool=way.port) as client:
        client.run()
        way.flow(up=SWALLOW, down=SWALLOW, fresh=True)
        assert sent(client.go_on())
        assert "in trouble" not in client.log()
    assert arrive(broker, 31) == ["first", *names(30)]


REFUSED = """
its.conf.task_queues = [Queue("celery", Exchange("celery"), "celery"),
                        Queue("topical", Exchange("topical", type="topic"), "topical")]
its.conf.task_default_queue = "celery"
crowd = [threading.Thread(target=send, args=("topical-%d" % n,), kwargs={"queue": "topical"}) for n in range(12)]
send("warm", queue="topical")
send("first", queue="celery")
wait()
for each in crowd:
    each.start()
for each in crowd:
    each.join()
send("after", queue="celery")
wait()
"""


def test_of_many_that_are_refused_at_once_each_is_told_and_nobody_else_is_in_trouble(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, REFUSED) as client:
        client.run()
        with broker.channel() as channel:
            channel.exchange_delete("topical")
        told = client.go_on()
        assert told.pop("after")[0] == "sent"
        assert {outcome for outcome, _ in told.values()} == {"NotFound"}
        assert arrive(broker, 2) == ["first", "after"]
    with broker.channel() as channel:
        channel.queue_delete("topical")


POISON = """
odd = Queue("odd", Exchange("odd", type="x-unheard-of"), "odd")
its.conf.task_queues = [odd, Queue("celery", Exchange("celery"), "celery")]
its.conf.task_default_queue = "celery"
send("first", queue="celery")
wait()
send("impossible", queue="odd")
send("second", queue="celery")
wait()
send("kept-0", queue="celery")
send("refused", queue="odd")
send("kept-1", queue="celery")
wait()
"""


def test_what_the_broker_ends_the_connection_for_is_an_error_at_once_and_holds_up_nobody(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    """A plugin that isn't there any more, for instance: the broker knows no exchange of that type."""
    with Client(image, url(proxy), redis, POISON) as client:
        client.run()
        told = client.go_on()
        error, _ = told["impossible"]
        assert error in ("InvalidCommand", "PreconditionFailed")  # RabbitMQ 4 ends the channel only
        assert told["second"][0] == "sent"
        assert arrive(broker, 2) == ["first", "second"]
        proxy.refuse()
        assert sent(client.go_on())
        proxy.heal()
        assert arrive(broker, 2) == ["kept-0", "kept-1"]
        wait_for(lambda: cli(redis, "LLEN", key(redis, "aside")).strip() == "1", 5, "it is set aside")
        log = client.log()
    assert log.count(f"set aside, for the broker refuses it: lab.task[refused]: {error}") == 1


OWED = """
from plane_webhook import publisher
from plane_webhook.link import Lane
publisher.OWED = 3.0
send("first")
wait()
answered, forgotten = Lane._answered, []
def forgetful(self, *answer):
    if forgotten:
        return answered(self, *answer)
    forgotten.append(answer)
Lane._answered = forgetful
send("kept-0")
send("kept-1")
wait()
"""


def test_a_confirmation_that_never_comes_on_a_connection_that_lives_is_not_waited_for_for_ever(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    """No broker here forgets one, so the client forgets to hear it; the task is delivered twice."""
    with Client(image, url(proxy), redis, OWED) as client:
        client.run()
        told = client.go_on()
        assert {outcome for outcome, _ in told.values()} == {"sent"}
        assert arrive(broker, 4) == ["first", "kept-0", "kept-0", "kept-1"]


def test_a_handshake_of_tls_that_is_not_answered_ends(image: images.Image, redis: Redis) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"amqps://guest:guest@127.0.0.1:{deaf.getsockname()[1]}//"
        accepted = []  # and never answered
        deaf.settimeout(4 * TIMEOUT)
        with Client(image, address, redis, "send('kept')\nwait()\n") as client:
            assert sent(client.run(), slowest=PATIENCE + AT_ONCE)
            while len(accepted) < ATTEMPTS + 2:
                accepted.append(deaf.accept()[0])
        for each in accepted:
            each.close()


OTHERS = """
connection = its.connection_for_write()
got = []
consumer = connection.Consumer([Queue("others", durable=True)], callbacks=[lambda *what: got.append(what)])
consumer.consume()
producer = its.amqp.Producer(connection, auto_declare=False)
def other(name):
    tell(name, lambda: producer.publish({"no": "task"}, routing_key="others", retry=True))
other("others-1")
print("transport %s 0" % sorted(connection.transport_options), flush=True)
wait()
other("others-2")
tell("unserializable", lambda: its.send_task("lab.task", args=(object(),)))
its.conf.task_publish_retry = False
tell("unretried", lambda: its.send_task("lab.task", task_id="unretried", retry=False))
"""


def test_messages_that_are_no_tasks_go_as_they_would_without_us(image: images.Image, redis: Redis) -> None:
    """In an alarm too, where nobody waits for a confirmation of an event or of remote control."""
    empty(redis)
    with Broker() as broker, Proxy(broker.port) as proxy, Client(image, url(proxy), redis, OTHERS) as client:
        told = client.run()
        assert (told["others-1"][0], told["transport"][0]) == ("sent", "[]")
        broker.memory_alarm(on=True)
        told = client.go_on()
        assert sent({"others-2": told["others-2"]})
        assert told["unserializable"][0] in ("EncodeError", "OperationalError", "TypeError")
        assert told["unretried"][0] == "OperationalError"


# A Broadcast queue is made by each worker that listens, and there may be none; what has been declared stays so here.
BROADCAST = """
from kombu.common import Broadcast
its.conf.task_queues = [Queue("celery"), Broadcast("all")]
with its.connection_for_write() as connection:
    its.amqp.queues["all"].exchange(connection.default_channel).declare()
send("nobody", queue="all")
with its.connection_for_write() as connection:
    Broadcast("all", "listens")(connection.default_channel).declare()
    send("somebody", queue="all")
    tell(connection.SimpleQueue(Broadcast("all", "listens")).get(timeout=5).headers["id"] + "-came", lambda: None)
send("no-queue", exchange="amq.topic", routing_key="nowhere")
"""


def test_that_nobody_listens_to_a_broadcast_is_no_error(image: images.Image, proxy: Proxy, redis: Redis) -> None:
    with Client(image, url(proxy), redis, BROADCAST) as client:
        told = {name: outcome for name, (outcome, _) in client.run().items()}
    assert told == {"nobody": "sent", "somebody": "sent", "somebody-came": "sent", "no-queue": "ChannelError"}


TRANSACTION = """
def in_transaction(name, end):
    with its.connection_for_write() as connection, connection.channel() as channel:
        channel.tx_select()
        its.send_task("lab.task", task_id=name, producer=Producer(channel))
        getattr(channel, end)()
send("first")
tell("rolled-back", lambda: in_transaction("rolled-back", "tx_rollback"))
tell("committed", lambda: in_transaction("committed", "tx_commit"))
"""


def test_who_brings_a_channel_of_his_own_has_his_task_on_it(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, TRANSACTION) as client:
        assert {outcome for outcome, _ in client.run().values()} == {"sent"}
    assert arrive(broker, 2) == ["first", "committed"]


# As Datadog's tracer does (the channel), Sentry's (the connection), and an application with a class of its own.
WRAPPED = """
import kombu.messaging
found = []
publish, inner = Producer.publish, Producer._publish
def traced(self, *arguments, **options):
    found.append(self.connection.transport.driver_type)
    return publish(self, *arguments, **options)
def traced_inside(self, *arguments, **options):
    found.append(self.channel.connection.host.split(":")[0])
    return inner(self, *arguments, **options)
Producer.publish, Producer._publish = traced, traced_inside
class Own(Producer):
    def _prepare(self, body, *arguments, **options):
        found.append(self.mark)
        return super()._prepare(body, *arguments, **options)
def publish_own():
    with its.connection_for_write() as connection:
        producer = Own(connection)
        producer.mark = "its-own"
        its.send_task("lab.task", task_id="own", producer=producer)
install()
send("first")
tell("own", publish_own)
tell(",".join(found), lambda: None)
"""


def test_what_others_wrapped_around_kombu_finds_what_it_finds_without_us(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, WRAPPED, install="") as client:
        told = client.run()
    seen = "amqp,127.0.0.1,amqp,its-own,127.0.0.1"
    assert {name: outcome for name, (outcome, _) in told.items()} == dict.fromkeys(("first", "own", seen), "sent")
    assert arrive(broker, 2) == ["first", "own"]


def test_celery_s_event_behind_a_task_that_is_kept_holds_nobody_up(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    """Before 5.7 Celery tries to send it for ever, which nobody sees where the task's own publish fails first."""
    with broker.channel() as channel:
        events = channel.queue_declare("", exclusive=True).queue
        channel.exchange_declare("celeryev", "topic", durable=True, auto_delete=False)
        channel.queue_bind(events, "celeryev", "task.sent")
        with Client(image, url(proxy), redis, f"its.conf.task_send_sent_event = True\n{FIVE}") as client:
            client.run()
            wait_for(lambda: channel.queue_declare(events, passive=True).message_count == 1, 5, "the event has come")
            proxy.refuse()
            assert sent(client.go_on())
            proxy.heal()
            assert arrive(broker, 6) == ["first", *names(5)]


CONTROL = """
send("first")
wait()
send("kept")
tell("revoke", lambda: its.control.revoke("some-task"))
wait()
"""


def test_remote_control_fails_as_soon_as_without_us_while_the_broker_is_away(
    image: images.Image, proxy: Proxy, redis: Redis
) -> None:
    """A publish leaves its policy for trying again with its connection, which is used for other things too."""
    took = []
    for install in ("", "install()"):
        proxy.heal()
        with Client(image, url(proxy), redis, CONTROL, install=install) as client:
            client.run()
            proxy.refuse()
            outcome, seconds = client.go_on()["revoke"]
            took.append(seconds)
            assert outcome == "OperationalError"
    assert took[1] < took[0] + AT_ONCE


# A signal comes while the answer is waited for; and where a handler of the log publishes what it is given, as Celery's
# workers do with sys.stderr.
NESTED = """
import signal
def handle(*_):
    send("in-the-midst")
class Log:
    busy = False
    def write(self, text):
        if not self.busy:
            self.busy = True
            send("of-the-log")
            self.busy = False
    def flush(self):
        pass
signal.signal(signal.SIGALRM, handle)
send("first")
wait()
signal.setitimer(signal.ITIMER_REAL, 0.3)
send("interrupted")
wait()
sys.stderr = Log()
send("kept-0")
send("kept-1")
wait()
"""


def test_what_is_published_in_the_midst_of_a_publish_goes_as_it_would_without_us(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    """By a signal's handler it would wait for what it interrupts; by a log's, for itself."""
    with Client(image, url(proxy), redis, NESTED) as client:
        client.run()
        proxy.flow(down=Flow(delay=0.6))
        told = client.go_on()
        assert {outcome for outcome, _ in told.values()} == {"sent"}
        proxy.flow()
        assert arrive(broker, 3) == ["first", "interrupted", "in-the-midst"]
        proxy.refuse()
        assert {outcome for outcome, _ in client.go_on().values()} == {"sent"}
        log = client.log()
    assert log.count("the broker is in trouble") == 1, log


LAST = """
atexit.register(lambda: send("at-exit"))
def late():
    threading.main_thread().join()
    send("after-main")
threading.Thread(target=late).start()
"""


def test_what_is_published_while_python_ends_is_sent(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    """No thread can be started then, from Python 3.12 on."""
    with Client(image, url(proxy), redis, LAST) as client:
        told = client.run()
    assert {name: outcome for name, (outcome, _) in told.items()} == {"at-exit": "sent", "after-main": "sent"}
    assert set(arrive(broker, 2)) == {"at-exit", "after-main"}


AT_EXIT = """
import ssl
its.conf.broker_use_ssl = dict(cert_reqs=ssl.CERT_NONE) if sys.argv[1].startswith("amqps") else None
atexit.register(lambda: send("at-exit"))
"""


def test_a_first_publish_while_python_ends_is_sent_over_tls_and_nobody_waits_longer_than_for_its_answer(
    image: images.Image, broker: Broker, redis: Redis, tmp_path: Path
) -> None:
    empty(redis)
    broker.take(QUEUE)
    expired(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    address = "amqps://guest:guest@127.0.0.1:{}//".format
    with Proxy(broker.port, tls=context) as proxy, Client(image, address(proxy.port), redis, AT_EXIT) as client:
        outcome, seconds = client.run()["at-exit"]
    assert outcome == "sent"
    assert seconds < 4  # a turn of the publisher's thread, whose work the caller does, may take 5
    assert arrive(broker, 1) == ["at-exit"]


def test_what_is_published_while_python_ends_and_the_broker_is_away_is_kept(
    image: images.Image, proxy: Proxy, redis: Redis
) -> None:
    proxy.door("refuse")
    with Client(image, url(proxy), redis, AT_EXIT) as client:
        assert client.run()["at-exit"][0] == "sent"
    assert cli(redis, "LLEN", key(redis, "queue")).strip() == "1"


FORK = """
send("parent-1")
child = os.fork()
if not child:
    send("child")
    os._exit(0)
os.waitpid(child, 0)
send("parent-2")
"""


def test_a_fork_has_a_publisher_of_its_own(image: images.Image, proxy: Proxy, broker: Broker, redis: Redis) -> None:
    with Client(image, url(proxy), redis, FORK) as client:
        told = client.run()
    assert {outcome for outcome, _ in told.values()} == {"sent"}
    assert arrive(broker, 3) == ["parent-1", "child", "parent-2"]
    assert proxy.accepted >= 2


MANY = """
send("first-%s" % os.getpid())
wait()
for n in range(100):
    its.send_task("lab.task", task_id="%s-%d" % (os.getpid(), n))
wait()
"""


def test_of_several_processes_one_delivers_at_a_time_and_each_task_once(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    clients = [Client(image, url(proxy), redis, MANY) for _ in range(3)]
    try:
        for client in clients:
            client.run()
        proxy.refuse()
        for client in clients:
            client.go_on()
        proxy.heal()
        ids = arrive(broker, 303)
        assert len(ids) == len(set(ids)) == 303
        for client in clients:
            its = [each for each in ids if each.startswith(f"{client.process.pid}-")]
            assert its == [f"{client.process.pid}-{n}" for n in range(100)]
    finally:
        for client in clients:
            client.log()


def test_what_a_killed_process_left_is_delivered_by_the_next(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    """What it had only kept, and what it had sent and not seen confirmed: by whoever publishes there next."""
    with Client(image, url(proxy), redis, FIVE) as client:
        client.run()
        proxy.flow(up=SWALLOW)
        client.go_on()  # the first of the five is doubtful
        client.process.kill()
    proxy.heal()
    with Client(image, url(proxy), redis, "send('next')\nwait()") as other:
        other.run()
        assert set(arrive(broker, 7, within=40)) == {"first", "next", *names(5)}


def test_in_redis_no_argument_can_be_read_and_no_task_be_planted(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, FIVE) as client:
        client.run()
        proxy.refuse()
        client.go_on()
        queue = key(redis, "queue")
        entries = cli(redis, "LRANGE", queue, "0", "-1")
        assert len(entries.split()) == 5
        assert "argument" not in entries
        assert "lab.task" not in entries
        cli(redis, "LPUSH", queue, "planted")
        proxy.heal()
        assert arrive(broker, 6) == ["first", *names(5)]
        assert "that this Plane did not sign was removed" in client.log()


def test_the_cache_that_plane_clears_is_another_one(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    """Each start of Plane's API empties the database of its cache."""
    with Client(image, url(proxy), redis, FIVE) as client:
        client.run()
        proxy.refuse()
        client.go_on()
        cli(redis, "FLUSHDB", database=0)
        proxy.heal()
        assert arrive(broker, 6) == ["first", *names(5)]


def test_the_message_is_what_celery_would_have_sent(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    """Property by property, published at once, by way of the spool, and without us."""
    options = "priority=3, expires=3600, countdown=5, compression='gzip', headers={'x': [1, None, 'ä', {'y': 1.5}]}"
    lines = f"send('first', {options})\nwait()\nsend('first', {options})\nwait()\n"
    found = []
    with Client(image, url(proxy), redis, lines, install="") as plain:
        plain.run()
        found.append(taken(broker))
    with Client(image, url(proxy), redis, lines) as client:
        client.run()
        found.append(taken(broker))
        proxy.refuse()
        client.go_on()
        proxy.heal()
        found.append(taken(broker))
    assert found[0] == found[1] == found[2]


def test_a_text_in_another_encoding_than_utf_8_stays_in_it(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    lines = """
from kombu.serialization import register
register("latin", lambda value: repr(value), eval, "application/x-latin", "latin-1")
send("first", serializer="latin", kwargs={"x": "ä"})
wait()
"""
    found = []
    for install in ("", "install()"):
        with Client(image, url(proxy), redis, lines, install=install) as client:
            client.run()
            found.append(taken(broker))
    assert found[0] == found[1]


# Celery's first protocol names a task in the body only.
FIRST_PROTOCOL = "its.conf.task_protocol = 1\n"


def test_a_task_of_celery_s_first_protocol_is_kept_as_any_other(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, FIRST_PROTOCOL + FIVE) as client:
        client.run()
        proxy.refuse()
        assert sent(client.go_on())
        proxy.heal()
        wait_for(lambda: broker.queue_depth(QUEUE) == 6, 15, "all have arrived")
        client.log()


OWN_MANDATORY = """
from kombu import Exchange
def publish(name, mandatory):
    with its.producer_pool.acquire() as producer:
        producer.publish({}, headers={"task": "lab.task", "id": name}, exchange="amq.direct", routing_key="nowhere",
                         mandatory=mandatory, retry=True)
send("first")
tell("asked", lambda: publish("asked", True))
tell("not-asked", lambda: publish("not-asked", False))
wait()
"""


def test_who_asks_himself_whether_a_queue_takes_it_is_told(image: images.Image, proxy: Proxy, redis: Redis) -> None:
    with Client(image, url(proxy), redis, OWN_MANDATORY, install="install(mandatory=False)") as client:
        told = client.run()
    assert told["asked"][0] == "ChannelError"
    assert told["not-asked"][0] == "sent"


def taken(broker: Broker) -> str:
    wait_for(lambda: broker.queue_depth(QUEUE), 15, "it has arrived")
    assert broker.queue_depth(QUEUE) == 1
    with broker.channel() as channel:
        message: amqp.Message = channel.basic_get(QUEUE, no_ack=True)
    headers = {name: value for name, value in message.headers.items() if name not in ("eta", "expires", "origin")}
    properties = {**message.properties, "application_headers": headers, "reply_to": ""}
    return json.dumps(
        [properties, message.delivery_info["routing_key"], repr(message.body)], default=repr, sort_keys=True
    )


LARGE = """
tell("large", lambda: its.send_task("lab.task", args=("x" * (17 << 20),), task_id="large"))
tell("small", lambda: its.send_task("lab.task", args=("x" * (15 << 20),), task_id="small"))
wait()
tell("kept", lambda: its.send_task("lab.task", args=("x" * (17 << 20),), task_id="kept"))
send("next")
wait()
"""


def test_a_message_larger_than_the_broker_takes_is_an_error_at_once_and_holds_up_nothing(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    """RabbitMQ 4 takes 16 MiB; upstream's publish goes unanswered, and its channel is closed later."""
    if str(16 << 20) not in broker.rabbitmqctl("eval", "application:get_env(rabbit, max_message_size)."):
        pytest.skip("this RabbitMQ takes more than the 16 MiB of 4.x, which `make brokers` tries")
    with Client(image, url(proxy), redis, LARGE, install="install(spool_bytes=1 << 26)") as client:
        told = client.run()
        assert told["large"][0] == "PreconditionFailed"
        assert told["small"][0] == "sent"
        proxy.refuse()
        assert sent(client.go_on(), slowest=15)  # 17 MiB are encrypted
        proxy.heal()
        assert arrive(broker, 2, within=30) == ["small", "next"]
        log = client.log()
    assert log.count("set aside, for the broker refuses it: lab.task[kept]: PreconditionFailed") == 1


LIMITED = """
import signal
from billiard.exceptions import SoftTimeLimitExceeded
raised, told = [0], [0]
def limit(*_):
    raised[0] += 1
    raise SoftTimeLimitExceeded()
send("first")
signal.signal(signal.SIGALRM, limit)
producer = its.producer_pool.acquire()  # kept, for kombu's pools don't outlive what strikes in the midst of them
end = time.monotonic() + 4
while time.monotonic() < end:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        for n in range(100):
            its.send_task("lab.task", task_id="in-a-loop", producer=producer)
    except Exception:  # kombu makes another one of what strikes while it encodes
        told[0] += 1
signal.setitimer(signal.ITIMER_REAL, 0)
print("# limits", raised[0], "told", told[0], file=sys.stderr, flush=True)
send("last", producer=producer)
wait()
"""


def test_a_time_limit_of_the_task_that_publishes_is_told_to_that_task(
    image: images.Image, proxy: Proxy, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, LIMITED) as client:
        assert client.run()["last"][0] == "sent"
        log = client.log()
    ((limits, told),) = [line.split()[2::2] for line in log.splitlines() if line.startswith("# limits")]
    assert int(limits) > 20
    assert int(told) >= 0.9 * int(limits)  # Python itself swallows those that strike in a destructor
    assert "in trouble: SoftTimeLimitExceeded" not in log


UNFIT = """
import uuid
send("first")
send("in-a-header", headers={"x": uuid.uuid4()})
send("too-large-a-number", headers={"n": 2**70})
send("too-long", queue="k" * 256)
send("too-high", priority=300)
send("last")
wait()
"""


def test_a_message_that_can_not_be_put_into_frames_is_an_error_at_once_and_no_trouble(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, UNFIT) as client:
        told = client.run()
        log = client.log()
    assert {name for name, (outcome, _) in told.items() if outcome == "sent"} == {"first", "last"}
    assert all(seconds < AT_ONCE for name, (_, seconds) in told.items() if name != "first")
    assert "in trouble" not in log
    assert arrive(broker, 2) == ["first", "last"]


UNFIT_KEPT = """
send("first")
wait()
send("too-high", priority=300)
send("too-long", queue="k" * 256)
send("in-a-header", headers={"x": object()})
send("kept-0")
wait()
"""


def test_what_can_not_be_put_into_frames_is_not_kept_either(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, UNFIT_KEPT) as client:
        client.run()
        proxy.refuse()
        time.sleep(0.5)
        told = client.go_on()
        assert {name for name, (outcome, _) in told.items() if outcome == "sent"} == {"kept-0"}
        proxy.heal()
        assert arrive(broker, 2) == ["first", "kept-0"]
        assert "set aside" not in client.log()


# A spool that never becomes empty, as where more comes than one process can deliver.
ENDLESS = """
from plane_webhook import publisher
from plane_webhook.delivery import Delivery
publisher.ORDER = 1.0
def step(self, link, now):
    self.left, self.rest = 1, now + 0.05
    return 0.05
Delivery.step = step
"""


def test_what_comes_later_does_not_wait_for_ever_for_what_was_kept(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, ENDLESS + FIVE) as client:
        client.run()
        proxy.refuse()
        assert sent(client.go_on())
        proxy.heal()
        time.sleep(4)  # it connects anew within one, and delivers for one more
        assert client.go_on()["last"][0] == "sent"
        assert arrive(broker, 2) == ["first", "last"]
        log = client.log()
    assert log.count("Some are still kept, after 1 s of delivering: what comes now doesn't wait for them") == 1


LISTED = """
connection = its.connection_for_write()
own = patches.publisher_for(connection)
other = its.connection_for_write()
other.ensure_connection(max_retries=3, interval_start=0.1)
tell("same" if patches.publisher_for(other) is own else "another", lambda: None)
tell("spool" if own.spool is not None else own.why.replace(" ", "-"), lambda: None)
"""


def test_of_a_list_of_brokers_each_node_is_the_same_broker(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Proxy(broker.port) as dead:
        dead.door("refuse")
        both = f"{url(dead)};{url(proxy)}"
        with Client(image, both, redis, LISTED) as client:
            assert set(client.run()) == {"same", "spool"}


STALE = """
from plane_webhook import spool
spool.IDLE = 0.5
send("first")
own = patches.publisher_for(its.connection_for_write()).spool
together = threading.Barrier(4)
def ask(redis):
    together.wait()
    return redis.ping()
crowd = [threading.Thread(target=own._call, args=(ask,)) for n in range(4)]
for each in crowd:
    each.start()
for each in crowd:
    each.join()
wait()
crowd = [threading.Thread(target=send, args=("kept-%d" % n,)) for n in range(4)]
for each in crowd:
    each.start()
for each in crowd:
    each.join()
wait()
"""


def test_connections_to_redis_that_died_idle_are_not_used_again(
    image: images.Image, proxy: Proxy, redis: Redis
) -> None:
    with Proxy(redis.port) as way, Client(image, url(proxy), redis, STALE, spool=way.port) as client:
        client.run()
        way.flow(up=SWALLOW, down=SWALLOW)  # those that are there; others can be made
        proxy.refuse()
        time.sleep(1)
        assert sent(client.go_on())


def test_what_redis_url_says_of_waiting_and_reading_is_not_for_the_spool(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    options = "?socket_timeout=30&socket_connect_timeout=30&timeout=30&max_connections=1&decode_responses=True&db=3"
    with Proxy(redis.port) as way:
        with Client(image, url(proxy), redis, FIVE, spool=way.port, options=options) as client:
            client.run()
            proxy.refuse()
            assert sent(client.go_on())
            proxy.heal()
            assert arrive(broker, 6) == ["first", *names(5)]
            assert client.go_on()["last"][0] == "sent"
        arrive(broker, 1)
        with Client(image, url(proxy), redis, FIVE, spool=way.port, options=options) as client:
            client.run()
            way.flow(up=SWALLOW, down=SWALLOW, fresh=True)
            proxy.refuse()
            told = client.go_on()
    assert all(seconds < WAIT + AT_ONCE for _, seconds in told.values())


BACKLOG = """
its.conf.task_queues = [Queue("celery", Exchange("celery"), "celery"), Queue("full", Exchange("full"), "full",
                        queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"})]
its.conf.task_default_queue = "celery"
send("fits", queue="full")
send("first")
wait()
for n in range(400):
    its.send_task("lab.task", task_id="full-%d" % n, queue="full")
send("another")
wait()
"""


def test_the_backlog_of_a_full_queue_is_gone_through_in_large_steps(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Client(image, url(proxy), redis, BACKLOG) as client:
        client.run()
        fill(broker, "full")
        client.go_on()
        assert arrive(broker, 2) == ["first", "another"]
        cli(redis, "CONFIG", "RESETSTAT")
        time.sleep(3)
        (asked,) = [line for line in cli(redis, "INFO", "commandstats").split() if line.startswith("cmdstat_eval:")]
        assert int(asked.partition("calls=")[2].partition(",")[0]) < 150  # some 7 a pass, and a pause after each
        client.log()
    with broker.channel() as channel:
        channel.queue_delete("full")


def test_what_can_not_be_kept_is_confirmed_late_where_the_broker_is_only_slow(
    image: images.Image, proxy: Proxy, broker: Broker, redis: Redis
) -> None:
    with Proxy(redis.port) as way, Client(image, url(proxy), redis, FIVE, spool=way.port) as client:
        client.run()
        way.flow(up=SWALLOW, down=SWALLOW, fresh=True)
        proxy.flow(down=Flow(delay=PATIENCE * 1.2))
        assert sent(client.go_on(), PATIENCE + WAIT + TIMEOUT)
    assert arrive(broker, 6) == ["first", *names(5)]
