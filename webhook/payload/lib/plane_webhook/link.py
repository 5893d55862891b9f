"""One connection to the broker on which tasks are published, and nothing else. One thread uses it.

Each publish that somebody waits for has a channel of its own, for a refusal closes the channel and takes with it whatever
else is unanswered there; channels are used again. An answer counts for the message that has its number on its channel.
Nothing here waits for longer than `timeout` seconds at a time, but for a peer that sends a byte now and then.
"""

import select
import socket
import struct
import threading
import time
from collections import OrderedDict
from contextlib import contextmanager

from amqp import spec
from amqp.exceptions import AMQPError, ChannelError, FrameSyntaxError, MessageNacked, NotFound, error_for_code
from amqp.serialization import loads
from kombu.common import maybe_declare
from kombu.transport import pyamqp

# What py-amqp and a socket raise where a connection is gone; anything else comes from elsewhere, as a time limit does.
BROKEN = (AMQPError, OSError, AttributeError)
# What py-amqp raises beside FrameSyntaxError, before it writes, of a message that can't be put into frames.
UNFIT = (struct.error, TypeError, ValueError, ArithmeticError, LookupError)
CHANNELS = 10  # more publishes at a time than that share them
HEARTBEAT = 10  # seconds: by them a connection that an alarm blocks is told from a dead one


def for_now(error):
    """Whether a refusal is one that time heals: a queue that is full, or that is at a node of a cluster that is away.

    RabbitMQ has many words for the latter (rabbit_amqqueue's `priv_absent`), and one for what isn't there at all.
    """
    return isinstance(error, MessageNacked) or isinstance(error, NotFound) and "NOT_FOUND - no " not in str(error)


class Unanswered(Exception):
    """The channel was closed because of another message; this one may be sent again."""


class Sent:
    """A message on its way. `outcome`: None, True (confirmed), Unanswered, or the error with which it was refused."""

    def __init__(self, message):
        self.message, self.declared_anew = message, False
        self.outcome = self.returned = None
        self.at = time.monotonic()

    def may_be_declared_anew(self):
        """No queue took it, and what it needs may have been deleted."""
        return self.returned is not None and not self.declared_anew and bool(self.message.declare)


class _Connection(pyamqp.Connection):
    """Says of which channel an error is: py-amqp opens the channel anew before it raises, without confirms.

    And waits for an answer until `plane_webhook_end` only: heartbeats would have py-amqp wait for ever.
    """

    plane_webhook_end = None

    def blocking_read(self, timeout=None):
        if self.plane_webhook_end is not None:
            timeout = self.plane_webhook_end - time.monotonic()
            if timeout <= 0:
                raise socket.timeout("no answer in time")
        return super().blocking_read(timeout)

    def on_inbound_method(self, channel_id, signature, payload, content):
        try:
            return super().on_inbound_method(channel_id, signature, payload, content)
        except ChannelError as error:
            # While one is being opened anew another one may be closed, whose error is then the only one that is raised.
            errors = getattr(error, "plane_webhook_errors", {})
            if errors and signature == spec.Channel.Close:
                code, text, *method = loads("BsBB", payload, 4)[0]  # behind the signature's four bytes
                errors[channel_id] = error_for_code(code, text, tuple(method), ChannelError)
            else:
                errors[channel_id] = error
            error.plane_webhook_errors = errors
            raise

    def connect(self, callback=None):
        """py-amqp 5.1 waits for ever for a peer that doesn't answer in a handshake of TLS."""
        if not self.ssl:
            return super().connect(callback)
        timer = threading.Timer(2 * self.connect_timeout, self._hang_up)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # none can be had, as when Python ends
            pass
        try:
            return super().connect(callback)
        finally:
            timer.cancel()

    def Transport(self, *args, **kwargs):
        self.plane_webhook_way = super().Transport(*args, **kwargs)
        return self.plane_webhook_way

    def _hang_up(self):
        try:
            self.plane_webhook_way.sock.shutdown(socket.SHUT_RDWR)
        except (AttributeError, OSError):  # there is none yet, or no more
            pass


class Lane:
    """A channel, and what is unanswered on it by number."""

    def __init__(self, channel):
        self.channel, self.number, self.waiting, self.answered = channel, 0, OrderedDict(), False
        channel.events["basic_return"].add(self._returned)
        channel.events["basic_ack"].add(lambda tag, multiple: self._answered(tag, multiple, True))
        channel.events["basic_nack"].add(self._refused)

    def closed(self, error):
        """The broker closed it with this error, and it is open again: nothing that was unanswered will be answered."""
        unanswered = [sent for sent in self.waiting.values() if sent.outcome is None]
        self.number, self.waiting = 0, OrderedDict()
        for sent in unanswered:  # of several it is one, and nobody says which
            sent.outcome = error if len(unanswered) == 1 else Unanswered()

    def write(self, sent):
        sent.message.send(self.channel)
        self.number += 1
        self.waiting[self.number] = sent

    def _returned(self, error, exchange, routing_key, message):
        """No queue takes it. The broker says so before it acknowledges, and names the message only by its properties."""
        name = message.properties.get("correlation_id")
        for sent in self.waiting.values():
            its = sent.message.prepared["properties"].get("correlation_id")
            if sent.returned is None and (its == name or len(self.waiting) == 1):
                sent.returned = error
                return

    def _refused(self, tag, multiple):
        self._answered(tag, multiple, MessageNacked("the queue refused it"))

    def _answered(self, tag, multiple, outcome):
        self.answered = True
        for number in [n for n in self.waiting if n == tag or multiple and n <= tag]:
            sent = self.waiting.pop(number)
            sent.outcome = sent.returned or outcome


class Link:
    """Connects when it is made, and raises what kombu and py-amqp raise then."""

    def __init__(self, connection, timeout):
        self.timeout, self.blocked, self.since = timeout, False, time.monotonic()
        connection.transport_options = dict(connection.transport_options or {}, confirm_publish=False)
        connection.connect_timeout = min(connection.connect_timeout or timeout, timeout)
        connection.heartbeat = connection.heartbeat or HEARTBEAT
        connection.transport.Connection = _Connection
        self.amqp = connection.transport.establish_connection()
        self.amqp.on_blocked, self.amqp.on_unblocked = self._block, self._unblock
        # Without them py-amqp doesn't look for a `blocked` before it writes, which spins where half a frame has come.
        self.amqp.client_properties.pop("capabilities", None)
        self.sock = self.amqp.sock  # asked of a connection that was closed, py-amqp would connect anew
        self.sock.settimeout(timeout)
        self.poller = select.poll()
        self.poller.register(self.sock, select.POLLIN)
        self.lanes = []
        self.asked = None  # when, and after how many frames, it was asked whether it lives
        try:
            self.lane()
        except BaseException:
            self.drop()
            raise

    def knows(self, message):
        """Whether all that a message needs has been declared on this connection."""
        declared = self.amqp.client.declared_entities
        return all(entity.can_cache_declaration and hash(entity) in declared for entity in message.declare)

    def declaring(self, message):
        """Seconds that it may take to declare what a message needs."""
        return self.timeout * len(message.declare)

    def free(self):
        """Whether there is a channel on which nothing is unanswered."""
        return not all(lane.waiting for lane in self.lanes)

    def fileno(self):
        return self.sock.fileno()

    def send(self, message, lane=None):
        """Write a message; returns its Sent, whose outcome is an error already if what it needs can't be declared."""
        sent = Sent(message)
        self._write(sent, lane or self.lane())
        return sent

    def send_again(self, sent):
        """Of a message that no queue took: declare what it needs anew, once, for that may have been deleted meanwhile."""
        self.amqp.client.declared_entities.clear()
        sent.declared_anew, sent.outcome, sent.returned = True, None, None
        self._write(sent, self.lane())

    def _write(self, sent, lane):
        try:
            for entity in sent.message.declare:
                error = self._ask(lane, lambda: maybe_declare(entity, lane.channel))
                if error is not None:
                    sent.outcome = error
                    return
            lane.write(sent)
        except FrameSyntaxError as error:
            sent.outcome = error
        except BROKEN:
            raise
        except UNFIT as error:
            sent.outcome = error

    def _ask(self, lane, question):
        """Ask the broker something on a channel and wait; returns the error with which it refused, None if it didn't."""
        with self._soon():
            while True:
                try:
                    question()
                    return None
                except ChannelError as error:
                    if lane in self._closed(error):
                        return error

    @contextmanager
    def _soon(self):
        """For what has to be answered within `timeout`, what is asked meanwhile included."""
        before, end = self.amqp.plane_webhook_end, time.monotonic() + self.timeout
        self.amqp.plane_webhook_end = before or end
        try:
            yield
        finally:
            self.amqp.plane_webhook_end = before

    def lane(self):
        """The channel on which least is unanswered; a new one if there may be more."""
        idle = min(self.lanes, key=lambda lane: len(lane.waiting), default=None)
        if idle is None or idle.waiting and len(self.lanes) < min(CHANNELS, self.amqp.channel_max or CHANNELS):
            idle = Lane(self._opened(self.amqp.Channel(self.amqp)))
            self.lanes.append(idle)
            self._ask(idle, idle.channel.confirm_select)
        return idle

    def _opened(self, channel):
        """Open a new channel. Meanwhile others may be closed, which doesn't end the opening of this one."""
        step = channel.open
        with self._soon():
            while not channel.is_open:
                try:
                    step()
                except ChannelError as error:
                    self._closed(error)
                step = self._drain
        return channel

    def _drain(self):
        self.amqp.drain_events(timeout=self.timeout)

    def read(self, timeout):
        """Take in one frame, whose bytes may be `timeout` seconds apart; what has come of it isn't lost if they aren't.

        Not drain_events, which after a heartbeat would wait for another frame.
        """
        with self.amqp.transport.having_timeout(timeout):
            frame = self.amqp.transport.read_frame()
        try:
            self.amqp.on_inbound_frame(frame)
        except ChannelError as error:
            self._closed(error)
        except socket.timeout:
            raise ConnectionError("the broker closed a channel and does not open it anew")

    def _closed(self, error):
        """Returns the lanes whose channels the broker closed; raises the error where it is the whole connection's."""
        errors = getattr(error, "plane_webhook_errors", {})
        lanes = [lane for lane in self.lanes if lane.channel.channel_id in errors]
        if not lanes or len(lanes) < len(errors) or not self.amqp.connected:
            raise ConnectionError(str(error))
        for lane in lanes:
            lane.closed(errors[lane.channel.channel_id])
        for lane in lanes:
            self._ask(lane, lane.channel.confirm_select)
        return lanes

    def pending(self):
        """Whether TLS has read more than was asked of it: then the kernel knows of nothing to read."""
        return bool(getattr(self.sock, "pending", int)())

    def proven(self):
        """Whether the broker has answered for a message here."""
        return any(lane.answered for lane in self.lanes)

    def owes(self):
        """Since when the broker has owed an answer; None if it owes none."""
        return min((sent.at for lane in self.lanes for sent in lane.waiting.values()), default=None)

    def ask(self, now):
        """Ask the broker for a sign of life: a slow queue's connection gives one at once."""
        if self.asked is None:
            self.asked = now, self.amqp.bytes_recv
            self.lanes[0].channel.send_method(spec.Confirm.Select, "b", (False,))

    def silent(self, now):
        """For how many seconds the broker has owed a sign of life."""
        if self.asked is None or self.amqp.bytes_recv != self.asked[1]:
            return 0
        return now - self.asked[0]

    def answered(self):
        """The broker owes nothing any more."""
        self.asked = None

    def beat(self):
        """Say that we live; raises ConnectionForced if the broker has not for long."""
        self.amqp.heartbeat_tick()

    def drop(self):
        """End it without a goodbye, for which one would wait."""
        try:
            self.sock.settimeout(0.1)  # TLS says one of its own
        except OSError:  # it is closed
            pass
        try:
            self.amqp.collect()
        except Exception:  # of what is gone nothing is left to do
            pass

    def forget(self):
        """Close it for this process only: another one, which this was forked from, goes on with it."""
        try:
            self.sock.close()
        except OSError:
            pass

    def _block(self, reason):
        self.blocked = True

    def _unblock(self):
        """Only now does the broker read what was sent: its time begins anew."""
        self.blocked, now = False, time.monotonic()
        for lane in self.lanes:
            for sent in lane.waiting.values():
                sent.at = now
