"""What of other people's libraries is replaced, and when it is: the only module that changes an object of theirs.

`kombu`, `Producer.publish`: a message that is a task is published by the process's own publisher, with confirmation, or
kept; every other message, and one for a channel that its caller brings, goes as kombu has it. Where that name is missing
nothing is replaced, nothing of ours is in effect, and the log says so. (Documents are held against this.)
"""

import atexit
import os
import select
import signal
import sys
import threading

from . import name_of, say

_publishers, _lock = {}, threading.Lock()
_settings = {}


def install(publish, redis_url, secret):
    """Put ours in place, once. `publish` as in settings.json; the others are Plane's own settings."""
    from kombu import Producer

    if replaced():
        return
    if not hasattr(select, "poll"):  # eventlet takes it away
        raise NotImplementedError("without select.poll nothing of ours works")
    _settings.update(publish=publish, redis_url=redis_url, secret=secret)
    original = Producer.publish

    def publish_task(self, body, *args, **kwargs):
        event = isinstance(body, dict) and body.get("type") == "task-sent"
        # Who brings a channel wants it there: in its transaction, say, or with confirmations of his own.
        publisher = publisher_for(self.__connection__) if event or _is_task(body, kwargs.get("headers")) else None
        if event and publisher is not None and not publisher.state.healthy:
            return None  # Celery before 5.7 would try for ever, and the task that it is about is kept
        if event or publisher is None or publisher.own.lock.locked():
            return original(self, body, *args, **kwargs)
        from celery import current_app

        from .message import captured

        # Of what is for a Broadcast queue Celery declares nothing: that is its workers' own, and there may be none.
        message = captured(original, self, body, args, kwargs, publish["mandatory"] and kwargs.get("declare"))
        # Celery 5.7 says `retry=False` where it tries again itself, for what a worker publishes after a task.
        return publisher.publish(message, bool(kwargs.get("retry") or current_app.conf.task_publish_retry))

    publish_task.plane_webhook = True
    Producer.publish = publish_task
    os.register_at_fork(after_in_child=_forget)
    _start_with_the_process()


def replaced():
    """Whether ours is in its place in this process."""
    from kombu import Producer

    return hasattr(Producer.publish, "plane_webhook")


def _is_task(body, headers):
    """Celery's second protocol names it in a header, the first in the body."""
    if headers and "task" in headers:
        return True
    return isinstance(body, dict) and "task" in body and "id" in body and "args" in body


def publisher_for(connection):
    """The publisher for the broker that a kombu connection names; None where that is no AMQP, or can't be known."""
    if connection is None or getattr(connection.transport, "driver_name", "") != "py-amqp":
        return None
    where = _where(connection)
    with _lock:
        found = _publishers.get(where)
    return found or _make(connection, where)


def _where(connection):
    """The broker, or the list of brokers: of a list a connection's own address changes with the node that it is at."""
    return tuple(connection.alt) or (connection.as_uri(include_password=True),)


def _make(connection, where):
    from celery import current_app
    from kombu import Connection  # connections of its pools are of another class, which can't be copied

    from .publisher import Publisher
    from .spool import Spool, SpoolError

    asked = _settings["publish"]
    own = current_app.connection_for_write()
    spool, why = None, ""
    if asked["spool"] == "none":
        why = "publish.spool is none"
    elif _where(own) != where:
        why = "it is for another broker than Celery's own"
    else:
        try:
            bounds = asked["spool_tasks"], asked["spool_bytes"]
            spool = Spool(_settings["redis_url"], _settings["secret"], *bounds, asked["timeout"])
        except SpoolError as error:
            why = str(error)
            say("there is no spool: %s; while the broker is in trouble, publishing a task is an error" % why)
    with _lock:
        if where not in _publishers:
            _publishers[where] = Publisher(
                Connection(**connection.info()), spool, why, asked["patience"], asked["timeout"]
            )
        return _publishers[where]


def _start_with_the_process():
    """What an earlier process left in the spool is delivered without anybody publishing here.

    Only in processes that don't fork any more: gunicorn's workers from their first request, Celery's pool and beat.
    """
    from celery.signals import beat_init, worker_process_init, worker_process_shutdown

    atexit.register(_leave)
    worker_process_shutdown.connect(_leave, weak=False)  # those of a pool end without what `atexit` has
    # So does uvicorn's worker in gunicorn, which raises the signal again when it has ended in order.
    main = threading.current_thread() is threading.main_thread()  # no other one may set a signal's handler
    if main and "gunicorn" in sys.modules and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        from django.core.signals import request_started
    except ImportError:  # Celery without Django, as in its own tests
        return

    def start(**_):
        request_started.disconnect(dispatch_uid="plane-webhook")
        try:
            from celery import current_app

            publisher = publisher_for(current_app.connection_for_write())
            if publisher is not None:
                publisher.start()
        except Exception as error:
            say("the spool is looked at with the first task: %s" % name_of(error))

    request_started.connect(start, weak=False, dispatch_uid="plane-webhook")
    worker_process_init.connect(start, weak=False, dispatch_uid="plane-webhook")
    beat_init.connect(start, weak=False, dispatch_uid="plane-webhook")


def _leave(**_):
    """Before the process ends in order. Not what it interrupts in the midst of a publish, for that has locks."""
    for publisher in list(_publishers.values()):
        if not publisher.own.lock.locked():
            publisher.leave()


def _terminate(number, _):
    """What SIGTERM does by default, a little later; another one does it at once."""
    signal.signal(number, signal.SIG_DFL)
    try:
        _leave()
    finally:
        signal.raise_signal(number)


def _forget():
    """In a process that was forked: threads and connections are those of the other one."""
    global _lock
    _lock = threading.Lock()
    for publisher in _publishers.values():
        publisher.forget()
    _publishers.clear()
