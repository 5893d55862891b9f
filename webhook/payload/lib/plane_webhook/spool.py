"""Where tasks are kept while the broker is in trouble: Plane's own Redis, so they outlive process, container and pod.

In a database of its own there, for Plane's API empties its cache, which is the whole of its database, each time it starts.
What is kept is encrypted and signed by SECRET_KEY: who can read or write that Redis can neither read a task nor make
Plane run one of his own (he can delete what is kept, or have it run again). One process at a time delivers: see `lease`.

    queue   list: what waits, in the order in which it has to go
    doubt   hash: what was sent and not confirmed, by who sent it, as long as that one lives and waits for the answer
    aside   list: what the broker refused for a reason that time doesn't heal
    bytes   number: the size of all that is in the three
"""

import base64
import hashlib
import os
import queue
import socket
import threading
import time

from amqp.serialization import dumps, loads

try:
    from cryptography.fernet import Fernet, InvalidToken
    from redis import BlockingConnectionPool, BusyLoadingError, ConnectionError, Redis, RedisError, TimeoutError
    from redis.connection import parse_url
except ImportError:  # Plane's image has both
    Fernet = None

from . import here, name_of, say
from .message import Message, octets

DATABASE = 15  # the last one of a Redis as it comes; Plane uses 0
WAIT = 0.5  # seconds for Redis to answer: a request waits for it, and has to be done within `patience` all the same
LEASE = 5.0  # seconds that the right to deliver lasts without being renewed: what a killed process leaves behind
LIVES = 10.0  # seconds, at least, that a process counts as alive after its last word
IDLE = 5.0  # seconds after which a connection to Redis is not used again: it may have died without a word
# What a REDIS_URL may say of the client's waiting and reading is meant for Plane's cache, not for this.
OURS = dict(
    db=DATABASE,
    max_connections=32,
    timeout=WAIT,
    socket_timeout=WAIT,
    socket_connect_timeout=WAIT,
    retry_on_timeout=False,
    retry_on_error=[],
    decode_responses=False,
)
FEW = 8  # entries that Redis takes out at a time: nobody else, Plane's cache too, is served meanwhile
LARGE = 1 << 20  # bytes of the entries that are fetched at a time: of larger ones there are fewer
DENIED = 1.0  # seconds in which nobody asks a Redis again that did not answer

# KEYS: queue, doubt, aside, bytes. ARGV: entry, most tasks, most bytes, who doubts (empty: goes to the end of the queue)
PUT = """
local tasks = redis.call('LLEN', KEYS[1]) + redis.call('HLEN', KEYS[2]) + redis.call('LLEN', KEYS[3])
if tasks == 0 then redis.call('SET', KEYS[4], 0) end
local bytes = tonumber(redis.call('GET', KEYS[4]) or '0')
if tasks >= tonumber(ARGV[2]) or bytes + #ARGV[1] > tonumber(ARGV[3]) then return {0, tasks, bytes} end
if ARGV[4] == '' then redis.call('RPUSH', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[2], ARGV[4], ARGV[1]) end
redis.call('INCRBY', KEYS[4], #ARGV[1])
return {1, tasks + 1, bytes + #ARGV[1]}
"""
# KEYS: queue. ARGV: from where, how many, and bytes behind which there are no more. It takes FEW at a time, too
FIRST = """
local found, bytes, stop = {}, 0, ARGV[1] + ARGV[2] - 1
for from = tonumber(ARGV[1]), stop, 8 do
    for _, entry in ipairs(redis.call('LRANGE', KEYS[1], from, math.min(from + 7, stop))) do
        if bytes > tonumber(ARGV[3]) then return found end
        found[#found + 1], bytes = entry, bytes + #entry
    end
end
return found
"""
# KEYS: queue, bytes. ARGV: entries that were delivered
DONE = """
for _, entry in ipairs(ARGV) do
    if redis.call('LREM', KEYS[1], 1, entry) == 1 then redis.call('DECRBY', KEYS[2], #entry) end
end
"""
# KEYS: queue, aside, bytes. ARGV: the entry, what becomes of it
ASIDE = """
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 1 then
    redis.call('RPUSH', KEYS[2], ARGV[2])
    redis.call('INCRBY', KEYS[3], #ARGV[2] - #ARGV[1])
end
"""
# KEYS: doubt, bytes. ARGV: who
SURE = """
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if entry then redis.call('HDEL', KEYS[1], ARGV[1]); redis.call('DECRBY', KEYS[2], #entry) end
"""
# KEYS: doubt, queue. ARGV: who doubts, the last one first
LOST = """
for _, field in ipairs(ARGV) do
    local entry = redis.call('HGET', KEYS[1], field)
    if entry then redis.call('HDEL', KEYS[1], field); redis.call('LPUSH', KEYS[2], entry) end
end
"""
# KEYS: aside, queue
RETRY = """
local moved = 0
while true do
    local entry = redis.call('LPOP', KEYS[1])
    if not entry then return moved end
    redis.call('RPUSH', KEYS[2], entry)
    moved = moved + 1
end
"""
# KEYS: lease. ARGV: who, milliseconds
HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
# The same of a sign of life. A Redis that is full refuses a script's SET unless another write went before it.
LIVE = """
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
"""
LET_GO = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class SpoolError(Exception):
    """The spool can't take or give a task; the text says why. `unsure`: Redis may have done it all the same."""

    def __init__(self, text, unsure=False):
        super().__init__(text)
        self.unsure = unsure


class Names:
    """Asks for the address of a host on a thread of its own, one at a time: that has no limit, and a request waits for it.

    `epoch` counts the failures: a connection from before one is not used again, for it may lead to who is master no more.
    """

    def __init__(self):
        self.lock, self.asking, self.epoch = threading.Lock(), None, 0

    def limited(self, kind):
        """A class of connections like `kind` that connect only to what a name server has just known."""
        names = self

        class Limited(kind):
            used, epoch = 0.0, 0

            def __init__(self, *arguments, **options):
                super().__init__(*arguments, **options)
                self.socket_timeout = WAIT  # which redis-py 5.0 forgets for a socket with a path

            def connect(self):
                """The pool calls this each time that it hands one out."""
                last, self.used = self.used, time.monotonic()
                if self.used - last > IDLE or self.epoch != names.epoch:
                    self.disconnect()
                self.epoch = names.epoch
                try:
                    # `_sock`: no public name tells whether it is connected. A socket's path has no host.
                    if getattr(self, "host", None) and not getattr(self, "_sock", None):
                        names.ask(self.host, self.port)
                    return super().connect()
                except Exception as error:
                    error.unasked = True
                    raise

        return Limited

    def ask(self, host, port):
        """Return when the host's address is known or can't be; raises redis's ConnectionError after WAIT seconds."""
        with self.lock:
            asking = self.asking
            if asking is None or not asking.is_alive():
                asking = self.asking = threading.Thread(target=_resolve, args=(host, port), daemon=True)
                try:
                    asking.start()
                except RuntimeError:  # none can be had, as when Python ends
                    return
        asking.join(WAIT)
        if asking.is_alive():
            raise ConnectionError("no name server says within %g s where %s is" % (WAIT, host))


def _resolve(host, port):
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        pass  # whoever connects is told


class Entry:
    """A message that is kept. `token`: what Redis has of it."""

    def __init__(self, token, message, since, reason=""):
        self.token, self.message, self.since, self.reason = token, message, since, reason


class Spool:
    """The tasks of one Plane. Its methods raise SpoolError; they may be called from any thread."""

    def __init__(self, url, secret, tasks, size, timeout=0.0):
        """`url` of Plane's Redis, Plane's SECRET_KEY, the most tasks and the most bytes. Raises SpoolError.

        `timeout`: seconds that a process may wait for the broker and say nothing here meanwhile.
        """
        if Fernet is None:
            raise SpoolError("Plane's image lacks cryptography or redis")
        if not url:
            raise SpoolError("Plane's settings name no REDIS_URL")
        if not secret or secret != os.environ.get("SECRET_KEY"):
            raise SpoolError("SECRET_KEY is not in the environment: each process has another one")
        key = hashlib.sha256(b"plane-webhook spool\0" + secret.encode()).digest()
        self.cipher = Fernet(base64.urlsafe_b64encode(key))
        prefix = "plane-webhook:{%s}:" % hashlib.sha256(b"name\0" + key).hexdigest()[:16]
        names = ("queue", "doubt", "aside", "bytes", "lease")
        self.queue, self.doubt, self.aside, self.bytes, self.lease = [prefix + name for name in names]
        self.alive = prefix + "alive:"
        options = {"ssl_cert_reqs": None} if url.startswith("rediss:") else {}  # as Plane's own client has it
        try:
            options.update(parse_url(url))
        except ValueError as error:
            raise SpoolError("REDIS_URL can't be used: %s" % type(error).__name__)
        pool = BlockingConnectionPool(**dict(options, **OURS))
        self.names = Names()
        pool.connection_class = self.names.limited(pool.connection_class)
        self.redis, self.tasks, self.size = Redis(connection_pool=pool), tasks, size
        self.denied, self.why = 0.0, ""
        self.lives = max(LIVES, 2 * timeout)
        self.me = "%s:%s" % (here(), os.urandom(4).hex())

    def put(self, message, doubt=False):
        """Keep a message; with `doubt` as one that was sent and may yet be confirmed.

        What it raises has `undo` where Redis may have it all the same: what to do with what, to have it out again.
        """
        now = time.time()
        token = self._seal(message, now)
        field = self._field(message) if doubt else ""
        if doubt:
            self.live()
        keys = (self.queue, self.doubt, self.aside, self.bytes)
        try:
            taken, tasks, size = self._do(PUT, keys, token, self.tasks, self.size, field)
        except BaseException as error:  # a time limit of the task's that publishes, too
            if getattr(error, "unsure", True):
                error.undo = (self.sure, [message]) if doubt else (self.done, [token])
            raise
        if not taken:
            raise SpoolError("it is full: %d tasks, %d bytes" % (tasks, size))

    def waiting(self):
        """How many wait to be delivered, and how many are doubtful."""
        return self._call(lambda redis: (redis.llen(self.queue), redis.hlen(self.doubt)))

    def first(self, start, count):
        """Entries from `start` on, at most `count`. Unsigned ones go, those that can't be read are set aside; both are said."""
        while True:
            tokens = self._do(FIRST, (self.queue,), start, count, LARGE)
            entries = [entry for entry in map(self._read, tokens) if entry is not None]
            if entries or not tokens:
                return entries

    def _read(self, token):
        try:
            return self._open(token)
        except InvalidToken:
            self.done([token])
            say("an entry of the spool that this Plane did not sign was removed")
        except Exception as error:  # of another version of kombu's, say
            self._do(ASIDE, (self.queue, self.aside, self.bytes), token, token)
            say("an entry of the spool that can't be read was set aside: %s" % name_of(error))

    def done(self, tokens):
        """These have been delivered. A few at a time: behind a long backlog Redis looks for each for milliseconds."""
        for at in range(0, len(tokens), FEW):
            self._do(DONE, (self.queue, self.bytes), *tokens[at : at + FEW])

    def set_aside(self, entry, reason):
        """The broker refused this one for good."""
        token = self._seal(entry.message, entry.since, reason)
        self._do(ASIDE, (self.queue, self.aside, self.bytes), entry.token, token)

    def retry(self):
        """Have what was set aside tried again, after what waits; returns how many that is."""
        return self._do(RETRY, (self.aside, self.queue))

    def sure(self, messages):
        """Doubtful ones have been confirmed."""
        for message in messages:
            self._do(SURE, (self.doubt, self.bytes), self._field(message))

    def lost(self, messages):
        """Of doubtful ones, in the order in which they were sent, no confirmation can come any more: they go first."""
        self._do(LOST, (self.doubt, self.queue), *[self._field(message) for message in reversed(messages)])

    def live(self):
        """Say that this process lives, and still waits for what it doubts."""
        self._do(LIVE, (self.alive + self.me,), 1, int(self.lives * 1000))

    def adopt(self):
        """What processes doubted that live no more goes first."""
        doubts = self._call(lambda redis: redis.hgetall(self.doubt))
        owners = {field.split(b"|")[0].decode() for field in doubts}
        dead = [one.encode() for one in owners if not self._call(lambda redis: redis.exists(self.alive + one))]
        left = [(self._since(token), field) for field, token in doubts.items() if field.split(b"|")[0] in dead]
        if left:
            self._do(LOST, (self.doubt, self.queue), *[field for _, field in sorted(left, reverse=True)])

    def hold(self, more=0.0):
        """Take or renew the right to deliver, `more` seconds longer than usual; False if another process has it."""
        return bool(self._do(HOLD, (self.lease,), self.me, int((LEASE + more) * 1000)))

    def let_go(self):
        """Leave the right to deliver to others."""
        self._do(LET_GO, (self.lease,), self.me)

    def says(self):
        """What is kept, for people: a dict of plain values. What was set aside is named, without its arguments."""

        def ask(redis):
            pipeline = redis.pipeline()
            pipeline.llen(self.queue), pipeline.hlen(self.doubt), pipeline.get(self.bytes)
            pipeline.lindex(self.queue, 0), pipeline.lrange(self.aside, 0, -1)
            return pipeline.execute()

        waiting, doubtful, size, oldest, aside = self._call(ask)
        first = self._look(oldest) if oldest else None
        return {
            "waiting": waiting,
            "sent and not confirmed": doubtful,
            "bytes": int(size or 0),
            "oldest, seconds": round(time.time() - first.since, 1) if first else None,
            "set aside": [
                "%s: %s" % (entry.message, entry.reason) if entry else "one that can't be read here"
                for entry in map(self._look, aside)
            ],
        }

    def _look(self, token):
        """The entry, for people; None if it can't be read."""
        try:
            return self._open(token)
        except Exception:
            return None

    def _since(self, token):
        entry = self._look(token)
        return entry.since if entry else 0.0

    def _field(self, message):
        return "%s|%s|%d" % (self.me, message.id, id(message))  # a task that is tried again has the same id

    def _seal(self, message, since, reason=""):
        return self.cipher.encrypt(dumps("F", [{"message": message.dump(), "since": since, "reason": reason}]))

    def _open(self, token):
        fields = loads("F", self.cipher.decrypt(token), 0)[0][0]
        return Entry(token, Message.load(octets(fields["message"])), fields["since"], fields["reason"])

    def _do(self, script, keys, *arguments):
        return self._call(lambda redis: redis.eval(script, len(keys), *keys, *arguments))

    def _call(self, deed):
        """Nothing is asked of a Redis that has just not answered: whoever is in a request would wait for it."""
        if time.monotonic() < self.denied:
            raise SpoolError(self.why)
        try:
            return deed(self.redis)
        except (RedisError, OSError) as error:
            if isinstance(error.__context__, queue.Empty):  # all connections are in use: no word about Redis
                raise SpoolError("Redis: " + name_of(error))
            self.denied, self.why = time.monotonic() + DENIED, "Redis: " + name_of(error)
            self.names.epoch += 1
            # Any other kind is an answer: that Redis did not do it.
            silent = isinstance(error, (ConnectionError, TimeoutError, OSError))
            silent = silent and not isinstance(error, BusyLoadingError) and not hasattr(error, "unasked")
            raise SpoolError(self.why, unsure=silent)
