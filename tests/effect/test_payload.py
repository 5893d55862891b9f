"""The payload as such: how it travels, what it may hold, the state of a publisher, and a message as a value."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from bench.effect.versions import COMBINATIONS, Combination
from lab import images
from lab.injected import EXPORTS, GUARD, PACKED, SETTINGS, inject, pod
from lab.packages import program
from webhook import payload

if TYPE_CHECKING:
    from lab.broker import Broker

LIBRARY = Path(payload.__file__).parent / "lib"

# --- how it travels

BOUND = 37_300  # bytes of all of our words, of which none is there without a reason: 37,103 when this was written
LARGEST = """
env: {gunicorn_max_requests: 999999999, gunicorn_max_requests_jitter: 999999999, celery_task_publish_retry: false,
      celery_broker_pool_limit: 999999999}
publish: {confirm: false, mandatory: false, patience: 59.99999999999999, timeout: 599.9999999999999, spool: redis,
          spool_tasks: 10000000, spool_bytes: 1099511627776}
"""


def test_the_command_is_within_its_bound_and_its_first_lines_say_what_it_is() -> None:
    words = inject(pod(), LARGEST)["spec"]["containers"][0]["command"][:-1]
    sizes = [len(word.encode()) for word in words]
    print("bytes of the words", sizes, "together", sum(sizes))
    assert sum(sizes) < BOUND
    assert words[GUARD] == payload.GUARD.replace("$", "$$")
    comment = "".join(line for line in words[GUARD].splitlines(keepends=True) if line.startswith("# "))
    assert comment.startswith("# plane-webhook guard ")
    for said in ("$1: variables to export", "$2: settings.json", "$3: all other files as tar, gzip, base64"):
        assert said in comment.replace("$$", "$")
    assert "/plane-webhook/proof --show" in comment
    assert (EXPORTS, SETTINGS, PACKED) == (4, 5, 6)  # $1, $2 and $3, for "plane-webhook" is $0


def test_the_same_files_are_the_same_bytes() -> None:
    assert payload._packed(dict(payload.FILES)) == payload.PACKED  # noqa: SLF001
    newer = images.find_python("3.13").executable  # the image's; it imports nothing here but our own
    ours = os.pathsep.join((str(Path(payload.__file__).parents[2]), sysconfig.get_path("purelib")))
    for python, seed, zone in ((sys.executable, "1", "Asia/Tokyo"), (sys.executable, "2", "UTC"), (newer, "1", "UTC")):
        text = "import os, time; os.umask(0o77); from webhook import payload; print(payload.PACKED)"
        env = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "PYTHONPATH": ours}
        ran = subprocess.run([python, "-c", text], env=env, capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == payload.PACKED


def test_one_changed_file_is_another_word() -> None:
    assert payload._packed({**payload.FILES, "proof": "x"}) != payload.PACKED  # noqa: SLF001


SOURCES = {str(path.relative_to(LIBRARY.parent)): path.read_text() for path in LIBRARY.rglob("*.py")}
SOURCES |= {path: (LIBRARY.parent / name).read_text() for path, name in payload.EXECUTABLE.items()}


def test_the_files_are_those_of_the_library_and_the_programs() -> None:
    """Nothing that lies beside them, as byte code does."""
    assert payload.FILES.keys() == SOURCES.keys()


@pytest.mark.parametrize("path", [path for path in SOURCES if path.endswith(".py") or path == "proof"])
def test_a_python_file_does_what_its_source_does(path: str) -> None:
    """The same syntax tree, but for docstrings."""
    trees = [ast.parse(text) for text in (SOURCES[path], payload.FILES[path])]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [each for each in node.body if not _is_a_text(each)]
    assert ast.dump(trees[0]) == ast.dump(trees[1])


@pytest.mark.parametrize("path", [path for path in SOURCES if path.endswith(".py") or path == "proof"])
def test_a_docstring_travels_only_where_it_is_needed(path: str) -> None:
    for node in ast.walk(ast.parse(payload.FILES[path])):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            assert len(node.body) == 1, node.name


def _is_a_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@pytest.mark.parametrize("path", payload.FILES)
def test_a_file_is_lines_of_its_source_without_what_only_its_authors_need(path: str) -> None:
    source = iter(SOURCES[path].splitlines())
    for line in payload.FILES[path].splitlines():
        wanted = line.removesuffix('"""')  # of a module's docstring the first line is all
        assert any(each.startswith(wanted) for each in source), line


def test_comments_docstrings_and_empty_lines_do_not_travel() -> None:
    text = '''"""First "line".

Second.
"""

# a comment
TEXT = "#1 # 2"  # one

def f(a):  # two
    """Its docstring.

    More of it: "text".
    """
    # three
    return a

class Error(Exception):
    """What it needs to be one."""
'''
    assert (
        payload.lean(text)
        == '''"""First "line"."""
TEXT = "#1 # 2"
def f(a):
    return a
class Error(Exception):
    """What it needs to be one."""
'''
    )
    shell = "#!/bin/sh\n# What it is.\n# More.\n\nx() {  # one\n    # two\n    echo ${1#a}\n}\n"
    assert payload.lean(shell) == "#!/bin/sh\n# What it is.\nx() {\n    echo ${1#a}\n}\n"


@pytest.mark.lab
@pytest.mark.parametrize("tar", ["tar", "busybox"])
def test_what_travels_is_unpacked_to_the_files(tar: str, tmp_path: Path) -> None:
    """As the guard does it, with GNU's programs and busybox' own."""
    applet = f"{program('busybox')} " if tar == "busybox" else ""
    script = f'umask 022; printf %s "$1" | {applet}base64 -d | {applet}tar -xzof - -C "$2"'
    done = subprocess.run(
        ["/bin/bash", "-c", script, "it", payload.PACKED, tmp_path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file()}
    assert {path: file.read_text() for path, file in found.items()} == payload.FILES
    modes = {path: file.stat().st_mode & 0o7777 for path, file in found.items()}
    assert modes == {path: 0o555 if path in payload.EXECUTABLE else 0o444 for path in payload.FILES}


# --- what it may hold

MODULES = sorted(path for path in payload.FILES if path.endswith(".py") or path == "proof")


@pytest.mark.parametrize("path", MODULES)
def test_it_compiles_without_a_warning(python: Path, path: str) -> None:
    text = "import sys; compile(sys.stdin.read(), sys.argv[1], 'exec')"
    run = subprocess.run(
        [python, "-W", "error", "-c", text, path],
        input=payload.FILES[path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")


# Every absolute path that may stand in a text, and whose it is.
PATHS = {
    "/plane-webhook",  # ours
    *("/bin/sh", "/usr/bin", "/bin", "/dev/null", "/proc"),  # every container's
    "/the/path",  # of a comment
}


@pytest.mark.parametrize("path", ["guard", *payload.FILES])
def test_it_names_no_place_of_ours_but_one(path: str) -> None:
    text = payload.GUARD if path == "guard" else payload.FILES[path]
    found = set(re.findall(r"(?<![\w./%$}\"{*)\]-])/[A-Za-z][\w.-]+(?:/[\w.-]+)*", text))
    assert {each for each in found if not any(each == ok or each.startswith(ok + "/") for ok in PATHS)} == set()
    assert "/work" not in text
    assert str(LIBRARY.parents[2]) not in text


@pytest.mark.parametrize("path", payload.FILES)
def test_each_file_says_what_it_is_and_is_plain_text(path: str) -> None:
    text = payload.FILES[path]
    assert text.isascii()
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert "\t" not in text
    if path.endswith(".py"):
        assert ast.get_docstring(ast.parse(text))
    else:
        assert text.startswith("#!/bin/sh\n")


# --- the state of a publisher


@pytest.fixture(scope="module")
def state() -> ModuleType:
    return module_of_the_payload("state")


def module_of_the_payload(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"its_{name}", LIBRARY / f"plane_webhook/{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_processes_in_trouble_leave_does_not_pile_up(tmp_path: Path) -> None:
    notes = module_of_the_payload("notes")
    notes.FOLDER = str(tmp_path)
    gone = subprocess.Popen(["true"])
    gone.wait()
    for name in (gone.pid, f"{gone.pid}.part", os.getppid()):
        (tmp_path / str(name)).write_text("{}")
    notes.leave({"state": "troubled"})
    notes.sweep()
    assert {path.name for path in tmp_path.iterdir()} == {str(os.getpid()), str(os.getppid())}
    assert json.loads((tmp_path / str(os.getpid())).read_text()) == {"state": "troubled"}
    notes.clear()
    assert {path.name for path in tmp_path.iterdir()} == {str(os.getppid())}


def test_where_there_is_no_folder_nothing_is_left(tmp_path: Path) -> None:
    notes = module_of_the_payload("notes")
    notes.FOLDER = str(tmp_path / "absent")
    notes.sweep()
    notes.leave({})
    notes.clear()
    assert not list(tmp_path.iterdir())


def test_it_knows_no_broker_no_thread_and_no_clock() -> None:
    tree = ast.parse(payload.FILES["lib/plane_webhook/state.py"])
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


# In which state, what happens, the state after it, and what is returned. `passing` and `lasting` are kinds of trouble.
TRANSITIONS: list[tuple[str, str, str, Any]] = [
    ("healthy", "passing", "troubled", True),
    ("healthy", "lasting", "troubled", True),
    ("healthy", "connected", "healthy", None),
    ("healthy", "over", "healthy", None),
    ("troubled", "passing", "troubled", False),
    ("troubled", "lasting", "troubled", True),  # that one is news
    ("troubled", "connected", "draining", None),
    ("troubled", "over", "troubled", None),  # of what could it be over
    ("troubled for good", "passing", "troubled", True),  # what was said holds no more
    ("troubled for good", "lasting", "troubled for good", False),
    ("troubled for good", "connected", "draining", None),
    ("troubled for good", "over", "troubled for good", None),
    ("draining", "passing", "troubled", False),
    ("draining", "lasting", "troubled for good", True),
    ("draining", "connected", "draining", None),
    ("draining", "over", "healthy", (40, 3, 40)),
]
# The shortest way to each state, at 100 seconds of the clock, with three tasks kept.
WAYS = {
    "healthy": [],
    "troubled": ["passing"],
    "troubled for good": ["lasting"],
    "draining": ["passing", "connected"],
}


def happen(its: Any, event: str, now: float) -> Any:
    if event in ("passing", "lasting"):
        return its.trouble(now, f"{event} trouble", event == "lasting")
    return its.connected(now) if event == "connected" else its.over(now)


def test_every_state_meets_every_event() -> None:
    events = {"passing", "lasting", "connected", "over"}
    assert {(before, event) for before, event, _, _ in TRANSITIONS} == {(w, event) for w in WAYS for event in events}
    assert len(TRANSITIONS) == len(WAYS) * len(events)


@pytest.mark.parametrize(("before", "event", "after", "returned"), TRANSITIONS)
def test_what_an_event_makes_of_a_state(state: ModuleType, before: str, event: str, after: str, returned: Any) -> None:
    its = state.State()
    for each in WAYS[before]:
        happen(its, each, 100)
        its.kept = 3
    assert named(its) == before
    assert happen(its, event, 140) == returned
    # From healthy there is no difference yet between what was asked for and what came of it.
    assert named(its) == ("troubled for good" if after == "troubled" and event == "lasting" else after)
    assert its.healthy == (after == "healthy")
    said = its.says(150)
    if its.healthy:
        assert said == {"state": "healthy"}
    else:
        began = 140 if before == "healthy" else 100
        kind = event if event in ("passing", "lasting") else WAYS[before][0]
        kept = 0 if before == "healthy" else 3
        assert said == {"state": its.name, "seconds": 150 - began, "cause": f"{kind} trouble", "kept": kept}
    json.dumps(said)


def named(its: Any) -> str:
    return its.name + (" for good" if its.lasting else "")


def test_after_it_was_healthy_again_nothing_is_left_of_the_trouble(state: ModuleType) -> None:
    its = state.State()
    its.trouble(100, "one", lasting=True)
    its.kept = 3
    assert its.draining(102) == 0
    its.connected(102)
    assert its.draining(104.5) == 2.5
    assert its.over(105.5) == (5.5, 3, 3.5)
    assert its.draining(106) == 0
    assert its.trouble(200, "two") is True
    assert its.says(201.26) == {"state": "troubled", "seconds": 1.3, "cause": "two", "kept": 0}


def test_news_is_what_differs_from_what_was_said_last(state: ModuleType) -> None:
    its = state.State()
    assert its.trouble(100, "one", lasting=True) is True
    its.connected(101)
    assert [its.trouble(102, "two"), its.trouble(103, "two")] == [True, False]


# --- a message as a value, and as kombu itself sends it

OLDEST_AND_NEWEST = (COMBINATIONS[1], COMBINATIONS[0], COMBINATIONS[-1])

SENDS_BOTH = """
import datetime, decimal, json, sys, time
sys.path.insert(0, sys.argv[2])
from celery import Celery, chain, group
from kombu import Connection, Exchange, Producer, Queue, binding
from kombu.common import maybe_declare
from plane_webhook.message import Message, captured
original = Producer.publish

def told(message):
    # Kombu keeps bindings in a set.
    found = [entity.as_dict(recurse=True) for entity in message.declare]
    return [dict(each, bindings=sorted(each.get("bindings") or (), key=repr)) for each in found]

def both(self, body, *args, **kwargs):
    message = captured(original, self, body, args, kwargs, True)
    data = message.dump()
    assert isinstance(data, bytes)
    again = Message.load(data)
    assert len(again.dump()) == len(data)
    assert (again.exchange, again.routing_key, again.mandatory) == (message.exchange, message.routing_key, True)
    assert told(again) == told(message), "declares something else"
    assert (str(again), again.id) == (str(message), message.id)
    result = original(self, body, *args, **kwargs)
    for entity in again.declare:
        maybe_declare(entity, self.channel)
    again.send(self.channel)
    return result

def taken(channel, count):
    found, end = [], time.monotonic() + 10  # another connection's messages may be on their way
    while len(found) < count and time.monotonic() < end:
        message = channel.basic_get("taken", no_ack=True)
        if message is None:
            time.sleep(0.02)
            continue
        where = {name: message.delivery_info[name] for name in ("exchange", "routing_key")}
        found.append(repr((sorted(message.properties.items(), key=str), message.body, where)))
    assert channel.basic_get("taken", no_ack=True) is None
    return found

def pairs(name, channel, count):
    found = taken(channel, 2 * count)
    assert len(found) == 2 * count, (name, found)
    print(json.dumps([name, found[0::2], found[1::2]]), flush=True)

connection = Connection(sys.argv[1])
channel = connection.channel()
for exchange in ("", "plain"):
    if exchange:
        Exchange(exchange, "topic", channel=channel).declare()
queue = Queue("taken", durable=True, channel=channel)
queue.declare()
queue.purge()
queue.bind_to(exchange="plain", routing_key="#")
Producer.publish = both
"""
KOMBU = (
    SENDS_BOTH
    + """
utc = datetime.timezone.utc
HEADERS = {
    "task": "plane.its", "id": "1", "none": None, "yes": True, "no": False, "float": 1.5,
    "ints": [0, -1, 2**31, -2**31, 2**40, 2**63 - 1],
    "decimal": decimal.Decimal("3.14"), "bytes": b"\\x00\\xff", "unicode": "\u00e4 \u20ac \U0001f600",
    "empty": "", "nested": {"list": [1, [2, [None, {"deep": "x"}]]], "dict": {"\u00fc": {}}},
    "list": [], "long": "x" * 70000,
    "naive": datetime.datetime(2026, 1, 2, 3, 4, 5, 678), "aware": datetime.datetime(2026, 1, 2, tzinfo=utc),
}
CASES = {
    "nothing asked": ({"a": 1}, {}),
    "every kind of header": ({"a": 1}, {"headers": HEADERS}),
    "unicode": ({"\u00e4": "\u20ac\U0001f600"}, {}),
    "bytes": (b"\\x00\\xff" * 9, {}),
    "text": ("a text \u00e4", {}),
    "text of another kind": ("a: b", {"content_type": "application/x", "content_encoding": "utf-8"}),
    "pickle": ({"a": {1, 2}}, {"serializer": "pickle"}),
    "zlib": ({"a": "b" * 5000}, {"compression": "zlib"}),
    "bzip2": ({"a": "b" * 5000}, {"compression": "bzip2", "headers": HEADERS}),
    "transient": ({}, {"delivery_mode": 1}),
    "transient by its name": ({}, {"delivery_mode": "transient"}),
    "priority": ({}, {"priority": 7}),
    "no priority": ({}, {"priority": 0}),
    "expiration": ({}, {"expiration": 3600.5}),
    "properties": ({}, {"correlation_id": "c", "reply_to": "r", "message_id": "m", "type": "t", "app_id": "a",
                        "user_id": "guest", "timestamp": 1767323045}),
    "an exchange": ({}, {"exchange": "plain", "routing_key": "a.b"}),
    "an exchange object": ({}, {"exchange": Exchange("plain", "topic", delivery_mode="transient"), "routing_key": "a"}),
    "retry": ({}, {"retry": True, "retry_policy": {"max_retries": 1}}),
    "large": ({"a": "x" * 3000000}, {}),
}
for name, (body, kwargs) in CASES.items():
    producer = Producer(channel, serializer="json" if isinstance(body, dict) else None)
    producer.publish(body, **dict({"routing_key": "taken"}, **kwargs))
    pairs(name, channel, 1)
producer = Producer(channel, Exchange("plain", "topic", durable=True), "its.own", serializer="json", compression="zlib")
producer.publish({"a": "b" * 999}, headers={"h": 1})
pairs("a producer's own", channel, 1)
producer.publish({"a": 1}, "given.key", 2, None, None, 5)
pairs("words without their names", channel, 1)
"""
)
ENTITIES = (
    SENDS_BOTH
    + """
source = Exchange("source", "direct", durable=True, auto_delete=False, arguments={"alternate-exchange": "plain"})
other = Exchange("source-2", "headers", durable=False, auto_delete=True)
entities = [
    other,
    Queue("declared", source, routing_key="one", durable=True, expires=3600.0,
          queue_arguments={"x-max-length": 9, "x-overflow": "drop-head"},
          message_ttl=60.5, max_length_bytes=10**6, max_priority=5),
    Queue("bound", bindings=[binding(source, routing_key="two"),
                             binding(other, arguments={"x-match": "all", "k": 1})]),
    Queue("plain-queue", durable=False, auto_delete=True),
    None,
]
producer = Producer(channel, serializer="json")
# Declared first as kombu does, then as they are after the journey: were they others, the broker would refuse it.
producer.publish({}, routing_key="taken", declare=entities)
pairs("declares", channel, 1)
with Connection(sys.argv[1]) as fresh:
    for name in ("declared", "bound", "plain-queue"):
        Queue(name, channel=fresh.channel()).delete()
    for name in ("source-2", "source"):
        Exchange(name, channel=fresh.channel()).delete()
# The other way round: what came of the journey alone, and then the originals.
message = Message.load(captured(original, producer, {}, (), {"declare": entities, "routing_key": "taken"}, True).dump())
with Connection(sys.argv[1]) as fresh:
    new = fresh.channel()
    for entity in message.declare:
        maybe_declare(entity, new)
    for entity in entities[:-1]:
        entity(new).declare()
    for key, name in (("one", "declared"), ("two", "bound")):
        new.basic_publish(new.prepare_message(b"x"), exchange="source", routing_key=key)
        assert new.basic_get(name, no_ack=True) is not None, name
    for name in ("declared", "bound", "plain-queue"):
        Queue(name, channel=new).delete()
    for name in ("source", "source-2"):
        Exchange(name, channel=fresh.channel()).delete()
print(json.dumps(["declared anew", [], []]))
"""
)
CELERY = (
    SENDS_BOTH
    + """
app = Celery("plane", broker=sys.argv[1])
app.conf.update(task_default_queue="taken", task_queue_max_priority=None)
@app.task(name="its")
def its(*args, **kwargs):
    pass
soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
SENDS = {
    "delay": lambda: its.delay(1, "\u00e4", key=[None, {"a": 1}]),
    "everything": lambda: its.apply_async((1,), {"k": 2}, eta=soon, expires=7200, priority=3, retry=True,
                                          headers={"own": [1, None]}, correlation_id="c", reply_to="r",
                                          shadow="other", time_limit=9, soft_time_limit=8, link=its.si(2),
                                          link_error=its.si(3),
                                          compression="zlib"),
    "send_task": lambda: app.send_task("other", ("x" * 2000,), countdown=5, ignore_result=True),
    "chain": lambda: chain(its.si(1), its.si(2)).apply_async(),
    "group": lambda: group(its.si(1), its.si(2)).apply_async(),
}
for name, send in SENDS.items():
    send()
    pairs(name, channel, 2 if name == "group" else 1)
"""
)


@pytest.fixture(scope="module", params=OLDEST_AND_NEWEST, ids=str)
def image(request: pytest.FixtureRequest) -> images.Image:
    combination: Combination = request.param
    if missing := combination.missing():
        pytest.skip(missing)
    return images.build(combination.lock, combination.python)


@pytest.mark.lab
@pytest.mark.parametrize("text", [KOMBU, ENTITIES, CELERY], ids=["kombu", "entities", "celery"])
def test_a_message_that_was_kept_is_the_one_that_kombu_would_have_sent(
    image: images.Image, broker: Broker, text: str
) -> None:
    """All properties, headers and the body of both, as a client of the broker gets them."""
    ran = subprocess.run(
        [image.root / "bin/python", "-B", "-c", text, broker.url, LIBRARY],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()
    for name, theirs, ours in map(json.loads, ran.stdout.splitlines()):
        assert ours == theirs, name
