"""Plane's consumers (automation, webhook, agent, integration events): each hands the events that it reads on to Celery.

They read with a connection of their own, of AMQP without Celery, and publish by Celery's pool, as a request does.
"""

import socket

import amqp
from django.conf import settings
from django.core.management.base import BaseCommand
from kombu.utils.url import parse_url

from plane.bgtasks.export_task import issue_export_task

QUEUE = "plane.events"


class Command(BaseCommand):
    """Hand each event on."""

    def handle(self, *_args: object, **_options: object) -> None:
        """Read until the container ends. An error of a publish is logged, and the next event is read, as in Plane's."""
        url = parse_url(settings.CELERY_BROKER_URL)
        connection = amqp.Connection(
            f"{url['hostname']}:{url['port']}", url["userid"], url["password"], virtual_host=url["virtual_host"] or "/"
        )
        connection.connect()
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True, auto_delete=False)
        channel.basic_qos(0, 1, a_global=False)
        channel.basic_consume(QUEUE, callback=self._dispatch)
        self.stdout.write("consuming")
        self.stdout.flush()
        while True:
            try:
                connection.drain_events(timeout=1)
            except socket.timeout:  # noqa: UP041 - another class before Python 3.10
                continue

    def _dispatch(self, message: amqp.Message) -> None:
        event = message.body if isinstance(message.body, str) else message.body.decode()
        try:
            self.stdout.write(f"dispatched {event} as {issue_export_task.delay(event).id}")
        except Exception as error:  # noqa: BLE001 - as Plane's
            self.stderr.write(f"not dispatched {event}: {error}")
        self.stdout.flush()
        message.channel.basic_ack(message.delivery_tag)
