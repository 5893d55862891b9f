"""What plane-webhook puts into Plane's processes: every task is published with confirmation, or kept until it can be.

    patches     what of kombu is replaced, and by what: the only module that changes anybody else's object
    publisher   the process's publisher: callers on one side, its thread on the other
    state       whether the broker is in trouble; knows no broker and no clock
    link        one connection to the broker on which tasks are published and confirmed
    connector   how a link is made, while nobody waits for it
    message     a task's message as a value
    spool       where tasks are kept while the broker is in trouble: a list in Plane's Redis
    notes       what a process in trouble leaves for `proof`
    console     the commands `proof` and `spool` in the container

Python 3.8 and newer, Celery 5.4, kombu 5.3, py-amqp 5.1 and newer. Nothing here may show the arguments of a task, a
password or a key, and nothing may keep Plane from starting.
"""

import os
import sys


def say(text):
    """One line in the container's log. Not by a worker's sys.stderr: that leads to handlers, which may publish a task."""
    try:
        sys.__stderr__.write("plane-webhook: %s\n" % text)
        sys.__stderr__.flush()
    except Exception:  # nobody reads it any more: no reason to keep a task from being published
        pass


def name_of(error):
    """An error as one line: its kind and its text, which py-amqp's and Redis' errors keep free of passwords."""
    text = " ".join(str(error).split())
    return "%s: %s" % (type(error).__name__, text) if text else type(error).__name__


def here():
    """This process, for people: the pod's name and its pid."""
    return "%s/%d" % (os.environ.get("HOSTNAME") or "?", os.getpid())
