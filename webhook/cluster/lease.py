"""One active `operate` at a time: a Lease that is judged by this process's own monotonic clock.

No clock of another machine counts: a holder is gone when its Lease has not changed for `DURATION` while this process
looked on. Two that act at once, as after a pause of the network, do no harm: every write names the version that it
read.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec

from webhook.cluster.api import Api, ApiError

# Seconds. Held for two thirds of what others wait: whoever can't renew stops before somebody else begins.
DURATION = 15.0
HELD = 10.0
RENEW = 4.0
_MOST_TRANSITIONS = 2**31 - 1  # an int32 of the API's


class Lease:
    """The Lease `name` in `namespace`, wanted by `identity`."""

    def __init__(self, api: Api, namespace: str, name: str, identity: str) -> None:
        self._api = api
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
        self._meta = {"namespace": namespace, "name": name}
        self._identity = identity
        self._renewed: float | None = None  # when it was asked for, not when it was answered
        self._seen: tuple[str, float] | None = None

    @property
    def held(self) -> bool:
        """Whether nobody else can have it now. Any thread may ask."""
        renewed = self._renewed
        return renewed is not None and time.monotonic() - renewed < HELD

    def hold(self) -> bool:
        """Take or renew it where that is due; tell whether it is held. Raises ApiError."""
        now = time.monotonic()
        if self._renewed is not None and now - self._renewed < RENEW:
            return True
        found = self._api.find(self._path)
        if found is None:
            # Without a holder: of two that make it at once, the update decides.
            kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": self._meta}
            found = self._api.apply(self._path, kind, manager=self._meta["name"])
        lease = msgspec.json.decode(found)
        spec, version = lease.setdefault("spec", {}), lease["metadata"]["resourceVersion"]
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now)
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self._identity) and now - self._seen[1] < DURATION:
            self._renewed = None
            return False
        stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"  # for people: nobody compares it
        if holder != self._identity:
            spec["acquireTime"] = stamp
            # What somebody else has written there must not make it one that the API server refuses.
            spec["leaseTransitions"] = min(spec.get("leaseTransitions", 0) + 1, _MOST_TRANSITIONS)
        spec |= {"holderIdentity": self._identity, "renewTime": stamp, "leaseDurationSeconds": int(DURATION)}
        if not self._update(lease):
            self._renewed = None
            return False
        self._renewed = now
        return True

    def release(self) -> None:
        """Give it back, so that another one need not wait. Raises ApiError."""
        found = self._api.find(self._path) if self._renewed is not None else None
        self._renewed = None
        if found:
            lease = msgspec.json.decode(found)
            if lease.get("spec", {}).get("holderIdentity") == self._identity:
                lease["spec"]["holderIdentity"] = ""
                self._update(lease)

    def _update(self, lease: dict[str, Any]) -> bool:
        try:
            self._api.request("PUT", self._path, body=msgspec.json.encode(lease))
        except ApiError as error:
            if error.status == HTTPStatus.CONFLICT:  # somebody else was faster
                return False
            raise
        return True
