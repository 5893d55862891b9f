"""The publisher of a process: whoever publishes a task comes here, and one thread of the process has the connection.

Healthy, a caller sends its message itself if nobody else uses the connection, for changing threads costs more than the
broker does; else it hands it over and waits for the confirmation. In trouble nobody waits: the message goes to the spool,
and the thread delivers what is there, in order, until it is empty. What had been sent and not confirmed when the trouble
began is kept as doubtful: it is sent again only when its connection is gone.

Two locks: `io` is held by whoever uses the connection; `lock` guards what both sides share, is taken after it, and is never
held while anybody waits for the broker or for Redis.
"""

import os
import select
import socket
import threading
import time
from collections import deque
from weakref import WeakSet

from amqp.exceptions import AMQPNotImplementedError, InvalidCommand, MessageNacked
from kombu.exceptions import OperationalError

from . import name_of, notes, say
from .connector import Connector
from .delivery import DEBTS, Delivery
from .link import BROKEN, UNFIT, Unanswered, for_now
from .spool import LIVES, SpoolError
from .state import State

LOOK = 10.0  # seconds between two looks of a healthy process at the spool, for what others left there
BEAT = 5.0  # seconds between two signs of life to the broker
OWED = 600.0  # seconds: a confirmation that is owed for longer, on a connection that lives, will not come
ORDER = 10.0  # seconds, with a broker that is well, in which what is new waits behind what is kept; then for none of it
LIVED = 1.0  # seconds: after a connection that was lost sooner there is a pause before the next one
AGAIN = 0.01  # seconds between two looks at a spool that was empty, and into which something was put meanwhile
TELL = 2.0  # seconds between two notes of how much is kept
MUCH = 1 << 16  # bytes that a socket may not take at once
LEAVES = 0.5  # seconds that a process which ends waits for the broker, and for Redis
DRIVE = 0.05  # seconds that a caller waits for the rest of a frame, or before it looks whether others wait

KEEP = OperationalError("the broker is in trouble")  # an outcome: the caller is to put it into the spool
LOST = OperationalError("the connection is gone")  # an answer: none can come any more


class Job:
    """A message that one caller waits for.

    `outcome`: what the caller is told (None: nothing yet; True, an error, KEEP). `answer`: what became of what was sent.
    `written`: the broker may have it, for it was sent and not refused.
    """

    def __init__(self, message, retry, keepable):
        self.begun = time.monotonic()
        self.message, self.retry, self.keepable = message, retry, keepable
        self.doubted, self.written = False, False
        self.outcome = self.link = self.sent = self.answer = None
        # Not an Event: a time limit that strikes in its wait() can leave its lock locked, and whoever sets it waits for ever.
        self.gate = threading.Lock()
        self.gate.acquire()

    def wait(self, seconds):
        """Wait until it is done, for its caller."""
        self.gate.acquire(timeout=max(seconds, 0))

    def done(self):
        """Let go of the caller, who waits or will."""
        try:
            self.gate.release()
        except RuntimeError:  # he is let go already
            pass

    def again(self):
        """There is something to wait for again."""
        self.gate.acquire(blocking=False)


class Own(threading.local):
    """`lock`: held while this thread is at work here. What a signal's handler or a finalizer publishes then can't wait."""

    def __init__(self):
        self.lock = threading.Lock()


class Publisher:
    """`template`: a kombu connection that says where the broker is; `spool`: a Spool, or None and `why` there is none.

    `patience`: seconds that a caller waits for a confirmation; `timeout`: seconds that the broker has for anything else.
    """

    def __init__(self, template, spool, why, patience, timeout):
        self.spool, self.why, self.patience, self.timeout = spool, why, patience, timeout
        self.io, self.lock, self.state = threading.Lock(), threading.Lock(), State()
        self.own = Own()
        self.jobs = deque()  # not sent yet
        self.putting = WeakSet()  # those whose callers are about to put them into the spool, or were ended before that
        self.leaving = False  # nothing more of the spool is sent, for the process ends
        self.retries = True  # whether the last task that was published may be tried again
        self.puts = 0  # what this process has put there
        self.unkept = None  # when the trouble began in which it was said that a task can't be kept
        self.thread = None
        self.ears, self.mouth = os.pipe()
        os.set_blocking(self.ears, False)
        os.set_blocking(self.mouth, False)
        self.connector = Connector(template, timeout, self.wake)
        self.flying = []  # sent and not answered, in that order
        self.look = 0.0  # when to look whether there is anything in the spool
        # With `io`:
        self.link = None
        self.delivery = Delivery(spool) if spool is not None else None
        self.lived = self.told = 0.0

    # ---- Callers

    def publish(self, message, retry=True):
        """Return when the message is confirmed or kept; raise what kept it from being either."""
        with self.own.lock:
            self._publish(message, retry)

    def _publish(self, message, retry):
        job = Job(message, retry, retry and self.spool is not None)
        self.retries = retry
        running = self.start()
        if self.state.healthy and not self.io.locked():
            # Not acquire(blocking=False): a time limit that strikes right behind it would leave it locked for ever.
            with self.io:
                if self.state.healthy:
                    self._drive(job)
            if job.outcome is True:
                return
        with self.lock:
            if job.link is not None or job.outcome is not None or job in self.jobs:
                pass  # on its way, at its end, or to go again
            elif self.state.healthy:
                self.jobs.append(job)
            elif job.keepable and not self.state.lasting:
                self._to_be_kept(job)
            else:
                raise self._error()
        if job.outcome is None:
            self.wake()
            if not running:
                self._borrow(job)
            self._wait(job)
        if job.outcome is KEEP:
            self._keep(job)
            self.wake()
        elif job.outcome is not True:
            raise job.outcome

    def _drive(self, job):
        """Send it and read until it is answered, if that is all there is to do; else leave it to the thread."""
        link, end = self.link, job.begun + self.patience
        if link is None or link.blocked or link.asked or self.jobs:
            return
        if not link.knows(job.message) or not link.free():
            return  # to declare or to open a channel may take longer than patience
        if len(job.message.prepared["body"]) > MUCH:
            return  # so may writing it
        try:
            self._send_one(job)
            self._settle()  # it may be unfit, or what it needs be refused
            while self.link is link and job.answer is None and not link.blocked and not self.jobs:
                left = end - time.monotonic()
                if left <= 0:
                    break
                if link.pending() or link.poller.poll(min(left, DRIVE) * 1000):
                    try:
                        link.read(DRIVE)
                    except socket.timeout:
                        break  # half a frame: the thread waits for the rest
                    self._settle()
        except BROKEN + UNFIT as error:  # the latter of frames that can't be read
            self._lose(error)
        except BaseException as error:  # a time limit of the task's that publishes, in the midst of a frame maybe
            self._abandon(job, error)
            self._lose(error, trouble=False)
            raise
        if self.flying or self.jobs:
            self.wake()

    def _wait(self, job):
        self._hear(job, job.begun + self.patience - time.monotonic())
        if job.outcome is None and not job.keepable:
            self._hear(job, self.timeout)
        with self.lock:
            if job.outcome is None:
                self._troubled("no confirmation within %g s" % self.patience)
            if job.outcome is None:
                job.outcome = self._error(doubt=job.written)

    def _hear(self, job, seconds):
        """Wait for its outcome."""
        try:
            job.wait(seconds)
        except BaseException as error:  # a time limit of the task's that publishes
            self._abandon(job, error)
            raise

    def _abandon(self, job, error):
        """Its caller is gone, and nobody wants it kept."""
        with self.lock:
            self.putting.discard(job)
            job.outcome = error

    def _keep(self, job):
        """Put it into the spool, unless it has been answered since that was decided; it counts in `putting` until then."""
        kept = doubt = unsure = False
        why_not = ""
        try:
            with self.lock:
                answer, doubt = job.answer, job.link is not None and job.answer is None
            if answer is None or answer is LOST:
                job.message.check()  # here is nobody to refuse what can't be written
                if len(self.delivery.owed) >= DEBTS:
                    raise SpoolError("Redis has not answered for long")
                self.spool.put(job.message, doubt)
                kept = True
        except SpoolError as error:
            why_not, unsure = str(error), error.unsure
            self._undo(error)
        except BaseException as error:  # a time limit of the task's that publishes, or what can't be written
            self._undo(error)
            raise
        finally:
            with self.lock:
                answer = job.answer
                job.doubted = kept and doubt and answer is None
                if kept and doubt and answer is not None:  # before all may count as delivered
                    self._no_doubt(job)
                self.putting.discard(job)
                self.puts += kept
                self.state.kept += kept and not self.state.healthy
                self.look = 0.0
        if not kept and answer is not None and answer is not LOST:
            if answer is not True:
                raise answer
        elif not kept and not self._confirmed_after_all(job):
            self._say_unkept(why_not)
            raise self._error(why_not, unsure or job.written)

    def _say_unkept(self, why_not):
        """Once in a trouble: that tasks are kept was said when it began."""
        with self.lock:
            news, self.unkept = self.unkept != self.state.since, self.state.since
        if news:
            say("a task can't be kept, and is an error: %s" % why_not)

    def _undo(self, error):
        """Have what Redis may have kept taken out again, for whoever published it is told that it was not."""
        undo = getattr(error, "undo", None)
        if undo is not None:
            self.delivery.tell(*undo)
            self.wake()

    def _confirmed_after_all(self, job):
        """What can't be kept has `timeout` to be confirmed in, on a connection that lives; raises what it is refused with."""
        with self.lock:
            link = self.link
            # Twice: while the thread waits for Redis it takes in nothing.
            if link is None or link.blocked or link.silent(time.monotonic()) > 2 * self.patience or self.state.lasting:
                return False
            job.outcome, job.keepable = None, False
            job.again()
            if job.link is None or job.answer is LOST:  # not on its way any more
                job.link = job.answer = None
                self.jobs.append(job)
            elif job.answer is not None:
                job.outcome = job.answer
        if job.outcome is None:
            self.wake()
            self._hear(job, self.timeout)
        with self.lock:
            if job.outcome is None:
                job.outcome = KEEP  # nobody waits for it any more
                return False
        if job.outcome is not True:
            raise job.outcome
        return True

    def _error(self, why_not_kept="", doubt=False):
        """What a caller is told who is not told that all is well."""
        text = "the task was not confirmed: %s" % (self.state.cause or "no answer of the broker")
        if why_not_kept or self.why:
            text += "; it can't be kept: %s" % (why_not_kept or self.why)
        if doubt:
            text += "; it may have arrived all the same"
        return OperationalError(text)

    def start(self):
        """Have the thread run; False if none can be had, as when Python ends."""
        if self.thread is not None and self.thread.is_alive():
            return True
        with self.lock:
            if self.thread is None or not self.thread.is_alive():
                thread = threading.Thread(target=self._run, name="plane-webhook", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    return False
                self.thread = thread
        return True

    def _borrow(self, job):
        """Do the thread's work on the caller's, until the job is done."""
        while job.outcome is None and time.monotonic() < job.begun + self.patience:
            self._turn(job)

    def wake(self):
        """Have the thread look."""
        try:
            os.write(self.mouth, b".")
        except BlockingIOError:
            pass

    def leave(self):
        """Before the process ends: a broker that is well has time to confirm, and the rest is for others at once."""
        if self.delivery is None:
            return  # whoever waits here is told himself
        self.leaving = True
        end = time.monotonic() + LEAVES
        while self.io.acquire(timeout=max(end - time.monotonic(), 0)):
            link = self.link
            done = link is None or link.blocked or link.asked or not self.flying and not self.delivery.batch
            self.io.release()
            if done:
                break
            time.sleep(0.01)
        doubted = [job.message for job in list(self.flying) if job.doubted]
        if doubted or self.delivery.leads:
            self.delivery.tell(lambda _: (self.spool.lost(doubted), self.delivery.leave()), None)
        # The thread says it: where Python ends nothing limits how long it takes to resolve Redis' name, and Redis' client
        # has locks, which a signal may have interrupted this in.
        self.wake()
        end = time.monotonic() + LEAVES
        while self.delivery.owed and time.monotonic() < end:
            time.sleep(0.01)

    def forget(self):
        """In a process that was forked: leave everything to the one that it was forked from."""
        if self.link is not None:
            self.link.forget()
        os.close(self.ears)
        os.close(self.mouth)

    # ---- The thread

    def _run(self):
        self.own.lock.acquire()
        while True:
            try:
                self._turn()
            except Exception as error:  # a bug of ours: those who wait are let go, and it begins anew
                say("a bug in plane-webhook: %s" % name_of(error))
                with self.io:
                    self._lose(error)
                time.sleep(1)

    def _turn(self, job=None):
        """Do what there is to do, then wait for an answer, a caller, or the time of the next thing to do.

        For `job` only, where a caller does it: as long as that one has time, and not once it is done.
        """
        now = time.monotonic()
        if self.delivery is not None and self.state.healthy and not self.delivery.left and now >= self.look:
            self.look = now + LOOK
            if self.delivery.told():  # without `io`: a Redis that doesn't answer must not keep a healthy caller waiting
                self.delivery.look(now)
            else:
                self.look = now + 1
        with self.io:
            now = time.monotonic()
            self._take_link(now)
            if self.link is not None:
                self._read()
            if self.link is not None:
                self._watch(now)
            self._send()
            self._settle()
            if not self.state.healthy and now - self.told > TELL:
                self._tell(now)
            wait = min(self._deliver(now), self._connect(now), self._due(now))
            poll = select.poll()
            poll.register(self.ears, select.POLLIN)
            if self.link is not None:
                waits = self.flying or self.delivery and self.delivery.batch or not self.state.healthy
                # Of one that is well and owes nothing it wants to hear the end only: each answer would wake it too.
                poll.register(self.link, select.POLLIN if waits else select.POLLRDHUP)
                wait = 0 if waits and self.link.pending() else wait
            if job is not None:
                wait = 0 if job.outcome is not None else min(wait, job.begun + self.patience - now)
        if self.ears in {number for number, _ in poll.poll(max(wait, 0) * 1000)}:
            try:
                os.read(self.ears, 4096)
            except BlockingIOError:  # another caller, who borrows the thread's work too, has heard it
                pass

    def _silent(self, now):
        """Whether the connection may be dead: then another one is tried, and if that is made, this one is."""
        return self.link.silent(now) > self.patience

    def _take_link(self, now):
        link, error, for_ever = self.connector.take()
        if link is not None and self.link is not None and self._silent(now):
            self._lose("no answer for %.1f s on a connection, and one on another" % self.link.silent(now))
        if link is not None and self.link is not None:
            link.drop()
        elif link is not None:
            self.link = link
        elif error is not None and self.link is None:
            with self.lock:
                self._troubled(name_of(error), for_ever, error)

    def _watch(self, now):
        """What the link tells of the broker."""
        link = self.link
        try:
            link.beat()
            owes = link.owes()
            if link.blocked:
                with self.lock:
                    self._troubled("an alarm of the broker blocks publishers")
            elif owes is None or now - owes < self.patience:
                link.answered()
                with self.lock:
                    self.state.connected(now)
                    if self.spool is None or self.state.draining(now) > ORDER:
                        self._recovered()
            elif link.silent(now) > 3 * self.timeout:
                self._lose("no answer within %g s" % (3 * self.timeout))
            elif now - owes > OWED:
                self._lose("no confirmation within %g s on a connection that lives" % OWED)
            else:
                with self.lock:
                    self._troubled("no confirmation within %g s" % self.patience)
                link.ask(now)
        except Exception as error:
            self._lose(error)

    def _send(self):
        """Send what callers have brought."""
        while self.link is not None and not self.link.blocked:
            with self.lock:
                job = self.jobs.popleft() if self.jobs else None
            if job is None:
                return
            try:
                self._send_one(job)
            except Exception as error:
                self._lose(error)

    def _send_one(self, job):
        link = self.link
        with self.lock:
            if job.outcome is not None:
                return
            job.link, job.sent, job.answer = link, None, None
            self.flying.append(job)
        before, job.written = job.written, True  # from now on, for its caller may look at any time
        try:
            job.sent = link.send(job.message)
            job.written = before or job.sent.outcome is None
        except (InvalidCommand, AMQPNotImplementedError) as error:  # to be had for an exchange of an unknown type, say
            self._answer(job, error)
            raise

    def _read(self):
        """Take in what has come."""
        try:
            while self.link.pending() or self.link.poller.poll(0):
                self.link.read(self.timeout)
        except Exception as error:
            self._lose(error)

    def _settle(self):
        """Tell callers what became of their messages."""
        for job in [job for job in self.flying if job.sent is not None and job.sent.outcome is not None]:
            if job.sent is None:  # the link was lost meanwhile, and it was answered with that
                continue
            outcome = job.sent.outcome
            if self.link is not None and outcome is not True and job.sent.may_be_declared_anew():
                try:
                    self.link.send_again(job.sent)
                except Exception as error:
                    self._lose(error)
                continue
            if for_now(outcome):
                job.written = False
                nacked = isinstance(outcome, MessageNacked)
                with self.lock:
                    self._troubled("a queue refuses tasks, as one does that is full" if nacked else name_of(outcome))
                outcome = LOST if job.keepable else outcome
            self._answer(job, LOST if isinstance(outcome, Unanswered) else outcome)

    def _answer(self, job, answer):
        """What was sent has been answered, or can't be any more."""
        with self.lock:
            self.flying.remove(job)
            job.answer, job.sent = answer, None
            if answer is True and self.delivery is not None:
                self.delivery.confirmed(job.message)
            doubted, job.doubted = job.doubted, False
            if job.outcome is None and answer is LOST and job.retry and (self.state.healthy or not job.keepable):
                job.link = None
                self.jobs.append(job)  # goes again
                return
            if job.outcome is None and answer is LOST and job.keepable:
                self._to_be_kept(job)
            elif job.outcome is None:
                job.outcome = self._error(doubt=job.written) if answer is LOST else answer
        job.done()
        if doubted:
            self._no_doubt(job)

    def _no_doubt(self, job):
        """What was kept as doubtful is so no more: delivered, or to be sent again (and refused again, then set aside)."""
        self.delivery.tell(self.spool.sure if job.answer is True else self.spool.lost, [job.message])
        self.look = 0.0
        self.wake()

    def _lose(self, error, trouble=True):
        """The link is gone; `error`: why, as an exception or as text. `trouble`: by no doing of ours."""
        link, self.link = self.link, None
        if link is None:
            return
        link.drop()
        if time.monotonic() - link.since > LIVED:
            self.connector.begin_anew()
        for job in [job for job in self.flying if job.link is link]:
            if job.sent is not None and job.sent.outcome is True:  # its confirmation was the last to come
                self._answer(job, True)
        lost = [job for job in self.flying if job.link is link]
        noticed = lost or self.delivery is not None and self.delivery.batch
        if trouble and noticed:
            with self.lock:
                self._troubled(error if isinstance(error, str) else name_of(error))
        if self.delivery is not None:
            self.delivery.lost(error, link.proven())
        for job in reversed(lost):  # what was doubtful goes first, and the first of it foremost
            self._answer(job, LOST)

    def _connect(self, now):
        """Have a link made if one is wanted; returns when to ask again."""
        if self.link is not None:
            return self.connector.attempt(now) - now if self._silent(now) else LOOK
        with self.lock:
            wanted = bool(self.jobs) or not self.state.healthy
        if wanted or self.delivery is not None and self.delivery.left:
            return self.connector.attempt(now) - now
        return LOOK

    def _deliver(self, now):
        """Deliver what is in the spool, if it is time to; returns when to ask again."""
        if self.delivery is None:
            return LOOK
        with self.lock:
            healthy, puts = self.state.healthy, self.puts
            doubts = any(job.doubted for job in self.flying)
            unsure = any(job.outcome is KEEP for job in self.flying)
        if doubts and now - self.lived > LIVES / 5:
            self.lived = now
            try:
                self.spool.live()
            except SpoolError:
                self.lived = 0.0
        if healthy and not self.delivery.left and not self.leaving:
            return max(self.look - now, 0)
        # Until what was sent before is answered nothing follows it: on another channel that would overtake it.
        waits = not healthy if self.link is None else self.link.blocked or self.link.asked or unsure
        if (waits or self.leaving) and not self.delivery.batch:
            return (1.0 if doubts else LOOK) if self.delivery.told() else 1.0
        if self.link is None:  # nobody publishes here: look whether there is a reason to connect
            return self.delivery.look(now)
        try:
            wait = self.delivery.step(self.link, now)
        except Exception as error:
            self._lose(error)
            return 0
        if not healthy and not self.delivery.batch and not doubts:
            if self.delivery.left == 0 or self.delivery.unreachable:
                with self.lock:
                    over = not self.putting and self.puts == puts
                    if over:
                        self._recovered()
                if not over:  # what has been put since that look must not be overtaken
                    self.delivery.left = None
                    self.delivery.rest = min(self.delivery.rest, now + AGAIN)
                    return AGAIN
        return wait

    def _due(self, now):
        """When the link has to be watched again."""
        if self.link is None:
            return LOOK
        owes = self.link.owes()
        since = self.link.asked[0] if self.link.asked else owes
        if since is None or self.link.blocked or since + self.patience < now:
            return BEAT
        return since + self.patience - now

    # ---- Both sides, with the lock

    def _troubled(self, cause, for_ever=False, error=None):
        """Note it, say it if it is news, and let go of those who wait."""
        now = time.monotonic()
        if self.state.trouble(now, cause, for_ever):
            if self.spool is None:
                then = "tasks can't be kept: %s" % self.why
            elif for_ever:
                then = "time doesn't heal that, so tasks are errors until it is mended"
            elif not self.retries:
                then = "tasks are errors until it is over, for they are published with retry=False"
            else:
                then = "tasks are kept until it is over"
            say("the broker is in trouble: %s; %s" % (cause, then))
            notes.sweep()
            self._tell(now)
            self.wake()
        for job in list(self.jobs) + self.flying:
            if job.outcome is not None:
                continue
            if for_ever or not job.retry:
                job.outcome = self._error(doubt=job.written)
                job.outcome.__cause__ = error
            elif job.keepable:
                self._to_be_kept(job)
            elif error is not None and now > job.begun + self.patience:
                job.outcome = self._error(doubt=job.written)  # it has waited, and no connection can be made
            else:
                continue  # it has some seconds yet
            job.done()
        self.jobs = deque(job for job in self.jobs if job.outcome is None)

    def _to_be_kept(self, job):
        job.outcome = KEEP
        self.putting.add(job)  # until its caller has put it into the spool

    def _recovered(self):
        now = time.monotonic()
        over = self.state.over(now)
        if over is not None:
            lasted, kept, drained = over
            said = "the broker is well again after %.1f s; this process had kept %d tasks" % (lasted, kept)
            if self.delivery is not None and self.delivery.unreachable:
                said += ". What is still kept comes when the spool can be reached again"
            elif drained > ORDER and self.delivery is not None and self.delivery.left != 0:
                said += ". Some are still kept, after %g s of delivering: what comes now doesn't wait for them" % ORDER
            say(said)
            notes.clear()

    def _tell(self, now):
        """Leave the state where `proof` finds it."""
        self.told = now
        notes.leave(dict(self.state.says(now), at=round(time.time(), 1)))
