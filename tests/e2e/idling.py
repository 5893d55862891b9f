"""Connections of the API server to the webhook that do nothing for a while: one for each age, in the background."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import yaml

from lab.load import connections
from lab.pods import apart, api_pod, create, injected
from lab.process import wait_for
from lab.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.controlplane import ControlPlane

# Seconds between two calls on a connection. Around 90 a client that is about to use one and a server that is about to
# close it would meet.
AGES = (5, 30, 60, 85, 89, 89.8, 89.9, 90, 90.1, 90.2, 91, 95)
NAMES = {age: f"idle-{age}".replace(".", "-") for age in AGES}


class Idling:
    """A connection for each age: a call at once, another one when the connection is so old."""

    def __init__(self, plane: ControlPlane, webhook: Webhook) -> None:
        """Make the first calls; the webhook is registered under each of NAMES."""
        self._plane, self._webhook = plane, webhook
        self.dialled: dict[float, bool] = {}  # whether the second call took another connection
        self.results: dict[float, list[bool]] = {}  # whether the pods were injected
        trust = ssl.create_default_context(cafile=webhook.cert_dir / "ca.crt")
        self._own = http.client.HTTPSConnection("127.0.0.1", webhook.port, timeout=20, context=trust)
        self._own_answers()
        self._own.auto_open = 0  # from now on it is this connection or none
        self.own_is_kept = False  # whether the webhook has kept it longer than the API server keeps any
        begun = {age: self._first(age) for age in AGES}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._second, args=(begun,))
        self._thread.start()

    def _call(self, age: float) -> bool:
        return injected(create(self._plane, NAMES[age], api_pod(), dry_run=True).json())

    def _first(self, age: float) -> float:
        wait_for(lambda: self._call(age), 15, f"the registration {NAMES[age]} is in use")
        self.results[age] = [self._call(age)]
        return time.monotonic()

    def _second(self, begun: dict[float, float]) -> None:
        for age, moment in sorted(begun.items(), key=lambda item: item[0] + item[1]):
            if self._over.wait(max(0.0, moment + age - time.monotonic())):
                return
            before = connections(self._webhook.port)
            self.results[age].append(self._call(age))
            self.dialled[age] = bool(connections(self._webhook.port) - before)
        with suppress(OSError, http.client.HTTPException):
            self.own_is_kept = self._own_answers()

    def _own_answers(self) -> bool:
        """Use a connection of our own, which only the webhook would close."""
        self._own.request("GET", "/livez")
        response = self._own.getresponse()
        response.read()
        return response.status == http.HTTPStatus.OK and not response.will_close

    def finish(self) -> None:
        """Return when each age is reached."""
        self._thread.join()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self._own.close()


@contextmanager
def idling(plane: ControlPlane) -> Iterator[Idling]:
    """Begin; the block ends whenever it likes."""
    with Webhook() as webhook, apart(plane, yaml.safe_load(webhook.registration()), list(NAMES.values())):
        connections = Idling(plane, webhook)
        try:
            yield connections
        finally:
            connections.stop()
