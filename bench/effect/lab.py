"""What cells run on: a broker, and the stacks of the contenders on it, started when first asked for."""

from __future__ import annotations

import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, Self

import trustme

from bench.effect.publishers import Beat, Consumer, Worker
from bench.effect.refusals import STRICT, add_user
from bench.effect.stack import SCALE, Stack, vhosts
from lab import images
from lab.broker import Broker
from lab.dns import NameServer
from lab.faults import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


Kind = Literal[
    "scaled",
    "default",
    "direct",
    "tls",
    "dns",
    "nodes",
    "far-redis",
    "own-user",
    "strict",
    "small-spool",
    "no-spool",
    "worker",
    "worker-default",
    "consumer",
    "beat",
]
KINDS: dict[Kind, str] = {
    "scaled": "timeouts scaled down",
    "default": "the default timeouts",
    "direct": "the default timeouts, no proxy in between",
    "tls": "by amqps://, timeouts scaled down",
    "worker": "a worker's publishes, timeouts scaled down",
    "worker-default": "a worker's publishes, the default timeouts",
    "beat": "beat's publishes, timeouts scaled down",
    "consumer": "a worker whose connections to consume are struck too, the default timeouts",
    "nodes": "by a list of two addresses, timeouts scaled down",
    "far-redis": "with a proxy before its Redis too, timeouts scaled down",
    "own-user": "as a user of its own, timeouts scaled down",
    "strict": "on a broker that takes no large messages, timeouts scaled down",
    "small-spool": "with room for a few tasks in the spool, timeouts scaled down",
    "no-spool": "without a spool, timeouts scaled down",
    "dns": "by a name that the lab's own name server resolves, timeouts scaled down",
}
SPOOL_TASKS = 3  # fewer than the publishes of any cell
SPOOLS: dict[str, dict[str, Any]] = {"small-spool": {"spool_tasks": SPOOL_TASKS}, "no-spool": {"spool": "none"}}
UNSCALED: tuple[Kind, ...] = ("default", "worker-default", "consumer", "direct")


class Lab:
    """A broker and stacks. Use it as a context manager. A `broker` that runs already is left running."""

    def __init__(
        self,
        contenders: Iterable[str],
        *,
        lock: images.Lock = "requirements",
        python: str = images.PYTHON,
        broker: Broker | None = None,
    ) -> None:
        self.contenders = list(contenders)
        self.lock, self.python = lock, python
        self.broker, self._own = broker or Broker(), broker is None
        self._strict: Broker | None = None
        self._stacks: dict[tuple[str, str], Stack] = {}
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        self.image = images.build(self.lock, self.python)
        if self._own:
            self._exit.enter_context(self.broker)
        vhosts(self.broker, [f"{name}-{kind}" for name in self.contenders for kind in KINDS])
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def stacks(self, kind: Kind = "scaled", only: Iterable[str] | None = None) -> list[Stack]:
        """The stacks of the contenders (`only` these): see KINDS. Those that don't run yet start side by side."""
        wanted = [name for name in self.contenders if only is None or name in only]
        new = [name for name in wanted if (name, kind) not in self._stacks]
        if new and kind == "strict" and self._strict is None:
            self._strict = self._exit.enter_context(Broker(STRICT, kind=self.broker.kind))
            vhosts(self._strict, [f"{name}-{kind}" for name in self.contenders])
        with ThreadPoolExecutor(max(len(new), 1)) as pool:
            started = pool.map(lambda name: self._exit.enter_context(self._stack(name, kind)), new)
            self._stacks.update(((name, kind), stack) for name, stack in zip(new, started, strict=True))
        return [self._stacks[name, kind] for name in wanted]

    def _stack(self, contender: str, kind: Kind) -> Stack:
        stack = {"worker": Worker, "worker-default": Worker, "consumer": Consumer, "beat": Beat}.get(kind, Stack)
        broker = self._strict if kind == "strict" and self._strict else self.broker
        make = partial(stack, contender, broker, self.image, vhost=f"{contender}-{kind}")
        if kind == "tls":
            folder = Path(self._exit.enter_context(TemporaryDirectory(prefix="plane-webhook-tls-")))
            authority = trustme.CA()
            authority.cert_pem.write_to_path(folder / "ca.pem")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(context)
            end = self._exit.enter_context(Proxy(self.broker.port, tls=context))
            return make(
                scale=SCALE, scheme="amqps", behind=end, env={"SSL_CERT_FILE": "/lab/ca.pem"}, binds={"/lab": folder}
            )
        if kind == "dns":
            names = self._exit.enter_context(NameServer())
            return make(scale=SCALE, host="rabbitmq.lab", names=names, binds={"/etc/resolv.conf": names.resolv_conf})
        if kind == "own-user":
            own = make(scale=SCALE, user=contender)
            add_user(own)
            # The broker may outlive this lab, and another one would make the same user.
            self._exit.callback(own.broker.rabbitmqctl, "delete_user", contender)
            return own
        if kind in SPOOLS:
            return make(scale=SCALE, publish=SPOOLS[kind])
        if kind in ("nodes", "far-redis"):
            return make(scale=SCALE, nodes=2 if kind == "nodes" else 1, far_redis=kind == "far-redis")
        return make(scale=1.0 if kind in UNSCALED else SCALE, direct=kind == "direct")


def each(stacks: Iterable[Stack], deed: Callable[[Stack], None]) -> None:
    """Do it to all of them side by side. The first error is raised when all are done."""
    todo = list(stacks)
    if not todo:
        return
    with ThreadPoolExecutor(len(todo)) as pool:
        for done in [pool.submit(deed, stack) for stack in todo]:
            done.result()
