"""Django settings: Plane's own, with what plane-webhook was asked to change. Python 3.8 and newer.

As a program it tells the shim whether that can be: the last line is `plane-webhook-add` and the arguments to add or, with
exit code 1, why not. As settings it may not raise for a reason of ours. It never shows a value that could be secret.
Django takes upper-case names for settings, so nothing of ours has one.
"""

import os
import sys

library = os.path.dirname(os.path.abspath(__file__))
limits = ("GUNICORN_MAX_REQUESTS", "GUNICORN_MAX_REQUESTS_JITTER")
switches = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def say(text):
    sys.stderr.write("plane-webhook: " + text + "\n")
    sys.stderr.flush()


def decode(text):
    """json.loads without the json module: its import (of re, mostly) would be a third of what we add to a start."""
    try:
        from _json import make_scanner

        class plain:
            strict, memo, object_hook, object_pairs_hook, parse_constant = True, {}, None, None, None
            parse_float, parse_int = float, int

        scan = make_scanner(plain)
    except Exception:  # a Python that has none, or one that wants more
        from json import loads

        return loads(text)
    try:
        value, end = scan(text.strip(), 0)
    except StopIteration:
        raise ValueError("no JSON")
    if end != len(text.strip()):
        raise ValueError("more than one value")
    return value


def asked():
    """settings.json, if its values have the types that Celery and gunicorn want."""
    try:
        with open(os.path.join(os.path.dirname(library), "settings.json"), encoding="utf-8") as file:
            settings = decode(file.read())
        publish = settings["publish"]
        retry = [publish["retry"][name] for name in ("max_retries", "interval_start", "interval_step", "interval_max")]
        texts = [settings[name] for name in ("version", "digest", "precedence")] + list(settings["env"].values())
        found = [settings["kept"], publish["confirm"], publish["mandatory"], publish["timeout"], publish["deadline"]]
        found += retry + texts
        for value, kind in zip(found, [list, bool, bool] + [(int, float)] * 6 + [str] * len(texts)):
            if not isinstance(value, kind) or kind == (int, float) and isinstance(value, bool):
                raise TypeError("a value of a wrong type")
    except Exception as error:
        raise ValueError("settings.json can't be used: %s: %s" % (type(error).__name__, error))
    return settings


def read(environ, wanted):
    """The variables' values as Python, and the sentences about those that can't be used."""
    values, problems = {}, []
    for name, default in wanted.items():
        text = environ.get(name, default).strip().lower()
        if name == "CELERY_TASK_PUBLISH_RETRY":
            if text in switches:
                values[name] = switches[text]
            else:
                problems.append(name + " is neither true nor false")
        elif text.isdecimal() and text.isascii() and len(text) < 10:
            values[name] = int(text)
        else:
            problems.append(name + " is not a whole number of 0 or more")
    if any(name in wanted and name not in values for name in limits):  # one alone would mean something else
        for name in limits:
            values.pop(name, None)
    return values, problems


def overrides(base, values, publish):
    """The Django settings to set over `base` (dict), and the sentences about what is amiss."""
    new = {name: values[name] for name in ("CELERY_TASK_PUBLISH_RETRY", "CELERY_BROKER_POOL_LIMIT") if name in values}
    new["CELERY_TASK_PUBLISH_RETRY_POLICY"] = dict(publish["retry"])
    new["CELERY_BROKER_CONNECTION_TIMEOUT"] = publish["timeout"]
    problems = []
    try:
        options = dict(base.get("CELERY_BROKER_TRANSPORT_OPTIONS") or {})
    except (TypeError, ValueError):  # Celery, which takes its dict() when it connects, couldn't use it either
        options = {}
        problems.append("CELERY_BROKER_TRANSPORT_OPTIONS of Plane's settings is not a dict and is left out")
    options.update(
        confirm_publish=publish["confirm"], read_timeout=publish["timeout"], write_timeout=publish["timeout"]
    )
    # A process that has not been connected yet tries as long as one that was.
    options.update(publish["retry"], connect_retries_timeout=publish["deadline"])
    new["CELERY_BROKER_TRANSPORT_OPTIONS"] = options
    url = base.get("CELERY_BROKER_WRITE_URL") or base.get("CELERY_BROKER_URL") or "amqp:"
    if not str(url[0] if isinstance(url, (list, tuple)) else url).startswith(("amqp", "pyamqp")):
        problems.append("NOT IN EFFECT: the broker is not AMQP: there are no publisher confirms and no timeouts")
    return new, problems


def demand_route(properties=None, **_):
    """Each task's message has to reach a queue; send_task(name) too, which no task annotation reaches."""
    properties["mandatory"] = True


def bound(deadline, timeout):
    """Give every publish of this process `deadline` seconds, and believe no acknowledgement but its own.

    Kombu's retries nest in each other, the resolver knows no timeout, and a peer that sends a byte a second meets none.
    What has taken too long is an OperationalError, which neither kombu nor Celery tries again.
    """
    import socket
    import ssl
    import threading
    import time

    from amqp import Channel, spec
    from amqp.exceptions import ChannelError, MessageNacked
    from amqp.transport import SSLTransport, TCPTransport
    from celery.app.amqp import AMQP
    from kombu import Producer
    from kombu.exceptions import EncodeError, LimitExceeded, OperationalError
    from kombu.pools import ProducerPool
    from kombu.transport.pyamqp import Transport

    if hasattr(Producer.publish, "plane_webhook"):  # this module may be imported twice
        return
    its = threading.local()  # .end: when the publish that this thread is in has to be over; .connects: how often it did
    publish, acquire, connect = Producer.publish, ProducerPool.acquire, Transport.establish_connection

    def left():
        end = getattr(its, "end", None)
        return None if end is None else end - time.monotonic()

    def late(doing):
        return OperationalError("the task was not confirmed within %g s: %s" % (deadline, doing))

    def publish_in_time(self, *args, **kwargs):
        if left() is not None:  # within another one
            return publish(self, *args, **kwargs)
        policy = kwargs.get("retry") and kwargs.get("retry_policy") or {}
        most, pause = policy.get("max_retries", 0), policy.get("interval_start", 1)
        pooled = "release" in vars(self)
        try:
            its.end, its.connects = time.monotonic() + deadline, 0
            while True:
                try:
                    return publish(self, *args, **kwargs)
                except BaseException as error:
                    # The stream may be out of step, and the next publish would wait for the peer once more. Collected and
                    # not closed, for closing waits for it too. Of what is not the pool's: beat's and the like, but no
                    # messages of other kinds, whose connections others may consume on.
                    kept = isinstance(error, (ChannelError, EncodeError)) or "task" not in (kwargs.get("headers") or {})
                    if self.__connection__ is not None and (pooled or not kept):
                        self.__connection__.collect()
                        self.revive(self.__connection__)
                    # Kombu tries again to connect and to publish, but not to open the channel in between, which is where
                    # a broker that starts hangs up.
                    spent = most is not None and its.connects >= most
                    if not isinstance(error, OperationalError) or spent or left() <= pause:
                        raise
                time.sleep(pause)
        finally:
            its.end = None

    def publish_confirmed(self, *args, **kwargs):
        """As py-amqp's, which takes any answer on the channel for the one to this message: a late one too."""
        wait = kwargs.pop("confirm_timeout", None) or kwargs.get("timeout")
        if not hasattr(self, "plane_webhook_sent"):
            self.confirm_select()
            self.plane_webhook_sent = 0
        result = self._basic_publish(*args, **kwargs)
        self.plane_webhook_sent += 1
        number, answers = self.plane_webhook_sent, []

        def answered(method, tag, multiple):
            if tag == number or multiple and tag > number:
                answers.append(method)

        while not answers:
            self.wait([spec.Basic.Ack, spec.Basic.Nack], callback=answered, timeout=wait)
        if answers[0] == spec.Basic.Nack:
            raise MessageNacked()
        return result

    def set_up(self):
        """As kombu's, which Celery calls twice: with twice the producers, half of them wait for a connection for ever."""
        while self.limit and len(self._resource.queue) < self.limit - len(self._dirty):
            self._resource.put_nowait(self.new())

    def acquire_in_time(self, block=False, timeout=None):
        if not block or timeout is not None:
            return acquire(self, block, timeout)
        try:
            return acquire(self, block, deadline)
        except LimitExceeded:
            raise OperationalError("all %s connections to the broker were in use for %g s" % (self.limit, deadline))

    def connect_in_time(self):
        """On a thread of its own: name resolution and handshakes can't be ended from within."""
        time_left = left()
        if time_left is None:  # beat connects before its first publish
            return connect(self)
        its.connects += 1
        end, made, given_up, lock = its.end, [], [], threading.Lock()

        def run():
            its.end = end
            try:
                result = connect(self), None
            except BaseException as error:
                result = None, error
            with lock:
                made.append(result)
                if given_up and result[0] is not None:
                    result[0].collect()

        thread = threading.Thread(target=run, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # none can be had, as when Python ends
            return connect(self)
        try:
            thread.join(max(time_left, 0))
            with lock:
                if not made:
                    raise late("connecting")
        except BaseException:  # a time limit of the task's too
            with lock:
                given_up.append(True)
                if made and made[0][0] is not None:
                    made[0][0].collect()
            raise
        if made[0][1] is not None:
            raise made[0][1]
        return made[0][0]

    def watched(open_wire):
        def inner(self):
            open_wire(self)
            for name, most in (("_quick_recv", timeout), ("_write", deadline)):
                if hasattr(self, name):  # py-amqp's own name for it since 2.0; without it the timeouts still hold
                    setattr(self, name, in_time(getattr(self, name), self.sock, most))

        return inner

    def in_time(call, sock, most):
        def inner(argument):
            time_left, before = left(), sock.gettimeout()
            if time_left is None:
                return call(argument)
            if time_left <= 0:
                raise late("waiting for the broker")
            if before != 0:  # with 0, py-amqp looks whether there is anything to read
                sock.settimeout(min(time_left, most))
            try:
                return call(argument)
            except (BlockingIOError, ssl.SSLWantReadError):  # py-amqp asks again at once, within a frame for ever
                raise socket.timeout("no bytes yet")
            finally:
                if before != 0:
                    sock.settimeout(before)

        return inner

    def part(say_goodbye):
        def inner(self):
            if self.sock is not None:
                self.sock.settimeout(0.1)  # TLS would wait for the peer's
            say_goodbye(self)

        return inner

    if hasattr(AMQP, "_retry_publish"):
        # Celery 5.7 tries what a worker publishes for a chain again itself, each try as long as a whole deadline.
        AMQP._retry_publish = lambda self, publish, *args, **kwargs: publish(*args, **kwargs)
    if hasattr(SSLTransport, "_shutdown_transport"):
        SSLTransport._shutdown_transport = part(SSLTransport._shutdown_transport)
    for kind in (TCPTransport, SSLTransport):
        kind.connect = watched(kind.connect)
    publish_in_time.plane_webhook = True
    Producer.publish, ProducerPool.acquire, ProducerPool.setup = publish_in_time, acquire_in_time, set_up
    Transport.establish_connection, Channel.basic_publish_confirm = connect_in_time, publish_confirmed


def overlay():
    """Everything upper-case of Plane's settings module, then the overrides."""
    import importlib

    name = os.environ.get("PLANE_WEBHOOK_BASE_SETTINGS") or "plane.settings.production"
    package = name.partition(".")[0]
    if package != name and package not in sys.modules:
        # Settings are wanted before Plane's package is imported (tracing agents do that). Its import wants them too, and
        # needs them whole: from another copy of this module.
        this = sys.modules.pop(__name__)
        importlib.import_module(package)
        sys.modules[__name__] = this
    # plane.celery reads the settings while Plane's settings module is being imported: until that is done,
    # the variable has to name Plane's own module, or Python would meet this one half made.
    os.environ["DJANGO_SETTINGS_MODULE"] = name
    try:
        module = importlib.import_module(name)
    finally:
        os.environ["DJANGO_SETTINGS_MODULE"] = __name__
    base = {key: value for key, value in vars(module).items() if key.isupper()}
    new, problems = {}, []
    try:
        settings = asked()
        new, problems = overrides(base, read(os.environ, settings["env"])[0], settings["publish"])
        bound(settings["publish"]["deadline"], settings["publish"]["timeout"])
        if settings["publish"]["mandatory"]:
            from celery.signals import before_task_publish

            before_task_publish.connect(demand_route, weak=False, dispatch_uid="plane-webhook")
    except Exception as error:  # ours must not keep Plane from starting
        where = error.__traceback__.tb_lineno
        problems.append("NOT IN EFFECT: %s in line %d of the overlay" % (type(error).__name__, where))
    for problem in problems:
        say(problem)
    return dict(base, **new)


def check(program):
    """The lines for the log and the arguments to add. Raises ValueError with the reason why it can't be in effect."""
    if sys.version_info < (3, 8):
        raise ValueError("its Python is older than 3.8")
    if sys.flags.ignore_environment or os.environ.get("PYTHONPATH", "").split(os.pathsep)[-1] != library:
        raise ValueError("its Python does not take the environment that it is given")
    if not (os.environ.get("AMQP_URL") or "amqp:").startswith(("amqp", "pyamqp")):
        raise ValueError("AMQP_URL names no AMQP broker, and others have no publisher confirms")
    settings = asked()
    values, problems = read(os.environ, settings["env"])
    lines = ["NOT IN EFFECT: " + ", ".join(problems) + ": as Plane has it"] if problems else []
    shown = (program, values, settings["publish"], settings["version"], settings["digest"][:12])
    lines.append("in effect for %s: %s, publish %s (version %s, settings %s)" % shown)
    add = ["--%s %d" % (name[9:].lower().replace("_", "-"), values[name]) for name in limits if name in values]
    return lines, add if program == "gunicorn" else []


def main():
    try:
        lines, add = check(sys.argv[1])
        text, status = "".join("plane-webhook: %s\n" % each for each in lines), 0
        text += " ".join(["plane-webhook-add"] + add)
    except ValueError as error:
        text, status = str(error), 1
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    os._exit(status)  # at once: there is nothing to tidy up, and PYTHONINSPECT would ask for more


if __name__ == "__main__":
    main()
elif __name__ == "plane_webhook_settings" and os.environ.get("DJANGO_SETTINGS_MODULE") == __name__:
    globals().update(overlay())
