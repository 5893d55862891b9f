"""Ten years of certificates as webhook.cluster decides: at no moment does a client refuse what is served."""

from __future__ import annotations

import random
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, VerificationError
from cryptography.x509.verification import Store as Anchors

import certs
from webhook.cluster.certificates import DAYS, QUIET, SETTLE, Files, Issue, Observed, Store, Trust, Wait, amiss, plan

HOST = "plane-webhook.plane-webhook.svc"
START = datetime(2026, 1, 1, tzinfo=UTC)
PASS = timedelta(seconds=15)
SECOND = timedelta(seconds=1)
SEEN = Observed(None, b"", (), None, timedelta(0), timedelta(0))


def issued(now: datetime, host: str = HOST, days: int = DAYS) -> Files:
    return certs.generate([host], days=days, now=now)


@lru_cache
def accepts(bundle: bytes, leaf: bytes, now: datetime) -> bool:
    """Whether a TLS client that trusts the bundle takes a server's leaf, by another implementation than ours."""
    anchors = Anchors(x509.load_pem_x509_certificates(bundle))
    verifier = PolicyBuilder().store(anchors).time(now).build_server_verifier(x509.DNSName(HOST))
    try:
        verifier.verify(x509.load_pem_x509_certificate(leaf), [])
    except VerificationError:
        return False
    return True


class World:
    """Two replicas, whose kubelets take up a Secret late, each at its own pace; and an `operate` that dies."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - the same faults each time
        self.now = START
        self.secret: Files | None = None
        self.bundle = b""
        self.known = b""  # by the API server, which hears of a change a little later
        self.replicas: list[Files | None] = [None, None]
        self.pending: Files | None = None
        self.since = {"bundle": (b"", START), "quiet": ((), START)}
        self.changes: list[str] = []
        self.late: list[tuple[datetime, int]] = []
        self.heard = START

    def age(self, name: str, value: object) -> timedelta:
        if self.since[name][0] != value:
            self.since[name] = (value, self.now)
        return self.now - self.since[name][1]

    def crash(self) -> None:
        """`operate` is killed and starts anew: what it had in memory is gone."""
        self.pending = None
        self.since = {"bundle": (object(), self.now), "quiet": (object(), self.now)}

    def step(self) -> None:
        """One pass."""
        leaves = tuple(der(each) for each in self.replicas)
        seen = Observed(
            self.secret,
            self.bundle,
            leaves,
            self.pending,
            self.age("bundle", self.bundle),
            self.age("quiet", (str(self.secret), leaves)),
        )
        action = plan(seen, host=HOST, now=self.now)
        match action:
            case Issue():
                self.pending = issued(self.now)
            case Trust(bundle):
                self.bundle, self.heard = bundle, self.now + timedelta(seconds=self.random.uniform(0, 8))
            case Store(files):
                self.secret, self.pending = files, None
                self.late = [(self.now + timedelta(seconds=self.random.uniform(0, 150)), each) for each in (0, 1)]
        if not isinstance(action, Wait):
            self.changes.append(type(action).__name__)

    def elapse(self, span: timedelta) -> None:
        """Time passes: kubelets and API server take up what is theirs, and what is served is called."""
        self.now += span
        if self.now >= self.heard:
            self.known = self.bundle
        for when, number in self.late:
            if self.now >= when and self.secret and amiss(self.secret, host=HOST, now=self.now) is None:
                self.replicas[number] = self.secret
        for replica in self.replicas:
            assert replica is None or accepts(self.known, replica["tls.crt"], self.hour()), (self.now, self.changes)

    def hour(self) -> datetime:
        """The next full hour: certificates hold for days, and verifying is what takes the test's time."""
        return self.now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)

    def busy(self) -> bool:
        """Whether something is on its way."""
        return self.pending is not None or len(self.authorities()) > 1 or self.secret is None

    def authorities(self) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates(self.bundle) if self.bundle else []


def der(files: Files | None) -> bytes | None:
    return x509.load_pem_x509_certificate(files["tls.crt"]).public_bytes(Encoding.DER) if files else None


@pytest.mark.parametrize("seed", range(2))
def test_ten_years_with_a_crash_between_any_two_steps(seed: int) -> None:
    """Crashes at every step with probability a third, between long rests; each moment every served leaf is accepted."""
    world = World(seed)
    while world.now < START + timedelta(days=3653):
        before = len(world.changes)
        world.step()
        if len(world.changes) > before and world.random.random() < 1 / 3:
            world.crash()
        world.elapse(PASS if world.busy() or len(world.changes) > before else timedelta(days=1))
    stored = world.changes.count("Store")
    assert 60 <= stored <= 65  # each 60 days or so, and the first
    assert len(world.authorities()) == 1
    assert all(each == world.secret for each in world.replicas)


@pytest.mark.parametrize("crash_at", range(1, 12))
def test_a_crash_after_each_single_change_is_gone_on_from(crash_at: int) -> None:
    """The first certificate, its renewal, and the end of the old authority: killed after the nth change."""
    world = World(crash_at)
    while world.now < START + timedelta(days=65):
        before = len(world.changes)
        world.step()
        if len(world.changes) > before and len(world.changes) == crash_at:
            world.crash()
        world.elapse(PASS if world.busy() or len(world.changes) > before else timedelta(days=1))
    assert world.changes.count("Store") == 2
    assert len(world.authorities()) == 1


GOOD = issued(START)
OTHER = issued(START)
CUT = GOOD["ca.crt"][:100]
BROKEN: dict[str, Files | None] = {
    "deleted": None,
    "empty": {},
    "without its authority": {name: GOOD[name] for name in ("tls.crt", "tls.key")},
    "truncated": {**GOOD, "tls.crt": GOOD["tls.crt"][:200]},
    "a key of another": {**GOOD, "tls.key": OTHER["tls.key"]},
    "an authority of another": {**GOOD, "ca.crt": OTHER["ca.crt"]},
    "for another host": issued(START, "elsewhere.svc"),
    "expired": issued(START - timedelta(days=100)),
    "of the future": issued(START + timedelta(days=100)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_secret_that_will_not_do_is_mended_and_the_old_is_trusted_meanwhile(name: str) -> None:
    """The replicas go on serving what they had, so its authority stays until they don't."""
    world = World(0)
    world.secret, world.bundle, world.known, world.replicas = BROKEN[name], GOOD["ca.crt"], GOOD["ca.crt"], [GOOD, GOOD]
    world.step()
    for _ in range(120):
        world.elapse(PASS)
        world.step()
    assert world.secret is not None
    assert amiss(world.secret, host=HOST, now=world.now) is None
    assert world.changes == ["Issue", "Trust", "Store", "Trust"]
    assert world.bundle == world.secret["ca.crt"]


def test_a_pair_waits_until_its_authority_is_known_where_somebody_serves() -> None:
    seen = replace(SEEN, bundle=OTHER["ca.crt"] + GOOD["ca.crt"], pending=OTHER)
    for served in ((der(GOOD),), (None,)):
        early = replace(seen, served=served, bundle_age=SETTLE - SECOND)
        assert isinstance(plan(early, host=HOST, now=START), Wait)
        assert isinstance(plan(replace(early, bundle_age=SETTLE), host=HOST, now=START), Store)
    assert isinstance(plan(replace(seen, served=(), bundle_age=SECOND), host=HOST, now=START), Store)


@pytest.mark.parametrize("served", [None, OTHER])
def test_an_old_authority_stays_while_an_endpoint_shows_another_leaf_or_nothing(served: Files | None) -> None:
    both = GOOD["ca.crt"] + OTHER["ca.crt"]
    seen = replace(SEEN, files=GOOD, bundle=both, quiet=QUIET, served=(der(GOOD), der(served)))
    assert plan(seen, host=HOST, now=START) == Wait("")
    calm = replace(seen, served=(der(GOOD), der(GOOD)))
    assert plan(calm, host=HOST, now=START) == Trust(GOOD["ca.crt"], "every endpoint serves the new certificate")
    assert plan(replace(calm, quiet=QUIET - SECOND), host=HOST, now=START) == Wait("")


def test_without_a_registration_nothing_is_made() -> None:
    action = plan(replace(SEEN, bundle=None), host=HOST, now=START)
    assert isinstance(action, Wait)
    assert "apply the manifests again" in action.why


@pytest.mark.parametrize("bundle", [b"", b"no certificate", CUT], ids=["empty", "no certificate", "cut"])
def test_a_bundle_that_is_edited_is_mended_at_once(bundle: bytes) -> None:
    assert plan(replace(SEEN, files=GOOD, bundle=bundle), host=HOST, now=START) == Trust(
        GOOD["ca.crt"], "an authority is not trusted yet"
    )


def test_when_the_life_is_two_thirds_over_a_new_one_is_made() -> None:
    seen = replace(SEEN, files=GOOD, bundle=GOOD["ca.crt"])
    assert plan(seen, host=HOST, now=START + timedelta(days=59)) == Wait("")
    assert isinstance(plan(seen, host=HOST, now=START + timedelta(days=60)), Issue)


def test_one_that_can_not_be_read_in_the_bundle_does_not_take_the_others_with_it() -> None:
    """API servers skip it and trust the rest: by the authority of before, for whom the kubelet is late."""
    old, new = issued(START), issued(START + PASS)
    junk = new["ca.crt"].replace(b"\nMI", b"\nAA", 1)
    later = replace(SEEN, files=new, bundle=old["ca.crt"] + junk, served=(der(old),))
    action = plan(later, host=HOST, now=START + 2 * PASS)
    assert isinstance(action, Trust)
    for pair in (old, new):
        assert accepts(action.bundle, pair["tls.crt"], START + 2 * PASS)


def test_a_bundle_of_another_version_of_x509_is_no_end() -> None:
    pair = issued(START)
    strange = x509.load_pem_x509_certificate(pair["ca.crt"]).public_bytes(Encoding.DER)
    strange = strange.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)
    bundle = ssl.DER_cert_to_PEM_cert(strange).encode()
    action = plan(replace(SEEN, files=pair, bundle=bundle, served=()), host=HOST, now=START)
    assert isinstance(action, Trust)
    assert action.bundle == pair["ca.crt"]
