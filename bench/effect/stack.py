"""One contender, running: its container, its fault proxy, its vhost on a shared broker, and a client that counts.

A publish is one HTTP request. It is *silently lost* when it was answered 200 and its message is in no queue, nor comes
to be in one soon after: a contender may keep it somewhere, and deliver it when the broker is back.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

import amqp

from bench.effect import contenders
from lab.cache import LabError
from lab.container import Container
from lab.faults import Proxy
from lab.postgres import Postgres
from lab.process import Startable, free_port
from lab.redis import Redis
from webhook.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from lab.broker import Broker
    from lab.dns import NameServer
    from lab.images import Image

# Seconds that the client waits for an answer; a request that takes longer counts as hung.
PATIENCE, SHORTEST = 120.0, 0.2  # at the default timeouts, and the least part of it for scaled ones
# A fault that a publisher notices costs it a timeout: at the default, 200 publishes a cell would take half an hour.
PUBLISH = Settings().default.publish
SCALE = 0.1
TOO_MANY = 3  # hung requests: then a cell is over, for it would take an hour
QUEUE = "celery"
PAUSE = 0.01  # seconds between a client's requests under load: the lab must not measure its own two cores
# Seconds without an arrival after which what has not arrived is lost: a spool begins within 2 s. What a process that
# was killed had sent, and not seen confirmed, waits until that one counts as dead (10 s) and another one looks (10 s).
QUIET, FOUND = 5.0, 45.0
KEY = "the-lab's-own-key-" * 3  # SECRET_KEY: as long as Django wants one
_tokens = count(1)
# The last line of a traceback: it stands at the left margin.
EXCEPTION = re.compile(r"^([a-z_]\w*(?:\.\w+)+|[A-Z]\w+)(?:: .*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Shot:
    """One publish: what the client was told and when. `status` 0: the connection broke; -1: no answer in time."""

    token: str
    status: int
    seconds: float
    ids: tuple[str, ...] = ()
    began: float = 0.0  # by the monotonic clock
    asked: float | None = None  # where that was before it began, for all that is known


@dataclass
class Score:
    """What became of a cell's publishes by one contender."""

    publishes: int = 0
    silent: int = 0
    aside: int = 0  # answered 200, and set aside afterwards: the log names it, and it can be tried again
    errors: int = 0  # 5xx
    broken: int = 0  # no HTTP answer: the worker was killed
    hung: int = 0  # no answer in time
    duplicates: int = 0  # messages that arrived again, whatever the answer was
    disordered: int = 0  # arrived after one that was asked for only when they had been answered
    delivered_errors: int = 0  # answered 5xx, and arrived all the same
    unexplained: int = 0  # 5xx without a log line that names the cause
    slowest: float = 0.0  # seconds
    causes: dict[str, int] = field(default_factory=dict)


class Stack(Startable):
    """A running contender with a Redis of its own. `behind` stands between its proxy and the broker.

    With `postgres` its database is a PostgreSQL of its own, as Plane's; else it is a file. It knows the broker by
    `nodes` addresses, each a proxy; `far_redis` puts one before its Redis.
    """

    workload = "api"
    own_env: ClassVar[Mapping[str, str]] = {}  # that this kind of stack needs
    tasks_only: ClassVar[bool] = False  # what the faults of its proxies strike
    longest: ClassVar[float] = PATIENCE

    def __init__(
        self,
        contender: str,
        broker: Broker,
        image: Image,
        *,
        vhost: str,
        scale: float = 1.0,
        publish: Mapping[str, Any] | None = None,
        scheme: str = "amqp",
        host: str = "127.0.0.1",
        env: Mapping[str, str] | None = None,
        binds: Mapping[str, Path] | None = None,
        behind: Proxy | None = None,
        direct: bool = False,
        names: NameServer | None = None,
        postgres: bool = False,
        user: str = "guest",
        nodes: int = 1,
        far_redis: bool = False,
    ) -> None:
        self.contender, self.broker, self.vhost, self.scale = contender, broker, vhost, scale
        self.patience = self.longest * max(scale, SHORTEST)
        target = behind.port if behind else broker.port
        self.nodes = [Proxy(target, tasks_only=self.tasks_only) for _ in range(nodes)]
        self.proxy, self.user = self.nodes[0], user
        self.names = names
        self.redis, self.postgres = Redis(), Postgres() if postgres else None
        self.redis_proxy = Proxy(self.redis.port) if far_redis else None
        self.port, self.broker_port = free_port(), broker.port if direct else self.proxy.port
        ports = [broker.port] if direct else [node.port for node in self.nodes]
        variables = {
            "PORT": str(self.port),
            "AMQP_URL": ";".join(f"{scheme}://{user}:{user}@{host}:{port}/{vhost}" for port in ports),
            "REDIS_URL": f"redis://127.0.0.1:{self.redis_proxy.port}/" if self.redis_proxy else self.redis.url,
            "SECRET_KEY": KEY,
            **({"DATABASE_URL": self.postgres.url} if self.postgres else {}),
            **self.own_env,
            **(env or {}),
        }
        self.pod = contenders.pod(
            contender,
            variables,
            {"timeout": PUBLISH.timeout * scale, **(publish or {})},
            workload=self.workload,
        )
        self.image, self.binds = image, binds or {}
        self.container = self._new()
        self.shots: list[Shot] = []
        self.timer: threading.Timer | None = None  # of a fault that passes by itself
        self._read, self._of_deleted = 0, ""
        self._arrived: list[tuple[str, frozenset[str]]] = []  # task id and tokens of each message, in their order

    def start(self) -> None:
        """Start it and return when it can publish."""
        for proxy in self._proxies():
            proxy.__enter__()
        self.redis.start()
        if self.postgres:
            self.postgres.start()
        self.container.start()
        self.wait_ready()

    def close(self) -> None:
        """End it."""
        self.container.close()
        if self.postgres:
            self.postgres.close()
        self.redis.close()
        for proxy in self._proxies():
            proxy.__exit__()

    def _proxies(self) -> list[Proxy]:
        return [*self.nodes, *([self.redis_proxy] if self.redis_proxy else [])]

    def delete(self) -> None:
        """Delete the pod, with its grace period: nothing of its volumes is left."""
        self.container.terminate()
        self._of_deleted = self._log_since()
        self._read = 0
        self.container.close()

    def create(self) -> None:
        """Start the pod that takes the place of the one that was deleted."""
        self.container = self._new()
        self.container.start()

    def replace(self) -> None:
        """What a Deployment with a single pod does on `kubectl delete pod`."""
        self.delete()
        self.create()

    def _new(self) -> Container:
        return Container.from_pod(self.pod, image=self.image, binds=self.binds)

    def wait_ready(self) -> None:
        """Return when it can publish."""
        self.container.wait_ready(self.port)

    def publish(self, via: str = "delay", *, counted: bool = True) -> Shot:
        """Ask for one export and keep what came of it."""
        name = token()
        start = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.patience)
        status, body = 0, b""
        try:
            connection.request("POST", f"/api/exports/?via={via}&id={name}")
            response = connection.getresponse()
            status, body = response.status, response.read()
        except TimeoutError:
            status = -1
        except (OSError, http.client.HTTPException):
            status = 0
        finally:
            connection.close()
        ids: tuple[str, ...] = ()
        if status == http.HTTPStatus.OK:
            ids = tuple(json.loads(body)["messages"])
        shot = Shot(name, status, time.monotonic() - start, ids, start)
        if counted:
            self.shots.append(shot)
        return shot

    def stuck(self) -> bool:
        """Tell whether so many requests hang that it isn't worth going on."""
        return sum(shot.status == -1 for shot in self.shots) >= TOO_MANY

    def warm(self) -> None:
        """Publish until it works, uncounted: the next publish finds a good pooled connection."""
        for _ in range(40):
            if self.publish(counted=False).status == http.HTTPStatus.OK:
                return
            time.sleep(0.25)
        raise LabError(f"{self.contender} doesn't recover:\n{self.container.stderr[-3000:]}")

    def load(
        self, until: Callable[[], bool], threads: int = 4, via: Iterable[str] = ("delay",), *, pause: float = PAUSE
    ) -> None:
        """Publish from several clients until `until` says so."""
        ways = list(via)

        def client(number: int) -> None:
            turn = number
            while not until() and not self.stuck():
                self.publish(ways[turn % len(ways)])
                turn += 1
                time.sleep(pause)

        with ThreadPoolExecutor(threads) as pool:
            for each in [pool.submit(client, number) for number in range(threads)]:
                each.result()

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to one of the container's processes."""
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def score(self) -> Score:
        """Take what arrived out of the queue, compare, and forget the shots."""
        self.settle()
        messages = self._take()
        arrived, tokens = Counter(each for each, _ in messages), set().union(*(named for _, named in messages))
        score = Score(publishes=len(self.shots), duplicates=arrived.total() - len(arrived))
        good = (shot for shot in self.shots if shot.status == http.HTTPStatus.OK)
        times = {each.token: (each.asked or each.began, each.began + each.seconds) for each in good}
        score.disordered = disordered(times, [named for _, named in messages])
        log = self._log_since()
        for shot in self.shots:
            score.slowest = max(score.slowest, shot.seconds)
            if shot.status == http.HTTPStatus.OK:
                missing = [each for each in shot.ids if not arrived.get(each)]
                named = all(re.search(rf"set aside, .*\[{re.escape(each)}\]", log) for each in missing)
                score.aside += bool(missing) and named
                score.silent += bool(missing) and not named
            elif shot.status == -1:
                score.hung += 1
            elif shot.status == 0:
                score.broken += 1
            else:
                score.errors += 1
                score.delivered_errors += shot.token in tokens
        for cause in self.causes(log):
            score.causes[cause] = score.causes.get(cause, 0) + 1
        score.unexplained = max(score.errors - sum(score.causes.values()), 0)
        self.shots = []
        return score

    def delete_queue(self) -> None:
        """Delete the queue behind the API's back, keeping what was in it for `score`.

        RabbitMQ confirms, and does not return, what it routes to a queue in the moment in which that is deleted: 4 of
        3,288 publishes in 22 deletions. That is no fault of a publisher's, so nothing may be under way.
        """
        self.settle()
        while True:  # what comes between the two must not go with the queue
            self.drain()
            try:
                with suppress(amqp.PreconditionFailed), self.channel() as channel:
                    channel.queue_delete(QUEUE, if_empty=True)
                    return
            except amqp.AMQPNotImplementedError:  # a quorum queue can't be asked for that
                with self.channel() as channel:
                    if left := channel.queue_delete(QUEUE):
                        raise LabError(f"{left} messages went with the queue: run it again") from None
                return

    def unbind_queue(self) -> None:
        """Take the queue away from its exchange behind the API's back."""
        with self.channel() as channel:
            channel.queue_unbind(QUEUE, exchange=QUEUE, routing_key=QUEUE)

    def declare_queue(self) -> None:
        """Make and bind the queue as Celery would."""
        with self.channel() as channel:
            channel.queue_declare(QUEUE, durable=True, auto_delete=False)
            channel.exchange_declare(QUEUE, "direct", durable=True, auto_delete=False)
            channel.queue_bind(QUEUE, exchange=QUEUE, routing_key=QUEUE)

    def purge(self) -> None:
        """Forget what has been sent so far."""
        self.shots = []
        self._take()
        self._log_since()

    def causes(self, log: str) -> list[str]:
        """Return, for each request that a log says failed, the exception that it names (its type)."""
        blocks = (EXCEPTION.findall(part.split("\n127.0.0.1:")[0]) for part in log.split("Internal Server Error: ")[1:])
        return [named[-1] for named in blocks if named]

    def _log_since(self) -> str:
        """What the container wrote to stderr since this was last asked, restarts and deleted pods included."""
        logs = sorted(self.container.state.glob("stderr.*"), key=lambda path: int(path.suffix[1:]))
        text = "".join(path.read_text(errors="replace") for path in logs)
        since, self._read = self._of_deleted + text[self._read :], len(text)
        self._of_deleted = ""
        return since

    @contextmanager
    def channel(self, port: int | None = None) -> Iterator[amqp.Channel]:
        """A channel of the lab's own to the stack's vhost: past the proxy, or by another port."""
        host = f"127.0.0.1:{port or self.broker.port}"
        with amqp.Connection(host, "guest", "guest", virtual_host=self.vhost, connect_timeout=10) as connection:
            yield connection.channel()

    def drain(self) -> None:
        """Take all messages out of the queue and count them."""
        with suppress(amqp.NotFound), self.channel() as channel:
            while (message := channel.basic_get(QUEUE, no_ack=True)) is not None:
                named = re.findall(r"t\d+", message.headers["argsrepr"])
                self._arrived.append((message.headers["id"], frozenset((message.headers["id"], *named))))

    def _take(self) -> list[tuple[str, frozenset[str]]]:
        """Return task id and tokens of each message that arrived, in their order, and begin anew."""
        self.drain()
        taken, self._arrived = self._arrived, []
        return taken

    def settle(self) -> None:
        """Return when all that was answered 200 has arrived, or when nothing of it arrives any more."""
        wanted = {each for shot in self.shots if shot.status == http.HTTPStatus.OK for each in shot.ids}
        patience = FOUND if self.contender == "ours-rotating" else QUIET
        missing, quiet = len(wanted) + 1, time.monotonic() + patience
        while (left := wanted - {each for each, _ in self._arrived}) and time.monotonic() < quiet:
            if len(left) < missing:  # others don't count: beat's never end
                missing, quiet = len(left), time.monotonic() + patience
            time.sleep(0.1)
            self.drain()


def disordered(times: Mapping[str, tuple[float, float]], arrived: Iterable[frozenset[str]]) -> int:
    """Count the publishes that arrived, for the first time, after one that was asked for when they had been answered.

    `times` tells of each token when it was asked for and answered well; `arrived` are the tokens of the messages, as
    they came. Requests that overlap have no order.
    """
    latest, late = 0.0, set()
    for message in dict.fromkeys(arrived):
        for each in message & times.keys():
            began, ended = times[each]
            if ended < latest:
                late.add(each)
            latest = max(latest, began)
    return len(late)


def token() -> str:
    """Return a name that no other publish has."""
    return f"t{next(_tokens)}"


def vhosts(broker: Broker, names: Iterable[str]) -> None:
    """Make virtual hosts that guest may use."""
    steps = "".join(
        f'rabbit_vhost:add(<<"{name}">>, <<"lab">>), rabbit_auth_backend_internal:set_permissions('
        f'<<"guest">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"lab">>), '
        for name in names
    )
    broker.rabbitmqctl("eval", f"{steps} ok.")
