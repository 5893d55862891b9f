"""A task's message as a value: all that the broker gets of it, and nothing that is bound to a connection.

kombu itself makes it, by publishing to a channel that only keeps what it is given; so whatever kombu does to a message
(serializer, compression, delivery mode, priority) is done. As bytes it is an AMQP table, which holds what a message can.
"""

from amqp import Message as Content
from amqp.serialization import dumps, loads
from kombu import Exchange, Queue, binding

KINDS = {"Exchange": Exchange, "Queue": Queue}
FORMATS = dict(Content.PROPERTIES)  # py-amqp's letter for the type of each property


class Message:
    """`prepared`: the arguments of a channel's prepare_message; `declare`: what has to be there before it is sent."""

    __slots__ = ("prepared", "exchange", "routing_key", "mandatory", "declare")

    def __init__(self, prepared, exchange, routing_key, mandatory, declare):
        self.prepared, self.exchange, self.routing_key = prepared, exchange, routing_key
        self.mandatory, self.declare = mandatory, declare

    @property
    def headers(self):
        return self.prepared["headers"]

    @property
    def id(self):
        """The task's id. What is returned by the broker bears it as correlation id."""
        return str(self.headers.get("id") or self.prepared["properties"].get("correlation_id") or "?")

    def __str__(self):
        """For the log: never its arguments, beside which a message of Celery's first protocol has the task's name."""
        return "%s[%s]" % (self.headers.get("task") or "a task", self.id)

    def check(self):
        """Raises what py-amqp would when it writes the message, without a broker: one that can't be written is no task."""
        content = dict(self.prepared, application_headers=self.headers, **self.prepared["properties"])
        known = [(FORMATS[name], value) for name, value in content.items() if name in FORMATS and value is not None]
        texts = [self.exchange, self.routing_key] + [entity.name for entity in self.declare]
        dumps("".join(letter for letter, _ in known) + "s" * len(texts), [value for _, value in known] + texts)

    def send(self, channel):
        """Write it to a channel of kombu's."""
        message = channel.prepare_message(**self.prepared)
        channel.basic_publish(message, exchange=self.exchange, routing_key=self.routing_key, mandatory=self.mandatory)

    def dump(self):
        entities = []
        for entity in self.declare:
            kind = next(name for name, kind in KINDS.items() if isinstance(entity, kind))
            entities.append([kind, entity.as_dict(recurse=True)])
        fields = {name: getattr(self, name) for name in self.__slots__}
        return dumps("F", [dict(fields, declare=entities)])

    @classmethod
    def load(cls, data):
        fields = loads("F", data, 0)[0][0]
        fields["prepared"]["body"] = octets(fields["prepared"]["body"])
        return cls(**dict(fields, declare=[_entity(*each) for each in fields["declare"]]))


def octets(value):
    """In an AMQP table text and bytes are the same thing, and come back as text where they can."""
    return value.encode("utf-8") if isinstance(value, str) else bytes(value)


class _Recorder:
    """A channel that keeps what it is given."""

    def prepare_message(
        self, body, priority=None, content_type=None, content_encoding=None, headers=None, properties=None
    ):
        self.prepared = dict(
            body=body.encode(content_encoding or "utf-8") if isinstance(body, str) else bytes(body),
            priority=priority,
            content_type=content_type,
            content_encoding=content_encoding,
            headers=headers or {},
            properties=properties or {},
        )

    def basic_publish(self, message, exchange="", routing_key="", mandatory=False, **_):
        self.exchange, self.routing_key, self.mandatory = exchange, routing_key, mandatory


def captured(publish, producer, body, args, kwargs, mandatory):
    """The message that `publish`, kombu's own, would send for these arguments."""
    # With `retry`, by which kombu leaves its policy with the connection for whatever else that is used for.
    kwargs = dict(kwargs)
    declare = [entity for entity in kwargs.pop("declare", None) or () if entity is not None]
    if producer.auto_declare and producer.exchange.name and producer.exchange not in declare:
        declare.append(producer.exchange)
    # As it is, with what subclasses and tracing agents have of it; some ask the channel where it leads.
    stand_in, recorder = object.__new__(type(producer)), _Recorder()
    recorder.connection = its = producer.connection
    stand_in.__dict__.update(producer.__dict__, __connection__=its, _channel=recorder, auto_declare=False)
    publish(stand_in, body, *args, **kwargs)
    mandatory = bool(mandatory or recorder.mandatory)
    return Message(recorder.prepared, recorder.exchange, recorder.routing_key, mandatory, declare)


def _entity(kind, given):
    """An exchange or a queue of its description."""
    if isinstance(given.get("exchange"), dict):
        given["exchange"] = Exchange(**given["exchange"])
    if given.get("bindings"):
        given["bindings"] = [binding(**dict(each, exchange=Exchange(**each["exchange"]))) for each in given["bindings"]]
    return KINDS[kind](**given)
