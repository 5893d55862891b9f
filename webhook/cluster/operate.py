"""`plane-webhook operate`: looks at the cluster each few seconds and does the next thing that is to be done.

Level-triggered: a pass looks anew, does at most one thing about the certificate, and forgets nothing that matters if it
is killed. Every write names the version that was read, so that of two that act at once one is refused.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import certs
from certs.issuing import BACKDATED
from webhook import log
from webhook.cluster import certificates
from webhook.cluster.api import Api, ApiError
from webhook.cluster.census import Census, namespaces
from webhook.cluster.certificates import Files, Issue, Observed, Store, Trust
from webhook.cluster.endpoints import SERVICE, endpoints, served
from webhook.cluster.evictions import HEAL, Healer, Notebook
from webhook.cluster.exporter import Exporter
from webhook.cluster.installed import OPERATE, Registration, Secret
from webhook.cluster.lease import Lease
from webhook.cluster.logs import Logs
from webhook.cluster.registration import condition, left_out
from webhook.cluster.report import Reporter
from webhook.settings import Settings

# Seconds between passes; what they read are four small objects, by name.
INTERVAL = 5.0
_LONGEST_WAIT = 60.0
# Of one thing, by an API server that is well: were the next look later than the Lease holds, nobody would act then.
_REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)
# After something was done the next look comes sooner, for a first installation takes four steps; but not for ever, for
# somebody else may undo each of them.
_NEXT, _IN_A_ROW = 0.5, 5
# Seconds from one look at the pods to the next: with the time that it takes, a pod that slipped by is found within 30.
CENSUS = 15.0
# By how much this clock may differ from the API server's: certificates hold from that long before they are made.
CLOCKS = BACKDATED


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `operate` is told."""

    namespace: str  # the webhook's own
    secret: str
    manage_certificates: bool  # False: somebody else makes the Secret and fills in the caBundle
    metrics_host: str
    metrics_port: int


class Operator:
    """One process of `operate`."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        options: Options,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._now = now
        self._options = options
        self._settings = settings
        self._condition = condition(settings)
        self._host = f"{SERVICE}.{options.namespace}.svc"
        identity = f"{socket.gethostname()}-{os.getpid()}"
        self._lease = Lease(api, options.namespace, OPERATE, identity)
        self.exporter = Exporter()
        # Asked with each scrape: whoever waits for an answer that never comes can't say that it acts no more.
        self.exporter.leader.set_function(lambda: float(self._lease.held))
        self._reporter = Reporter(api, options.namespace)
        self._pods = Census(api, settings)
        self._logs = Logs(api)
        self._healer = Healer(api, options.namespace, settings, self.exporter)
        self._pending: Files | None = None
        self._bundle_since = _Since()
        self._quiet_since = _Since()
        self._said: set[str] = set()  # with the last pass that came to its end
        self._saying: set[str] = set()  # with this one
        self._counted: float | None = None
        self._aside: set[str] = set()  # namespaces that are opted in in vain
        self._failure = ("", 0.0)  # what was said last of a pass that failed, and when

    def run(self, ended: threading.Event) -> None:
        """Make passes until `ended` is set; then give the Lease back."""
        failures = steps = 0
        while not ended.is_set():
            try:
                steps = steps + 1 if self.step() else 0
                failures = 0
            except ApiError as error:
                steps = 0
                conflict = error.status == HTTPStatus.CONFLICT
                failures = 0 if conflict or error.status in _REFUSALS else failures + 1
                self.exporter.errors.inc(not conflict)
                self._failed("info" if conflict else "error", str(error))
                if not self._lease.held:
                    self._stand_by()
            self.exporter.passed()
            pause = _NEXT if 0 < steps <= _IN_A_ROW else INTERVAL
            ended.wait(min(_LONGEST_WAIT, INTERVAL * 2 ** min(failures, 6)) if failures else pause)
        with contextlib.suppress(ApiError):
            self._lease.release()

    def _failed(self, level: str, message: str) -> None:
        """At once where it is another one, and once a minute while it stays the same."""
        now = time.monotonic()
        if message != self._failure[0] or now - self._failure[1] >= _LONGEST_WAIT:
            self._failure = (message, now)
            log.line(level, message)

    def step(self) -> bool:
        """Make one pass; whether it did something, so that more may be to do. Raises ApiError."""
        if not self._lease.hold():
            self._stand_by()
            return False
        self._saying = set()
        try:
            did = self._certificates()
            self._said = self._saying
            return did
        finally:
            if self._counted is None or time.monotonic() - self._counted >= CENSUS:
                self._counted = time.monotonic()
                self._census()

    def _stand_by(self) -> None:
        """Somebody else may act, and tells."""
        self._pending = None
        self.exporter.forget()
        self._reporter.forget()

    def _census(self) -> None:
        """Look at every pod of the namespaces that are opted in, and say what is amiss."""
        opted_in = namespaces(self._api)
        aside = opted_in.keys() & left_out(self._options.namespace)
        for name in aside:
            del opted_in[name]
        if aside - self._aside:
            log.line(
                "warning",
                f"the namespace {', '.join(sorted(aside))} is opted in, and the registration leaves it out: no pod is "
                "injected there. Plane and the webhook need a namespace each",
            )
        self._aside = aside
        healed = [name for name, labels in opted_in.items() if labels.get(HEAL) == "enabled"]
        notebook = Notebook(self._api, self._options.namespace, opted_in) if healed else None
        every = self._pods.look(opted_in)
        if not self._lease.hold():  # the look may have taken its time
            return
        found = self._logs.look([each for name in opted_in for each in every[name] if not each.leaving])
        self.exporter.census(
            opted_in, ((each.namespace, each.judged.state) for each in found), logs=self._logs.readable
        )
        self._reporter.report(found, opted_in, logs=self._logs.readable)
        # What logs say moves nobody: another pod would say the same.
        if notebook is not None and self._lease.hold():
            self._healer.heal(notebook, {name: every[name] for name in healed})

    def _certificates(self) -> bool:
        """Do the next thing that is to be done; whether there was one."""
        secret = Secret(self._api, self._options.namespace, self._options.secret) if self._manages else None
        registration = Registration(self._api)
        self.exporter.registered(registration.webhook is not None)
        leaves = served(endpoints(self._api, self._options.namespace))
        ends = self.exporter.serving(leaves)
        now = self._now()
        theirs = self._api.date
        astray = theirs is not None and abs(now - theirs) > CLOCKS
        if astray:
            # It is the API server that judges what is served: it would refuse a pair that was made on another day.
            self._say(
                "error",
                "certificate: nothing is done as long as this clock and the API server's differ by more than "
                f"{CLOCKS.seconds // 60} minutes: set the node's clock right",
            )
        elif not self._manages and ends is not None and ends - now < certificates.SOON:
            self._say(
                "warning",
                f"the certificate that is served ends on {ends:%Y-%m-%d} and was not renewed: look at cert-manager, or "
                "renew the Secret that you made; when it has ended, and the API server's open connections, no pod is "
                "injected",
            )
        if registration.webhook is None:
            self._say(
                "error",
                "the MutatingWebhookConfiguration plane-webhook is missing, or has not our webhook, so no pod is "
                "injected: apply the manifests, or install the chart, again",
            )
        elif elsewhere := registration.elsewhere(self._options.namespace):
            # Two that fill it in would take away each other's authority, for ever.
            self._say(
                "error",
                f"the MutatingWebhookConfiguration plane-webhook leads to the Service {elsewhere}, so nobody asks this "
                "installation, which leaves certificate and registration alone: uninstall one of the two, and apply "
                "what stays again",
            )
            return False
        elif secret is not None and registration.lacks(self._condition):
            registration.set(registration.bundle or b"", self._condition)
            log.line("info", "registration: the condition is set as the configuration has it")
            return True
        if secret is None or astray:
            return False
        seen = Observed(
            files=secret.files,
            bundle=registration.bundle,
            served=leaves,
            pending=self._pending,
            bundle_age=self._bundle_since(registration.bundle),
            quiet=self._quiet_since((tuple(sorted((secret.files or {}).items())), tuple(leaves))),
        )
        action = certificates.plan(seen, host=self._host, now=now)
        match action:
            case Issue(why):
                self._pending = certs.generate([self._host], days=certificates.DAYS, now=now)
                log.line("info", f"certificate: a new one is made: {why}")
            case Trust(bundle, why) if self._lease.held:
                registration.set(bundle, self._condition)
                log.line("info", f"registration: the caBundle is set: {why}")
            case Store(files, why) if self._lease.held:
                secret.store(files)
                self._pending = None
                log.line("info", f"certificate: the new one is in the Secret: {why}")
            case _:
                return False
        return True

    @property
    def _manages(self) -> bool:
        return self._options.manage_certificates

    def _say(self, level: str, message: str) -> None:
        """When it comes to be so, not with every pass; and when it is so again."""
        if message not in self._said:
            log.line(level, message)
        self._saying.add(message)


class _Since:
    """For how long, by the monotonic clock, a value has been seen as it is."""

    def __init__(self) -> None:
        self._value: Hashable = object()
        self._begin = 0.0

    def __call__(self, value: Hashable) -> timedelta:
        if value != self._value:
            self._value, self._begin = value, time.monotonic()
        return timedelta(seconds=time.monotonic() - self._begin)


def operate(api: Api, settings: Settings, options: Options) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    log.configure()
    operator = Operator(api, settings, options)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with operator.exporter.listening(options.metrics_host, options.metrics_port) as port:
        log.line("info", "operating", namespace=options.namespace, metrics_port=port)
        operator.run(ended)
    log.line("info", "ended")
    return 0
