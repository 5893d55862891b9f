"""Makes links to the broker on threads of its own: resolving a name, connecting and logging in can't be ended from within.

Attempts may overlap, for a slow broker has to be given `timeout` seconds, and one that has just come back should not wait for
an attempt that began while it was away. Of a list of brokers each attempt takes the next one: a dead node costs one pause.
It never says goodbye to a peer: that would wait for an answer.
"""

import ssl
import threading

from amqp.exceptions import AccessRefused, NotAllowed

from .link import Link

MOST = 4  # attempts at a time
# What a wrong password, a missing vhost or permission, or a certificate makes of an attempt to connect.
REFUSED = (AccessRefused, NotAllowed, getattr(ssl, "SSLCertVerificationError", ssl.CertificateError))
PASSING = ("is down", "limit")  # RabbitMQ's words for a vhost that is being started, and for too many connections


def lasting(error):
    """Whether time alone won't heal it."""
    return isinstance(error, REFUSED) and not any(words in str(error) for words in PASSING)


class Connector:
    """`template`: a kombu connection, never connected, that says where to and how. One thread uses it."""

    def __init__(self, template, timeout, wake):
        self.timeout, self.wake = timeout, wake
        self.urls = list(template.alt) or [None]
        self.template = template
        self.number = self.pause = 0
        self.next = None  # when the next attempt may begin
        self.lock = threading.Lock()
        self.running, self.made, self.failed = 0, [], None
        self.hopeless = {}  # by node: whether time alone won't heal why the last attempt failed

    def attempt(self, now):
        """Begin another attempt if it is time to. Returns when to ask again."""
        with self.lock:
            if self.next is not None and now < self.next or self.running >= MOST:
                return self.next if self.running < MOST else now + 1
            self.running += 1
        round_done = self.number % len(self.urls) == len(self.urls) - 1
        # 0.1, 0.2, ... 0.5 s, and at once to the next node of a list.
        self.pause = min(self.pause + 0.1, 0.5) if round_done else self.pause
        url, self.number = self.urls[self.number % len(self.urls)], self.number + 1
        self.next = now + (self.pause if round_done else 0.05)
        thread = threading.Thread(target=self._connect, args=(url,), name="plane-webhook-connect", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # none can be had, as when Python ends
            self._connect(url)
        return self.next

    def take(self):
        """Since it was last asked: the link that was made, or the error of the last attempt that failed, or None of both.

        And whether time won't heal it, of any node.
        """
        with self.lock:
            made, self.made = self.made, []
            failed, self.failed = self.failed, None
            for_ever = len(self.hopeless) == len(self.urls) and all(self.hopeless.values())
        for link in made[1:]:
            link.drop()
        if made:
            self.number = 0
        return (made[0] if made else None), failed, for_ever

    def begin_anew(self):
        """Pause no more: a connection has lived for a while. One that is lost at once, each time, is no reason to hurry."""
        self.pause, self.next = 0, None

    def _connect(self, url):
        link = error = None
        try:
            connection = self.template.clone()
            if url is not None:
                connection.switch(url)
            link = Link(connection, self.timeout)
        except Exception as found:
            error = found
        with self.lock:
            self.running -= 1
            self.hopeless[url] = link is None and lasting(error)
            if link is not None:
                self.made.append(link)
            else:
                self.failed = error
        self.wake()
