"""Delivers what is in the spool over a link, in order, and takes out only what the broker has confirmed.

One process of all that share the spool does it at a time. A message that the broker refuses for good is set aside and never
holds up those behind it; one that its queue refuses for now waits with those for the same queue, and the others go on.
"""

import socket
import time
from collections import deque

from amqp.exceptions import ConnectionForced, InternalError, IrrecoverableConnectionError

from . import name_of, say
from .link import Unanswered, for_now
from .spool import LARGE, LEASE, LIVES, SpoolError

WINDOW = 64  # messages that may be unconfirmed at a time; the first one after a connect goes alone
POLL = 0.2  # seconds between two looks while another process delivers
PAUSE = 0.2, 1.0  # seconds before a full queue is tried again: the first time, and at most
HUNG = 60.0  # seconds, at most, in which nothing more is sent to a queue that hangs
# Times that a connection may be lost with one message before that goes last, or for it before it is set aside.
STRIKES = 3
SUSPECTS = 1000  # messages of which it is known how often that was
# Things that Redis has to hear, with which no more is kept: each that it may have done and did not answer adds one, of
# 200 kB maybe.
DEBTS = 100


class Suspect:
    """A message with which connections were lost: how often, how often for it, and when it may go again if it goes last."""

    def __init__(self):
        self.losses, self.strikes, self.again = 0, 0, 0.0


class Delivery:
    """One thread uses it. `left`: how many wait, None while that isn't known."""

    def __init__(self, spool):
        self.spool, self.left, self.unreachable = spool, None, ""
        self.batch = []  # (entry, Sent): what is on its way
        self.window, self.reach, self.leads = 1, 1, False  # how many may be on their way, and how many are looked at
        self.passed, self.full, self.pause, self.began = 0, set(), PAUSE[0], 0.0
        self.hung = {}  # by route: until when it rests, and for how long the next time
        self.suspects = {}  # by the hash of what Redis has of a message
        self.last, self.turn = [], None  # those of this pass that go last, and which of them is next
        self.owed = deque()  # what Redis has to hear before anything is sent again, or it would arrive twice
        self.rest = self.renew = self.adopted = 0.0

    def step(self, link, now):
        """Do the next thing; returns after how many seconds to call again. Answers of the broker are a reason to, too."""
        if now < self.rest:
            return self.rest - now
        try:
            wait = self._step(link, now)
            self._reached()
        except SpoolError as error:
            if not self.unreachable:
                say("the spool can't be reached: %s" % error)
            self.unreachable, self.left, wait = str(error), None, 1.0
        self.rest = now + wait if not self.batch else 0.0
        return wait

    def _reached(self):
        if self.unreachable:
            self.unreachable = ""
            say("the spool can be reached again")

    def tell(self, deed, what):
        """Have Redis hear of something that has happened: `deed` of the spool with `what`. Any thread may call it."""
        self.owed.append((deed, what))

    def told(self):
        """Have said what there was to `tell`; False if Redis could not hear it."""
        try:
            self._tell_all()
            return True
        except SpoolError:
            return False

    def _tell_all(self):
        while self.owed:
            deed, what = debt = self.owed[0]
            try:
                deed(what)
            except SpoolError:
                raise
            except Exception as error:  # a bug of ours: once is enough
                say("a bug in plane-webhook: %s" % name_of(error))
            if self.owed and self.owed[0] is debt:  # where no thread can be had, several callers are here
                self.owed.popleft()

    def _step(self, link, now):
        self._tell_all()
        if self.leads and now > self.renew:
            self._hold()
        if self.batch:
            if any(sent.outcome is None for _, sent in self.batch):
                return LEASE / 3
            self._settle(link)
            return LEASE / 3 if self.batch else 0
        if not self.leads:
            self.left, doubtful = self.spool.waiting()
            if not self.left + doubtful:
                return POLL
            if not self._hold():
                return POLL
        if now - self.adopted > LIVES / 5:
            self.spool.adopt()
            self.adopted = now
        entries = self.spool.first(self.passed, max(self.window, self.reach))
        if not self.passed:
            self.began = now
        if not entries:
            return self._end_of_pass(now)
        self.left = len(entries)
        lane = link.lane()
        for entry in entries:
            if time.monotonic() > self.renew and not self._hold():  # to write large ones takes a while
                break
            route, key = self._route(entry.message), hash(entry.token)
            if route in self.full or now < self.hung.get(route, (0, 0))[0]:
                self.passed += 1
                continue
            suspect = key in self.suspects and self.suspects[key].losses >= STRIKES
            if suspect and key != self.turn:
                self.passed += 1
                self.last.append(key)
                continue
            known = link.knows(entry.message)
            if self.batch and (suspect or not known):  # goes alone: it may cost those beside it their channel
                break
            if not known and not self._hold(link.declaring(entry.message)):
                return POLL
            self.batch.append((entry, self._send(link, entry, lane)))
            if suspect:
                self.turn = None
            if suspect or len(self.batch) == self.window:
                break
        # All for queues that are full: on, to what is for others, in larger steps unless these were large.
        size = sum(len(entry.token) for entry in entries)
        self.reach = 1 if self.batch or size > LARGE else min(self.reach * 2, WINDOW)
        return 0 if all(sent.outcome is not None for _, sent in self.batch) else LEASE / 3

    def _hold(self, more=0.0):
        """Take or renew the right to deliver. `more`: seconds for a declaration; others must not take over meanwhile."""
        self.leads, self.renew = self.spool.hold(more), time.monotonic() + LEASE / 3
        return self.leads

    def _send(self, link, entry, lane):
        try:
            return link.send(entry.message, lane)
        except Exception as error:
            if not self.batch:
                self._blame(entry, error, link.proven())
            raise

    def _blame(self, entry, error, proven):
        """The connection was lost with this one alone on its way."""
        # ConnectionForced: no heartbeats came, or the broker shuts down.
        silence = isinstance(error, (str, socket.timeout, ConnectionForced))
        if silence:
            self._rest(entry)
        self._strike(entry, error, proven and not silence)

    def _rest(self, entry):
        """No answer came. A dead connection is enough of a reason once, and not each time."""
        route, now = self._route(entry.message), time.monotonic()
        pause = self.hung.get(route, (0, 0.0))[1]
        self.hung[route] = now + pause, min(max(4 * pause, 1.0), HUNG)

    def _strike(self, entry, error, proven):
        """If the connection is always lost with it, nothing behind it would ever go.

        Whose fault it is the broker may say. If it doesn't, the others go first from the third time on, and then it is this
        one's fault if the broker has answered for others on the same connection (`proven`).
        """
        key = hash(entry.token)
        suspect = self.suspects.setdefault(key, Suspect())
        said = isinstance(error, IrrecoverableConnectionError) and not isinstance(error, InternalError)
        suspect.losses += 1
        suspect.strikes += said or suspect.losses > STRIKES and proven
        suspect.again = time.monotonic() + min(2.0 ** (suspect.losses - STRIKES), HUNG)
        if suspect.strikes == STRIKES:
            why = "the broker refuses it" if said else "the connection is lost with it, and with no other"
            self._set_aside(entry, name_of(error), why)
            del self.suspects[key]
        elif suspect.losses == STRIKES:
            say("the connection is lost each time that this is sent, so others go first: %s" % entry.message)
        if len(self.suspects) > SUSPECTS:
            del self.suspects[next(iter(self.suspects))]  # the one that has been one for the longest time

    def _set_aside(self, entry, reason, why="the broker refuses it"):
        self.tell(lambda refused: self.spool.set_aside(*refused), (entry, reason))
        say("set aside, for %s: %s: %s" % (why, entry.message, reason))

    def _end_of_pass(self, now):
        if self.passed:
            self.passed, self.full = 0, set()
            due = [(self.suspects[key].again, key) for key in self.last if key in self.suspects]
            self.last, self.turn = [], min(due)[1] if due and min(due)[0] <= now else None
            wait, self.pause = self.pause, min(self.pause * 2, PAUSE[1])
            return max(wait, now - self.began)  # a long queue is gone through at most half of the time
        self.left, self.pause = 0, PAUSE[0]
        self.leave()
        return POLL

    def _settle(self, link):
        """All of the batch is answered."""
        batch, self.batch = self.batch, []
        confirmed = [entry for entry, sent in batch if sent.outcome is True]
        if confirmed:
            self.tell(self.spool.done, [entry.token for entry in confirmed])
            for entry in confirmed:
                self.confirmed(entry.message)
                self.suspects.pop(hash(entry.token), None)
        if len(confirmed) < len(batch):
            self.window = 1
        elif sum(len(entry.token) for entry in confirmed) < LARGE:
            self.window = min(self.window * 2, WINDOW)
        else:
            self.window = max(self.window // 2, 1)
        for entry, sent in batch:
            if sent.outcome is True or isinstance(sent.outcome, Unanswered):
                continue
            if for_now(sent.outcome):
                self.full.add(self._route(entry.message))
                self.passed += 1
            elif sent.may_be_declared_anew():
                if self._hold(link.declaring(entry.message)):
                    link.send_again(sent)
                    self.batch.append((entry, sent))
            else:
                self._set_aside(entry, name_of(sent.outcome))

    def look(self, now):
        """Learn how many wait; returns after how many seconds to call again."""
        try:
            self.left = sum(self.spool.waiting())
            self._reached()
        except SpoolError:
            self.left = None
        return 1.0 if self.left else 30.0

    def confirmed(self, message):
        """Its queue doesn't hang any more."""
        self.hung.pop(self._route(message), None)

    def lost(self, error, proven):
        """The link is gone, of this error: what was on its way and not confirmed is in the spool still.

        `proven`: whether the broker had answered for a message on it.
        """
        confirmed = [entry.token for entry, sent in self.batch if sent.outcome is True]
        if confirmed:
            self.tell(self.spool.done, confirmed)
        if len(self.batch) == 1 and not confirmed:
            self._blame(self.batch[0][0], error, proven)
        self.batch, self.window, self.reach, self.rest, self.passed = [], 1, 1, 0.0, 0
        self.full, self.last = set(), []

    def leave(self):
        """Let another process deliver what may come."""
        if self.leads:
            self.leads = False
            self.spool.let_go()

    @staticmethod
    def _route(message):
        return message.exchange, message.routing_key
