"""The faults that the broker itself makes when told to: it refuses a message, a queue is full, somebody is deleted.

Each strikes one stack's vhost, user or queue, so the contenders don't feel each other's. Most of them no retry heals.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bench.effect.faults import Fault, mend_queue
from bench.effect.stack import QUEUE, vhosts

if TYPE_CHECKING:
    from bench.effect.stack import Stack

FULL = "full"  # a policy
STRICT = {"max_message_size": "100000"}  # of a broker that takes no large messages: bytes


def _limit(stack: Stack, **more: int) -> None:
    definition = json.dumps({"overflow": "reject-publish", **more})
    stack.broker.rabbitmqctl("set_policy", "-p", stack.vhost, "--apply-to", "queues", FULL, f"^{QUEUE}$", definition)


def _full(stack: Stack) -> None:
    """One message is in the queue, and no other may be. A limit that came first would drop what is there already."""
    _limit(stack)
    _limit(stack, **{"max-length": 1})
    stack.publish(counted=False)


def _not_full(stack: Stack) -> None:
    _limit(stack)


def _read_only(stack: Stack) -> None:
    """A channel remembers what it was permitted, so the connection goes too."""
    stack.broker.rabbitmqctl("set_permissions", "-p", stack.vhost, stack.user, ".*", "^$", ".*")
    stack.proxy.cut()


def _permit(stack: Stack) -> None:
    stack.broker.rabbitmqctl("set_permissions", "-p", stack.vhost, stack.user, ".*", ".*", ".*")


def _may_write(stack: Stack) -> None:
    _permit(stack)
    stack.proxy.heal()


def _no_exchange(stack: Stack) -> None:
    with stack.channel() as channel:
        channel.exchange_delete(QUEUE)


def _no_connections(stack: Stack) -> None:
    stack.broker.rabbitmqctl("set_vhost_limits", "-p", stack.vhost, json.dumps({"max-connections": 0}))
    stack.proxy.cut()


def _any_connections(stack: Stack) -> None:
    stack.broker.rabbitmqctl("clear_vhost_limits", "-p", stack.vhost)
    stack.proxy.heal()


def _no_vhost(stack: Stack) -> None:
    """It takes its queues with it: what was in them is counted before."""
    stack.drain()
    stack.broker.rabbitmqctl("delete_vhost", stack.vhost)


def _vhost(stack: Stack) -> None:
    vhosts(stack.broker, [stack.vhost])
    mend_queue(stack)


def _no_user(stack: Stack) -> None:
    stack.broker.rabbitmqctl("delete_user", stack.user)


def add_user(stack: Stack) -> None:
    """Make the stack's own user, with its name for a password."""
    stack.broker.rabbitmqctl("add_user", stack.user, stack.user)
    _permit(stack)


def _user(stack: Stack) -> None:
    add_user(stack)
    stack.proxy.heal()


REFUSALS = [
    Fault("queue-full", "a full queue that rejects", _full, _not_full),
    Fault("no-permission", "no permission to write", _read_only, _may_write, loses=False),
    Fault("no-exchange", "exchange missing (deleted while connected)", _no_exchange, mend_queue, loses=False),
    Fault(
        "connection-limit",
        "closed, and the limit of connections is reached",
        _no_connections,
        _any_connections,
        loses=False,
    ),
    Fault("vhost-deleted", "virtual host deleted while connected", _no_vhost, _vhost, loses=False),
]
HEALING = REFUSALS[:1]  # by themselves, when somebody consumes
USER_DELETED = Fault("user-deleted", "user deleted while connected", _no_user, _user, loses=False)
TOO_LARGE = Fault("too-large", "a message larger than the broker takes", lambda _: None)
