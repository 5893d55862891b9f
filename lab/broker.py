"""RabbitMQ as a plain process: its own node, cookie, epmd, data and loopback ports, so any number run side by side.

It runs in a pid namespace of its own (sandbox.py), which takes epmd and Erlang's helpers with it when it ends. This
module must never touch a RabbitMQ that it did not start, nor the machine's configuration of one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import amqp

from lab.cache import LabError
from lab.packages import program
from lab.process import Startable, free_port, wait_for
from lab.rabbitmq import SERVER, installation
from lab.sandbox import Sandboxed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NODE = "lab@localhost"  # unique within its epmd, which is its own
START = 60.0  # seconds; 5 alone on two cores, twice that beside a build
DEFAULT_QUEUE = "celery"
DEFAULT_WATERMARK = 0.4  # RabbitMQ's own
DEFAULT_DISK_LIMIT = "50MB"  # the same


class Broker(Startable):
    """A broker. `with` starts it and removes it with its data; in between it may be stopped, killed and started."""

    def __init__(
        self,
        configuration: Mapping[str, str] | None = None,
        *,
        kind: str | None = None,
        node: str = NODE,
        epmd: int | None = None,
        cookie: str | None = None,
    ) -> None:
        """Prepare one. `configuration` adds lines to its rabbitmq.conf (listeners.ssl.default and the like).

        `kind` is that of `rabbitmq.installation`: a version, and what its queues are. A node of a cluster (cluster.py)
        has a name of its own, and shares the port of an epmd and the cookie with the others.
        """
        self.kind, self.installation = kind, installation(kind)
        self.folder = Path(tempfile.mkdtemp(prefix="plane-webhook-broker-"))
        self.port, distribution = free_port(), free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        self.log = self.folder / "broker.log"
        kept = self.folder / ".erlang.cookie"
        kept.write_text(cookie or secrets.token_hex(16))
        kept.chmod(0o400)  # Erlang refuses one that others may read
        lines = {"log.console.level": "info", "log.file": "false", **self.installation.configuration}
        lines |= configuration or {}
        conf = self.folder / "rabbitmq.conf"
        conf.write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))
        enabled = self.folder / "enabled_plugins"
        enabled.write_text("[].\n")
        applications = self.folder / "applications"
        applications.mkdir()
        for folder in self.installation.applications():
            (applications / folder.name).symlink_to(folder)
        self._environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),  # the cookie's place
            "ERL_EPMD_PORT": str(epmd or free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,  # not the machine's
            "RABBITMQ_CONFIG_FILE": str(conf),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(enabled),
            "RABBITMQ_PLUGINS_DIR": str(applications),
            "RABBITMQ_ALLOW_INPUT": "1",  # the server script then becomes Erlang, which gets the signals
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -kernel inet_dist_use_interface {127,0,0,1}",
        }
        self._process: Sandboxed | None = None

    def start(self) -> None:
        """Start it, on the data that it left, and return when it takes connections."""
        self._process = Sandboxed(
            "RabbitMQ",
            self.installation.options(self.folder),
            [str(SERVER)],
            stdout=self.log,
            stderr=self.log,
            env=self._environment,
        )
        wait_for(self._answers, START, "RabbitMQ takes connections", need=[self._process])

    def stop(self) -> None:
        """Stop it as an operator does: connections are closed and persistent messages kept."""
        if self._process is not None:
            self._process.stop(30)

    def kill(self) -> None:
        """End it as a crash or an OOM kill does."""
        if self._process is not None:
            self._process.signal(9)
            self._process.wait(30)

    def close(self) -> None:
        """Kill it and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def channel(self) -> Iterator[amqp.Channel]:
        """Open a connection of its own to it, for a `with` block."""
        with amqp.Connection(host=f"127.0.0.1:{self.port}", connect_timeout=5) as connection:
            yield connection.channel()

    def declare(self, queue: str = DEFAULT_QUEUE) -> None:
        """Declare a queue and its exchange as Celery would."""
        with self.channel() as channel:
            channel.exchange_declare(queue, "direct", durable=True, auto_delete=False)
            channel.queue_declare(queue, durable=True, auto_delete=False)
            channel.queue_bind(queue, queue, queue)

    def queue_depth(self, queue: str = DEFAULT_QUEUE) -> int:
        """Return how many messages wait in a queue; 0 if there is no such queue."""
        with self.channel() as channel, suppress(amqp.NotFound):
            return channel.queue_declare(queue, passive=True).message_count
        return 0

    def take(self, queue: str = DEFAULT_QUEUE) -> list[str]:
        """Take all messages out of a queue; return their task ids in the order of arrival, duplicates included."""
        ids = []
        with self.channel() as channel, suppress(amqp.NotFound):
            while (message := channel.basic_get(queue, no_ack=True)) is not None:
                ids.append(message.headers["id"])
        return ids

    def purge(self, queue: str = DEFAULT_QUEUE) -> None:
        """Empty a queue."""
        with self.channel() as channel:
            channel.queue_purge(queue)

    def memory_alarm(self, *, on: bool) -> None:
        """Have it block its publishers as when memory runs short, or let go of them again."""
        self.rabbitmqctl("set_vm_memory_high_watermark", "0" if on else str(DEFAULT_WATERMARK))

    def disk_alarm(self, *, on: bool) -> None:
        """Have it block its publishers as when the disk is nearly full, or let go of them again."""
        self.rabbitmqctl("set_disk_free_limit", "100000GB" if on else DEFAULT_DISK_LIMIT)

    def drain(self) -> None:
        """Take it out for maintenance: it closes its connections, takes no others, and hands its queues' leaders on."""
        self._tool("rabbitmq-upgrade", "drain")

    def revive(self) -> None:
        """End that."""
        self._tool("rabbitmq-upgrade", "revive")

    def rabbitmqctl(self, *words: str, timeout: float = 120) -> str:
        """Run rabbitmqctl against it and return what it printed. LabError if it fails, or if the broker doesn't run."""
        return self._tool("rabbitmqctl", *words, timeout=timeout)

    def _tool(self, tool: str, *words: str, timeout: float = 120) -> str:
        if self._process is None or not self._process.alive():  # it would start an epmd that nobody ends
            raise LabError("the broker doesn't run: start it first")
        inside = [program("bwrap"), "--unshare-pid", "--die-with-parent", *self.installation.options(self.folder), "--"]
        run = subprocess.run(
            [*inside, SERVER.with_name(tool), "--quiet", *words],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if run.returncode != 0:
            raise LabError(f"{tool} {' '.join(words)} failed:\n{run.stdout}{run.stderr}")
        return run.stdout

    def _answers(self) -> bool:
        with suppress(OSError, amqp.AMQPError), self.channel():
            return True
        return False
