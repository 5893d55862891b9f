"""The certificate being served: read from a directory, checked, and replaced while connections stay open.

The listening TLS context never holds a certificate. Each handshake goes on with the context of the newest good pair,
which is complete before a client can meet it and never changes afterwards; connections that are open keep the one that
they began with. Files that won't do are reported, and what was served before goes on being served.
"""

import asyncio
import os
import ssl
from datetime import UTC, datetime
from pathlib import Path

import certs
from webhook import log
from webhook.server.metrics import Metrics

# None for a file that isn't there. tls.crt, tls.key, ca.crt.
_Files = tuple[bytes | None, bytes | None, bytes | None]


class Certificate:
    """A directory's tls.crt, tls.key and (if there is one) ca.crt, as a mounted Secret holds them."""

    def __init__(self, directory: Path, metrics: Metrics) -> None:
        """Take what is there now; `problem` says why not, if not."""
        self._directory = directory
        self._metrics = metrics
        self._seen: _Files | None = None
        self._taken: _Files | None = None
        self._complaint = f"{directory} was not read yet"
        self._complained_of: object = None
        self._leaf: certs.Leaf | None = None
        self.listening = _bare_context()
        self.listening.sni_callback = self._select
        self.look()
        self.look()
        if self._leaf is None:
            # Without a good pair the probes still get their answer, under a certificate that nobody trusts.
            stand_in = certs.generate(["no-certificate.invalid"], days=1, now=datetime.now(UTC))
            self._context = _context(stand_in["tls.crt"], stand_in["tls.key"])

    def problem(self) -> str | None:
        """Why no client would accept what is being served now, or None."""
        if self._leaf is None:
            return self._complaint
        problem = self._leaf.problem(datetime.now(UTC))
        return f"{self._directory}: {problem}" if problem else None

    async def watch(self, interval: float) -> None:
        """Look at the files for ever. They are read, not watched: inotify misses what a kubelet or a network does."""
        while True:
            await asyncio.sleep(interval)
            self.look()

    def look(self) -> None:
        """Take the files if they have changed and have rested since the last look: no half of a pair is judged."""
        try:
            files = self._read()
        except OSError as error:  # out of file descriptors, say: the next look is not far
            self._complain(error.errno, f"{self._directory} can't be read now: {error.strerror}")
            return
        if files == self._taken:
            if problem := self.problem():  # it has expired since
                self._complain(files, problem)
            else:
                self._complained_of = None
        elif files == self._seen:
            self._consider(files)
        self._seen = files

    def _select(self, connection: ssl.SSLObject, _name: str | None, _listening: ssl.SSLContext) -> None:
        """Called in every handshake, whether the client names a server or not."""
        connection.context = self._context

    def _read(self) -> _Files:
        # The kubelet swaps a whole generation of a Secret by one symlink: resolved once, all three are of the same.
        generation = Path(os.path.realpath(self._directory / "..data"))
        directory = generation if generation.is_dir() else self._directory
        return _content(directory / "tls.crt"), _content(directory / "tls.key"), _content(directory / "ca.crt")

    def _consider(self, files: _Files) -> None:
        certificate, key, authorities = files
        if certificate is None or key is None:
            missing = " and ".join(name for name, it in (("tls.crt", certificate), ("tls.key", key)) if it is None)
            self._complain(files, f"{self._directory}: {missing} can't be read: put a readable pair there")
            return
        try:
            leaf = certs.check(certificate, key, authorities, now=datetime.now(UTC))
            context = _context(certificate, key)
        except (certs.CertificateError, OSError) as error:
            self._complain(files, f"{self._directory}: {error}")
            return
        self._context, self._leaf, self._taken, self._complained_of = context, leaf, files, None
        self._metrics.certificate_not_after.set(leaf.not_after.timestamp())
        self._metrics.certificate_reloads.inc()
        log.line("info", "certificate in service", names=leaf.names, not_after=leaf.not_after)

    def _complain(self, what: object, complaint: str) -> None:
        """Say it once, count it once: what stays bad is looked at again and again, for time may heal it."""
        self._complaint = complaint
        if what != self._complained_of:
            self._complained_of = what
            self._metrics.certificate_errors.inc()
            log.line("error", complaint, serving=self._serving())

    def _serving(self) -> str:
        """What clients meet meanwhile."""
        if self._leaf is None:
            return "nothing that clients trust"
        return "one that clients refuse" if self._leaf.problem(datetime.now(UTC)) else "the one before"


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError):
        return None


def _bare_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    # The client's order of ciphers: an API server's has AES-128 first, which takes a quarter less of both than AES-256.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _context(certificate: bytes, key: bytes) -> ssl.SSLContext:
    """Build a context of exactly these bytes: OpenSSL only takes paths, and the files may change any moment."""
    context = _bare_context()
    descriptor = os.memfd_create("tls")
    try:
        os.write(descriptor, certificate + b"\n" + key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context
