"""The wrap can't keep Plane from starting, and can't be turned against it.

Healthy, Plane's own command runs as it would without us, but for what was asked. With anything missing, empty, altered,
full, unwritable or broken it runs as it would without us, and one line on stderr says what is not in effect and why.
"""

from __future__ import annotations

import json
import os
import py_compile
import re
import shutil
import signal
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

from lab import images
from lab.container import Container, Shell
from lab.injected import (
    ASKED_LIMITS,
    DEFAULTS,
    ENTRYPOINT,
    EXPORTS,
    GUARD,
    OVERLAY,
    PACKED,
    PROOF,
    RESTRICTED,
    SETTINGS,
    SHELLS,
    SHELLS_OWN,
    SHIM,
    UPSTREAM_LIMITS,
    Json,
    Ran,
    code,
    inject,
    pod,
    remount,
    run,
    script,
    with_code,
    with_files,
    word,
)
from lab.packages import program
from webhook import payload
from webhook.admission.injection import ARGV0, MOUNT_PATH, VOLUME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab.images import Image

pytestmark = pytest.mark.lab

every_shell = pytest.mark.parametrize("shell", SHELLS)

ODD_WORDS = (
    "",
    " two  words ",
    "'",
    '"',
    "`id`",
    "$HOME",
    "$(id)",
    "$$",
    "\\",
    "\\n",
    "a\nb\n",
    "\n",
    "*",
    "-",
    "--",
    "-c",
    "é€😀",
    "%s",
    "{}",
    "#",
    "a=b",
    "!",
    "~",
    "\t",
    "$(ASKED)",
    "$$(ASKED)",
)
ODD_VARIABLES = {
    "QUOTES": 'it\'s "a" `b` $(c) \\ $d',
    "LINES": "one\n'two'\n\nthree\n",
    "EMPTY": "",
    "UMLAUT": "ä€",
    # Names that Kubernetes takes and no shell has; dash and busybox drop them.
    "a.b": 'it\'s\n$(x) `y` \\ "z"',
    "some-name": "",
    "odd.name'with\"quotes": "x=y",
}


@pytest.fixture(scope="module")
def small(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image with a /code whose programs say what they were given."""
    return with_code(image, code(tmp_path_factory.mktemp("code") / "code"))


def show(*args: str) -> tuple[str, ...]:
    """Plane's command for a program that says what it is; the entrypoint's name makes it Plane's."""
    return ("python", "show.py", *args, "./bin/docker-entrypoint-api.sh")


# --- healthy: nothing of the run differs but what was asked


@every_shell
def test_the_process_is_planes_own_and_differs_in_path_and_the_variables_only(small: Image, shell: Shell) -> None:
    what = pod("python", args=("show.py", *ODD_WORDS, "docker-entrypoint-api.sh"), env={"ASKED": "a b"} | ODD_VARIABLES)
    plain, ours = run(small, what, shell=shell), run(small, inject(what), shell=shell)
    assert (plain.code, ours.code) == (0, 0)
    assert ours.loud == []
    before, after = plain.shown, ours.shown
    assert after["pid"] == 1
    # Python told by its path: from its name alone it would take our folder for its own.
    assert after["argv"] == [f"/usr/local/bin/{before['argv'][0]}", *before["argv"][1:]]
    assert {"a b", "$(ASKED)", "$"} <= set(after["argv"])  # expanded by the kubelet, once
    assert after["argv"][2:-1][: len(ODD_WORDS) - 2] == [each.replace("$$", "$") for each in ODD_WORDS[:-2]]
    for name in ("cwd", "umask", "signals", "descriptors", "open"):
        assert after[name] == before[name], name
    assert_environment(before["env"], after["env"], {**DEFAULTS, "PATH": f"{MOUNT_PATH}/bin:{before['env']['PATH']}"})
    assert set(ODD_VARIABLES) <= set(after["env"])


def assert_environment(before: Mapping[str, str], after: Mapping[str, str], changed: Mapping[str, str]) -> None:
    """Every variable is the same but those in `changed`, and those that any shell sets for itself."""
    before, after = ({k: v for k, v in each.items() if k not in SHELLS_OWN} for each in (before, after))
    assert after == {**before, **changed}


@every_shell
def test_what_an_entrypoint_that_is_a_script_gets_is_the_same(small: Image, shell: Shell) -> None:
    """The bash that runs Plane's entrypoint sets more than a program would see."""
    text = "set +o posix; declare -p | grep -vE 'PATH=|BASH_|SHLVL|RANDOM|SECONDS|EPOCH|_=|PPID'; declare -F; set +o; "
    text += "umask; ulimit -a; trap"
    what = pod("/bin/bash", "-c", f"{text}\nexec ./bin/docker-entrypoint-api.sh", env=ODD_VARIABLES)
    plain, ours = run(small, what, shell=shell), run(small, inject(what), shell=shell)
    gone = [line for line in plain.stdout.splitlines() if line not in ours.stdout.splitlines() and "SHOWN" not in line]
    new = [line for line in ours.stdout.splitlines() if line not in plain.stdout.splitlines() and "SHOWN" not in line]
    assert gone == []
    assert sorted(new) == sorted(f'declare -x {name}="{value}"' for name, value in DEFAULTS.items())


@every_shell
def test_gunicorn_gets_the_limits_and_the_overlay_and_nothing_else(small: Image, shell: Shell) -> None:
    plain, ours = (
        run(small, pod(env=ODD_VARIABLES), shell=shell),
        run(small, inject(pod(env=ODD_VARIABLES)), shell=shell),
    )
    before, after = plain.shown, ours.shown
    assert (after["pid"], before["argv"][-4:]) == (1, UPSTREAM_LIMITS)
    assert after["argv"] == before["argv"] + ASKED_LIMITS
    for name in ("cwd", "umask", "signals", "descriptors", "open"):
        assert after[name] == before[name], name
    overlay = {
        "DJANGO_SETTINGS_MODULE": "plane_webhook_settings",
        "PLANE_WEBHOOK_BASE_SETTINGS": "plane.settings.production",
        "PYTHONPATH": f"{MOUNT_PATH}/lib",
    }
    assert_environment(before["env"], after["env"], {**DEFAULTS, **overlay})  # PATH without ours again
    assert (len(ours.in_effect), ours.loud) == (1, [])
    assert "'GUNICORN_MAX_REQUESTS': 0" in ours.in_effect[0]


@every_shell
def test_the_users_own_settings_module_and_python_path_come_first(small: Image, shell: Shell) -> None:
    env = {"DJANGO_SETTINGS_MODULE": "plane.settings.mine", "PYTHONPATH": "/mine:/too"}
    after = run(small, inject(pod(env=env)), shell=shell).shown["env"]
    assert after["PLANE_WEBHOOK_BASE_SETTINGS"] == "plane.settings.mine"
    assert after["PYTHONPATH"] == f"/mine:/too:{MOUNT_PATH}/lib"


# In a folder without plane.settings.production. A fork that renamed its package has the entrypoint's name still.
ANOTHER_APP = {
    "nothing said": ({}, "", "there is no plane.settings.production here, and DJANGO_SETTINGS_MODULE names no other"),
    "its settings are named": ({"DJANGO_SETTINGS_MODULE": "fork.settings"}, "", ""),
    "Plane is on PYTHONPATH": ({"PYTHONPATH": "/nowhere:/code/elsewhere"}, "", ""),
    "gunicorn goes to another folder": ({}, " --chdir elsewhere", ""),
    "gunicorn goes there by a variable": ({"GUNICORN_CMD_ARGS": "--chdir=elsewhere"}, "", ""),
    "gunicorn looks in another folder": ({}, " --pythonpath elsewhere", ""),
    "gunicorn looks there by a variable": ({"GUNICORN_CMD_ARGS": "--pythonpath=elsewhere"}, "", ""),
}


@every_shell
@pytest.mark.parametrize("how", ANOTHER_APP)
def test_an_application_that_is_not_plane_runs_as_it_was(image: Image, shell: Shell, how: str, tmp_path: Path) -> None:
    env, option, says = ANOTHER_APP[how]
    folder = code(tmp_path / "code", entrypoint=ENTRYPOINT.replace("gunicorn", f"gunicorn{option}"))
    (folder / "elsewhere").mkdir()
    (folder / "plane").rename(folder / "elsewhere/plane")
    plain, ours = (run(with_code(image, folder), each, shell=shell) for each in (pod(env=env), inject(pod(env=env))))
    if says:
        assert_as_it_was(plain, ours, says)
    else:
        assert (len(ours.in_effect), ours.loud) == (1, [])


@every_shell
@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_code_is_planes(small: Image, shell: Shell, code: int) -> None:
    assert run(small, inject(pod(*show(f"exit {code}"))), shell=shell).code == code


@every_shell
@pytest.mark.parametrize(("name", "expected"), [("./gone", 127), ("gone", 127), ("./show.txt", 126), ("./bin", 126)])
def test_a_command_that_cannot_run_ends_as_without_us(
    small: Image, shell: Shell, name: str, expected: int, tmp_path: Path
) -> None:
    folder = shutil.copytree(small.code, tmp_path / "code")
    (folder / "show.txt").write_text("text")
    what = pod(name, "docker-entrypoint-api.sh")
    for each in (what, inject(what)):
        assert run(with_code(small, folder), each, shell=shell).code == expected


@every_shell
@pytest.mark.parametrize(("number", "handled"), [(signal.SIGTERM, 7), (signal.SIGINT, 8)])
def test_signals_reach_planes_process(small: Image, shell: Shell, number: int, handled: int) -> None:
    for doing, expected in (("handle", handled), ("stay", None)):
        with Container.from_pod(inject(pod(*show(doing))), image=small, shell=shell) as container:
            container.wait_for_log("STAYS\n")
            container.signal(number)
            if expected is not None:
                assert container.wait() == expected
            elif number == signal.SIGTERM:  # no handler: the kernel keeps it from PID 1, as without us
                assert container.terminate(grace=0.3) == 137
            else:  # Python's own handler
                assert container.wait() in (1, 130)


@every_shell
def test_stdin_and_the_terminal_are_planes(small: Image, shell: Shell) -> None:
    """The guard's words run a second time in a container, on a pipe and on a terminal."""
    words = inject(pod())["spec"]["containers"][0]["command"][:-1]
    guard = [each.replace("$$", "$") for each in words]
    terminal = (
        "import os, pty, sys; pty.spawn([*sys.argv[1:], 'python', '-c', "
        "'import os, sys; print([os.isatty(n) for n in range(3)], os.tcgetpgrp(0) == os.getpgrp())'])"
    )
    with Container.from_pod(inject(pod(*show("stay"))), image=small, shell=shell) as container:
        container.wait_for_log("STAYS\n")
        assert container.exec([*guard, "cat"], stdin="first\nsecond").stdout == "first\nsecond"
        assert "[True, True, True] True" in container.exec(["python", "-c", terminal, *guard]).stdout


@every_shell
def test_a_variable_that_switches_on_shell_options_changes_nothing(small: Image, shell: Shell) -> None:
    """Bash takes -e and -u from SHELLOPTS, as it would for Plane's own entrypoint."""
    what = pod(env={"SHELLOPTS": "errexit:nounset:noclobber:noglob"})
    plain, ours = run(small, what, shell=shell), run(small, inject(what), shell=shell)
    assert ours.shown["argv"] == plain.shown["argv"] + ASKED_LIMITS
    # bash as sh notes that it is sh.
    assert ours.shown["env"]["SHELLOPTS"].replace(":posix", "") == plain.shown["env"]["SHELLOPTS"]
    assert ours.loud == []


@every_shell
@pytest.mark.parametrize("how", ["in effect", "not in effect"])
def test_variables_of_our_scripts_are_not_taken_for_planes(small: Image, shell: Shell, how: str) -> None:
    """Nor does a variable of any name in a text of ours change what they do."""
    texts = f"{payload.GUARD} {payload.FILES[SHIM]}"
    ours_own = {"PATH", "DJANGO_SETTINGS_MODULE", "PYTHONPATH", "PLANE_WEBHOOK_BASE_SETTINGS", *DEFAULTS}
    names = (
        set(re.findall(r"[A-Za-z_]+", texts)) - ours_own - {"plane_webhook", "plane_webhook_word", "IFS", "SHELLOPTS"}
    )
    what = pod(env=dict.fromkeys(sorted(names), "x y"))
    changed = inject(what) if how == "in effect" else with_files(inject(what), {OVERLAY: "def\n"})
    plain, ours = run(small, what, shell=shell), run(small, changed, shell=shell)
    new = {k: v for k, v in ours.shown["env"].items() if plain.shown["env"].get(k) != v}
    assert new.keys() - SHELLS_OWN <= ours_own
    assert ours.shown["argv"][-4:] == (ASKED_LIMITS if how == "in effect" else UPSTREAM_LIMITS)


@every_shell
def test_restricted_and_read_only_it_is_in_effect(small: Image, shell: Shell) -> None:
    what = inject(pod(securityContext=RESTRICTED))
    ours = run(small, what, shell=shell)
    assert ours.shown["argv"][-4:] == ASKED_LIMITS
    assert ours.loud == []


# --- where gunicorn's interpreter is found


INTERPRETERS = {
    "with env": "#!/usr/bin/env python3",
    "with a space": "#! /usr/local/bin/python",
    "with options": "#!/usr/local/bin/python -B",
    "with env and options": "#!/usr/bin/env -S python3 -B",
    "as pip writes a long path": "#!/bin/sh\n'''exec' /usr/local/bin/python \"$0\" \"$@\"\n' '''",
    "as pip writes a path with a space": "#!/bin/sh\n'''exec' \"/usr/local/bin/python\" \"$0\" \"$@\"\n' '''",
    "as uv writes it": "#!/bin/sh\n'''exec' '/usr/local/bin/python' \"$0\" \"$@\"\n' '''",
}


@every_shell
@pytest.mark.parametrize("how", INTERPRETERS)
def test_the_interpreter_that_runs_gunicorn_is_asked(image: Image, shell: Shell, how: str, tmp_path: Path) -> None:
    folder = code(tmp_path / "code", gunicorn=INTERPRETERS[how])
    ours = run(with_code(image, folder), inject(pod()), shell=shell)
    assert ours.shown["argv"][-8:] == UPSTREAM_LIMITS + ASKED_LIMITS
    assert (len(ours.in_effect), ours.loud) == (1, [])


@every_shell
@pytest.mark.parametrize("text", ["print('a line of its own', flush=True)", "raise SystemExit('no')", "1 / 0"])
def test_a_sitecustomize_is_none_of_our_business(image: Image, shell: Shell, text: str, tmp_path: Path) -> None:
    folder = code(tmp_path / "code")
    (folder / "sitecustomize.py").write_text(text)
    what = pod(env={"PYTHONPATH": "/code"})
    plain, ours = (run(with_code(image, folder), each, shell=shell) for each in (what, inject(what)))
    assert (plain.code, ours.loud, len(ours.in_effect)) == (ours.code, [], 1)
    assert plain.stdout.count("a line of its own") == ours.stdout.count("a line of its own")


# --- PATH


PATHS = {
    "with empty parts": ":/code/programs::/usr/local/bin:/bin:",
    "relative": "programs:/usr/local/bin:/bin",
    "with blanks and stars": "/a b/*:/code/programs:/usr/local/bin:/bin",
    "without the tools": "/code/programs:/usr/local/bin",
    "with our folder": f"{MOUNT_PATH}/bin:/code/programs:/usr/local/bin:/bin:{MOUNT_PATH}/bin",
}


@every_shell
@pytest.mark.parametrize("how", PATHS)
def test_the_path_that_gunicorn_gets_is_the_one_that_it_had(small: Image, shell: Shell, how: str) -> None:
    what = pod(env={"PATH": PATHS[how]})
    ours = run(small, inject(what), shell=shell)
    assert ours.shown["argv"][-4:] == ASKED_LIMITS
    expected = PATHS[how].replace(f"{MOUNT_PATH}/bin:", "").replace(f":{MOUNT_PATH}/bin", "")
    assert ours.shown["env"]["PATH"] == expected
    assert ours.loud == []


@every_shell
@pytest.mark.parametrize("path", ["", "/nowhere", "/code"])
def test_where_gunicorn_is_not_found_it_ends_as_without_us(small: Image, shell: Shell, path: str) -> None:
    what = pod(env={"PATH": path})
    plain, ours = run(small, what, shell=shell), run(small, inject(what), shell=shell)
    assert (plain.code, ours.code) == (127, 127)
    assert ours.in_effect == []


# --- everything that can be amiss


@dataclass(frozen=True)
class Fault:
    """Something amiss: in the pod, the words of its command, or the image's gunicorn."""

    says: str
    in_pod: Callable[[Json], Any] = lambda _pod: None
    words: Mapping[int, str] = field(default_factory=dict)
    files: Mapping[str, str | None] = field(default_factory=dict)  # path -> text; None: it isn't there
    env: Mapping[str, str] = field(default_factory=dict)
    gunicorn: str = "#!/usr/local/bin/python"
    binds: Mapping[str, str] = field(default_factory=dict)  # path -> text of a program


@dataclass(frozen=True)
class Amiss:
    """A fault, ready to be met."""

    fault: Fault
    image: Image
    binds: Mapping[str, Path]
    plain: Ran


def unmount(what: Json) -> None:
    del what["spec"]["containers"][0]["volumeMounts"]


def read_only(what: Json) -> None:
    what["spec"]["containers"][0]["volumeMounts"][0]["readOnly"] = True


def small_volume(size: str) -> Callable[[Json], None]:
    def change(what: Json) -> None:
        what["spec"]["volumes"][0]["emptyDir"]["sizeLimit"] = size

    return change


def settings(change: Callable[[Json], Any]) -> str:
    """The text of settings.json with something changed."""
    tree = json.loads(inject(pod())["spec"]["containers"][0]["command"][SETTINGS])
    change(tree)
    return json.dumps(tree)


def publish(**values: object) -> dict[int, str]:
    return {SETTINGS: settings(lambda tree: tree["publish"].update(values))}


PLAIN_PYTHON = "/usr/local/bin/python"
PAGE = 4096
# What a volume in memory has to hold: settings.json and the files, each in pages of its own.
PAGES = 1 + sum(-(-len(text.encode()) // PAGE) for text in payload.FILES.values())
FAULTS = {
    "the mount is missing": Fault("/plane-webhook is not mounted", unmount),
    "the mount is read-only": Fault("/plane-webhook is not writable", read_only),
    **{
        f"the volume has {pages} pages": Fault(
            "the files can't be unpacked into /plane-webhook", small_volume(f"{pages * PAGE}")
        )
        for pages in (1, 2, PAGES // 2, PAGES - 1)
    },
    "no text of the settings": Fault("the text of a file is empty", words={SETTINGS: ""}),
    "no text of the files": Fault("the text of a file is empty", words={PACKED: ""}),
    "the files are cut short": Fault("the files can't be unpacked", words={PACKED: payload.PACKED[: PAGE * 4]}),
    "the files lack their end": Fault("the files can't be unpacked", words={PACKED: payload.PACKED[:-8]}),
    "the files are no base64": Fault("the files can't be unpacked", words={PACKED: "(" * 99}),
    "the files are damaged": Fault(
        "the files can't be unpacked", words={PACKED: payload.PACKED[:PAGE] + "AAAAAAAA" + payload.PACKED[PAGE + 8 :]}
    ),
    "the files are no archive": Fault("the files can't be unpacked", words={PACKED: "eA=="}),
    "the files lack the shim": Fault("what was written to /plane-webhook is not there", files={SHIM: None}),
    "the files lack the overlay": Fault("gunicorn runs as it was called", files={OVERLAY: None}),
    "the files lack a module": Fault("No module named", files={"lib/plane_webhook/asked.py": None}),
    "the shim is no program": Fault("programs in /plane-webhook do not run", files={SHIM: "#!/no/such\n"}),
    "the shim is empty": Fault("programs in /plane-webhook do not run", files={SHIM: ""}),
    "the shim has a syntax error": Fault("programs in /plane-webhook do not run", files={SHIM: "#!/bin/sh\nif fi\n"}),
    "the overlay has a syntax error": Fault("SyntaxError: .*; gunicorn runs as", files={OVERLAY: "def\n"}),
    "a module has a syntax error": Fault(
        "SyntaxError: .*; gunicorn runs as", files={"lib/plane_webhook/asked.py": "def\n"}
    ),
    "the overlay is another text": Fault("gunicorn runs as it was called", files={OVERLAY: "print('hello')\n"}),
    "the overlay ends without a word": Fault("its Python does not answer", files={OVERLAY: "#\n"}),
    "the settings are no JSON": Fault("settings.json can't be used: JSONDecodeError", words={SETTINGS: "{"}),
    "the settings are a list": Fault("settings.json can't be used", words={SETTINGS: "[]"}),
    "the settings lack a key": Fault(
        "settings.json can't be used: KeyError: 'patience'",
        words={SETTINGS: settings(lambda tree: tree["publish"].pop("patience"))},
    ),
    "the timeout is a text": Fault("a value of a wrong type", words=publish(timeout="5")),
    "the timeout is a switch": Fault("a value of a wrong type", words=publish(timeout=True)),
    "confirm is a number": Fault("a value of a wrong type", words=publish(confirm=1)),
    "the spool is a list": Fault("a value of a wrong type", words=publish(spool=["redis"])),
    "the spool's tasks are a fraction": Fault("a value of a wrong type", words=publish(spool_tasks=1.5)),
    "a variable's value is a number": Fault(
        "a value of a wrong type",
        words={SETTINGS: settings(lambda tree: tree["env"].update(CELERY_BROKER_POOL_LIMIT=10))},
    ),
    "the broker is not AMQP": Fault("AMQP_URL names no AMQP broker", env={"AMQP_URL": "redis://:s3cret@there/0"}),
    "Celery's own variable names another broker": Fault(
        "CELERY_BROKER_URL names no AMQP broker", env={"CELERY_BROKER_URL": "redis://:s3cret@there/0"}
    ),
    "the environment names no broker": Fault("the environment names no RabbitMQ", env={"AMQP_URL": ""}),
    "an option names a settings module": Fault(
        "an option names another DJANGO_SETTINGS_MODULE",
        env={"GUNICORN_CMD_ARGS": "--env DJANGO_SETTINGS_MODULE=plane.settings.production"},
    ),
    "Python takes no environment (-I)": Fault(
        "its Python does not take the environment", gunicorn=f"#!{PLAIN_PYTHON} -I"
    ),
    "Python takes no environment (-E)": Fault(
        "its Python does not take the environment", gunicorn=f"#!{PLAIN_PYTHON} -E"
    ),
    "Python's options behind env": Fault(
        "its Python does not take the environment", gunicorn="#!/usr/bin/env -S python3 -I"
    ),
    "Python fails when it is asked": Fault(
        "its Python does not answer",
        gunicorn="#!/opt/odd/python",
        binds={"/opt/odd/python": f'#!/bin/bash\n[[ " $* " != *" -S "* ]] || exit 1\nexec {PLAIN_PYTHON} "$@"\n'},
    ),
    "Python says something else": Fault(
        "Hello; gunicorn runs as it was called",
        gunicorn="#!/opt/odd/python",
        binds={
            "/opt/odd/python": f'#!/bin/bash\n[[ " $* " != *" -S "* ]] || exec echo Hello\nexec {PLAIN_PYTHON} "$@"\n'
        },
    ),
    "Python gets another environment": Fault(
        "its Python does not take the environment",
        gunicorn="#!/opt/odd/python",
        binds={"/opt/odd/python": f'#!/bin/bash\nunset PYTHONPATH DJANGO_SETTINGS_MODULE\nexec {PLAIN_PYTHON} "$@"\n'},
    ),
    "gunicorn is a script of another language": Fault(
        "/code/programs/gunicorn is no Python program",
        gunicorn=f'#!/bin/bash\nexec {PLAIN_PYTHON} show.py "$@"\n',
    ),
    "gunicorn's trampoline is an odd one": Fault(
        "not found|No such file", gunicorn="#!/bin/sh\n'''exec' \"$(echo /usr/local/bin)/python\" \"$0\" \"$@\"\n' '''"
    ),
}


@pytest.fixture(scope="module", params=FAULTS)
def amiss(request: pytest.FixtureRequest, image: Image, tmp_path_factory: pytest.TempPathFactory) -> Amiss:
    """Each fault, with the run that Plane has under it without us."""
    fault = FAULTS[request.param]
    folder = tmp_path_factory.mktemp("amiss")
    changed = with_code(image, code(folder / "code", gunicorn=fault.gunicorn))
    binds = {path: folder / f"bound-{at}" for at, path in enumerate(fault.binds)}
    for path, bound in binds.items():
        script(bound, fault.binds[path])
    return Amiss(fault, changed, binds, run(changed, pod(env=fault.env), binds=binds))


@every_shell
def test_whatever_is_amiss_plane_runs_as_it_was_and_one_line_says_so(amiss: Amiss, shell: Shell) -> None:
    ours = inject(pod(env=amiss.fault.env))
    amiss.fault.in_pod(ours)
    for index, text in amiss.fault.words.items():
        ours = word(ours, index, text)
    if amiss.fault.files:
        ours = with_files(ours, amiss.fault.files)
    assert_as_it_was(amiss.plain, run(amiss.image, ours, shell=shell, binds=amiss.binds), amiss.fault.says)


# Where Plane's entrypoint reads the variable: as it was before our 0, with rotation.
ROTATES = {"GUNICORN_MAX_REQUESTS": "1200", "GUNICORN_MAX_REQUESTS_JITTER": "1000"}


def assert_as_it_was(plain: Ran, ours: Ran, says: str) -> None:
    """Nothing of ours is in effect, half or whole; one line says why, and shows nothing secret."""
    assert ours.code == plain.code
    before, after = plain.shown, ours.shown
    for name in before.keys() - {"env"}:
        assert after[name] == before[name], name
    assert len(ours.loud) == 1, ours.stderr
    assert re.search(rf"^plane-webhook: NOT IN EFFECT: .*({says})", ours.loud[0])
    replaced = ROTATES if "with GUNICORN_MAX_REQUESTS=1200 in place of 0" in ours.loud[0] else {}
    assert_environment(before["env"], after["env"], {**DEFAULTS, **replaced})
    assert ours.in_effect == []
    assert "s3cret" not in ours.stderr


@every_shell
def test_without_the_tools_it_needs_plane_runs_as_it_was(small: Image, shell: Shell, tmp_path: Path) -> None:
    """No rm, mkdir, cat, chmod and ln anywhere; busybox brings its own, so there the launcher works."""
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("dash", "bash", "busybox", "setpriv"):
        shutil.copy(os.path.realpath(program(name)), bare / name)
    plain, ours = (run(small, each, shell=shell, binds={"/usr/bin": bare}) for each in (pod(), inject(pod())))
    if shell == "busybox":
        assert (ours.shown["argv"][-4:], ours.loud) == (ASKED_LIMITS, [])
    else:
        assert_as_it_was(plain, ours, "a folder can't be made in /plane-webhook")


TOOLS = {
    "rm": "",  # for there is nothing to remove on a first start
    "mkdir": "a folder can't be made in /plane-webhook",
    "base64": "the files can't be unpacked into /plane-webhook",
    "tar": "the files can't be unpacked into /plane-webhook",
    "gzip": "the files can't be unpacked into /plane-webhook",
    "ln": "what was written to /plane-webhook is not there",
}


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("tool", TOOLS)
def test_where_one_tool_is_unusable_what_is_said_is_so(small: Image, shell: Shell, tool: str, tmp_path: Path) -> None:
    """Nothing is said of an earlier start, for there was none. Busybox brings its own tools."""
    path = tmp_path / tool
    script(path, "#!/bin/bash\nexit 9\n")
    bound = {os.path.realpath(f"/usr/bin/{tool}"): path}
    plain, ours = (run(small, each, shell=shell, binds=bound) for each in (pod(), inject(pod())))
    if TOOLS[tool]:
        assert_as_it_was(plain, ours, TOOLS[tool])
    else:
        assert (ours.shown["argv"][-4:], ours.loud) == (ASKED_LIMITS, [])
    assert "earlier" not in ours.stderr


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_without_rm_what_an_earlier_start_left_is_said_at_the_next(small: Image, shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "rm"
    script(path, "#!/bin/bash\nexit 9\n")
    with Container.from_pod(inject(pod()), image=small, shell=shell, binds={"/usr/bin/rm": path}) as container:
        assert container.wait() == 0
        assert "NOT IN EFFECT" not in container.stderr
        container.start()
        assert container.wait() == 0
        again = Ran(0, container.stdout, container.stderr)
    assert again.shown["argv"][-4:] == UPSTREAM_LIMITS
    assert [line.split(": ", 2)[2].split(";")[0] for line in again.loud] == [
        "what an earlier start left in /plane-webhook can't be cleared"
    ]


@every_shell
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change how a volume is mounted")
def test_where_nothing_may_be_executed_plane_runs_as_it_was(small: Image, shell: Shell) -> None:
    container = Container.from_pod(inject(pod()), image=small, shell=shell)
    remount(container, "noexec")
    with container:
        ours = Ran(container.wait(), container.stdout, container.stderr)
    assert_as_it_was(run(small, pod(), shell=shell), ours, "programs in /plane-webhook do not run")


@every_shell
def test_a_gunicorn_without_its_interpreter_ends_as_without_us(image: Image, shell: Shell, tmp_path: Path) -> None:
    changed = with_code(image, code(tmp_path / "code", gunicorn="#!/opt/gone/bin/python3"))
    plain, ours = run(changed, pod(), shell=shell), run(changed, inject(pod()), shell=shell)
    assert ours.code in (126, 127)
    assert plain.code in (126, 127)
    assert (len(ours.loud), ours.in_effect) == (1, [])
    assert "/opt/gone/bin/python3" in ours.loud[0]


@every_shell
def test_a_gunicorn_that_may_be_run_but_not_read_is_run_as_it_was(image: Image, shell: Shell, tmp_path: Path) -> None:
    """A program, since a script has to be read by its interpreter."""
    folder = code(tmp_path / "code")
    shutil.copy("/usr/bin/env", folder / "programs/gunicorn")
    (folder / "programs/gunicorn").chmod(0o711)
    script(folder / "bin/docker-entrypoint-api.sh", "#!/bin/bash\nexec gunicorn python show.py\n")
    what = pod(securityContext=RESTRICTED)
    plain, ours = (run(with_code(image, folder), each, shell=shell) for each in (what, inject(what)))
    assert_as_it_was(plain, ours, "/code/programs/gunicorn is no Python program")


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
def test_a_python_that_is_too_old_is_left_alone(image: Image, version: str, tmp_path: Path) -> None:
    python = images.find_python(version)
    if not python.version.startswith(version + "."):
        pytest.skip(f"there is no python{version} here")
    folder = code(tmp_path / "code", gunicorn="#!/opt/old/python")
    script(folder / "programs/gunicorn", "#!/opt/old/python\nprint('old Python runs')\n")
    wrapper = tmp_path / "python"
    script(wrapper, f'#!/bin/bash\nexec {python.executable} "$@"\n')
    binds = {"/opt/old/python": wrapper, str(python.prefix): python.prefix}
    ours = run(with_code(image, folder), inject(pod()), binds=binds)
    assert (ours.code, ours.stdout) == (0, "old Python runs\n")
    assert [line.partition(";")[0] for line in ours.loud] == [
        "plane-webhook: NOT IN EFFECT: its Python is older than 3.8"
    ]


# --- never rotation off without confirms, even where Plane's own entrypoint reads the variables

READS_THE_VARIABLES = """#!/bin/bash
exec gunicorn --max-requests "${GUNICORN_MAX_REQUESTS:-1200}" \\
    --max-requests-jitter "${GUNICORN_MAX_REQUESTS_JITTER:-1000}"
"""
NO_OVERLAY = {"the guard fails": SHIM, "the check fails": OVERLAY}  # which file is broken then


def limits(ran: Ran) -> tuple[int, int]:
    """What gunicorn's argparse makes of it: the last of each."""
    values = dict(pairwise(ran.shown["argv"]))
    return int(values["--max-requests"]), int(values["--max-requests-jitter"])


@every_shell
@pytest.mark.parametrize("how", NO_OVERLAY)
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (1200, 1000)),
        ({"chart": {"GUNICORN_MAX_REQUESTS": "1000", "GUNICORN_MAX_REQUESTS_JITTER": "150"}}, (1200, 1000)),
        # The user's own, as it was:
        ({"env": {"GUNICORN_MAX_REQUESTS": "0", "GUNICORN_MAX_REQUESTS_JITTER": "0"}}, (0, 0)),
        ({"env": {"GUNICORN_MAX_REQUESTS": "50"}}, (50, 0)),
    ],
)
def test_rotation_is_not_off_because_of_us_where_the_overlay_is_not_in_effect(
    image: Image, tmp_path: Path, *, shell: Shell, how: str, variables: Json, expected: tuple[int, int]
) -> None:
    changed = with_code(image, code(tmp_path / "code", entrypoint=READS_THE_VARIABLES))
    what = with_files(inject(pod(env=variables.get("env"), map_name="vars")), {NO_OVERLAY[how]: "def\n"})
    ours = run(changed, what, shell=shell, config_maps={"vars": variables.get("chart", {})})
    assert (len(ours.loud), ours.in_effect) == (1, [])
    assert limits(ours) == expected
    assert ("in place of 0" in ours.loud[0]) == (expected == (1200, 1000))


@every_shell
@pytest.mark.parametrize("how", NO_OVERLAY)
def test_with_the_charts_precedence_its_own_limits_stay(image: Image, shell: Shell, how: str, tmp_path: Path) -> None:
    changed = with_code(image, code(tmp_path / "code", entrypoint=READS_THE_VARIABLES))
    what = with_files(inject(pod(map_name="vars"), "precedence: chart"), {NO_OVERLAY[how]: "def\n"})
    assert limits(run(changed, what, shell=shell, config_maps={"vars": {}})) == (1200, 1000)
    chart = {"GUNICORN_MAX_REQUESTS": "1000", "GUNICORN_MAX_REQUESTS_JITTER": "150"}
    assert limits(run(changed, what, shell=shell, config_maps={"vars": chart})) == (1000, 150)


# --- the variables


@every_shell
@pytest.mark.parametrize(
    ("value", "limit"),
    [(" 7 ", 7), ("007", 7), ("999999999", 999999999)]
    + [
        (bad, None)
        for bad in ("abc", "", "-1", "1e3", "1.5", "+5", "\uff11", "9" * 10, "9" * 400, "0 --bind 0:1", "$(id)", "7\n8")
    ],
)
def test_a_value_that_gunicorn_could_not_use_stays_out(
    small: Image, shell: Shell, value: str, limit: int | None
) -> None:
    ours = run(small, inject(pod(env={"GUNICORN_MAX_REQUESTS": value})), shell=shell)
    argv = ours.shown["argv"]
    assert len(ours.in_effect) == 1  # the rest is
    if limit is None:  # neither of the two: the jitter alone would mean something else
        assert argv[-4:] == UPSTREAM_LIMITS
        said = "GUNICORN_MAX_REQUESTS is not a whole number of 0 to 999999999: as Plane has it"
        assert ours.loud == [f"plane-webhook: NOT IN EFFECT: {said}"]
    else:
        assert argv[-8:] == [*UPSTREAM_LIMITS, "--max-requests", str(limit), "--max-requests-jitter", "0"]
        assert ours.loud == []


def test_several_bad_values_are_one_line(small: Image) -> None:
    bad = dict.fromkeys(DEFAULTS, "maybe")
    ours = run(small, inject(pod(env=bad)))
    assert ours.shown["argv"][-4:] == UPSTREAM_LIMITS
    assert len(ours.loud) == 1
    assert all(name in ours.loud[0] for name in DEFAULTS)
    assert "maybe" not in ours.stderr


CHART = {
    "GUNICORN_MAX_REQUESTS": "1000",
    "GUNICORN_MAX_REQUESTS_JITTER": "150",
    "CELERY_TASK_PUBLISH_RETRY": "1",
    "CELERY_BROKER_POOL_LIMIT": "7",
}


@every_shell
def test_with_the_charts_precedence_only_what_is_unset_is_exported(small: Image, shell: Shell) -> None:
    what = inject(pod(map_name="vars"), "precedence: chart")
    for chart in (CHART, {}, {"GUNICORN_MAX_REQUESTS": "1000"}):
        ours = run(small, what, shell=shell, config_maps={"vars": chart})
        hold = {**DEFAULTS, **chart}
        assert {name: ours.shown["env"][name] for name in DEFAULTS} == hold
        assert limits(ours) == (int(hold["GUNICORN_MAX_REQUESTS"]), int(hold["GUNICORN_MAX_REQUESTS_JITTER"]))
        assert f"'CELERY_BROKER_POOL_LIMIT': {hold['CELERY_BROKER_POOL_LIMIT']}" in ours.in_effect[0]


@every_shell
@pytest.mark.parametrize("precedence", ["webhook", "chart"])
def test_limits_of_the_commands_own_are_the_only_ones(small: Image, shell: Shell, precedence: str) -> None:
    own = ["--max-requests", "500", "--max-requests-jitter=50"]
    what = inject(pod("gunicorn", *own, image="makeplane/plane-backend"), f"precedence: {precedence}")
    ours = run(small, what, shell=shell)
    assert ours.shown["argv"][-3:] == own
    assert not [name for name in ours.shown["env"] if name.startswith("GUNICORN_")]
    assert (len(ours.in_effect), ours.loud) == (1, [])
    broken = run(small, with_files(what, {OVERLAY: "def\n"}), shell=shell)
    assert (broken.shown["argv"][-3:], len(broken.loud)) == (own, 1)


@every_shell
def test_with_our_precedence_the_chart_loses_and_the_user_wins(small: Image, shell: Shell) -> None:
    what = inject(pod(map_name="vars", env={"GUNICORN_MAX_REQUESTS": "50"}))
    ours = run(small, what, shell=shell, config_maps={"vars": CHART})
    assert limits(ours) == (50, 0)
    assert ours.shown["env"]["CELERY_BROKER_POOL_LIMIT"] == "10"


# --- a restart finds the volume as the last run left it

EVIL = "echo evil ran >&2; exit 66"
ALL = "bin lib proof spool state settings.json"
LINKS = ("bin/celery", "bin/python", "bin/python3")
TAMPERING = {
    "altered": "for f in bin/* proof spool; do chmod u+w $f; "
    f"echo '#!/bin/sh' >$f; echo '{EVIL}' >>$f; done; chmod -R u+w lib; "
    "for f in lib/*.py lib/*/*.py; do echo 'raise SystemExit(66)' >$f; done; echo '{}' >settings.json",
    "emptied": f"chmod -R u+w {ALL}; for f in bin/* proof spool lib/*.py lib/*/*.py settings.json; do : >$f; done",
    "removed": f"rm -rf {ALL}",
    "one file removed": "rm bin/celery",
    "one module removed": "rm lib/plane_webhook/asked.py",
    "links to elsewhere": f"rm -rf {ALL}; ln -s /evil bin; ln -s /evil lib; ln -s /evil state; "
    "ln -s /evil/file proof; ln -s /evil/file spool; ln -s /evil/new settings.json",
    "links in our folders": "rm -rf bin/* lib/*; ln -s /evil/file bin/gunicorn; "
    "ln -s /evil/file lib/plane_webhook_settings.py; ln -s /evil lib/plane_webhook; ln -s /evil lib/more",
    "folders in place of files": "rm proof spool settings.json bin/gunicorn; "
    "mkdir -p proof/x spool/x settings.json/x bin/gunicorn/x",
    "files in place of folders": "rm -rf bin lib state; for f in bin lib state; do echo x >$f; done",
    "pipes in place of files": f"rm -rf {ALL}; mkfifo {ALL}",
    "locked": "chmod 0000 bin/gunicorn lib/*.py settings.json proof spool state bin lib",
    "locked deep": "mkdir -p lib/a/b; : >lib/a/b/c; chmod 0000 lib/plane_webhook lib/a/b lib/a lib",
    "odd names": "mkdir -p 'lib/a b' \"lib/new\nline\"; : >'bin/-rf'; : >'lib/*'; : >'state/-rf'",
    "states of processes that are gone": "echo '{}' >state/1; mkdir state/2",
    "modules that hide the standard library's": "for name in json os importlib sitecustomize site; do "
    "echo 'raise SystemExit(66)' >lib/$name.py; done",
    "byte code": "mkdir lib/__pycache__ && cp /evil/*.pyc lib/__pycache__/",
}


@every_shell
@pytest.mark.parametrize("how", TAMPERING)
def test_what_an_earlier_run_did_to_the_files_is_undone_by_a_restart(
    small: Image, shell: Shell, how: str, tmp_path: Path
) -> None:
    evil = tmp_path / "evil"
    (evil / "folder").mkdir(parents=True)
    (evil / "file").write_text("untouched")
    (evil / "plane_webhook_settings.py").write_text("raise SystemExit(66)\n")
    tag = images.PYTHON.replace(".", "")
    py_compile.compile(
        str(evil / "plane_webhook_settings.py"),
        cfile=str(evil / f"plane_webhook_settings.cpython-{tag}.pyc"),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    for path in (evil, *evil.rglob("*")):
        path.chmod(0o777)
    before = snapshot(evil)
    stays = "#!/bin/bash\nexec gunicorn stay --max-requests 1200 --max-requests-jitter 1000\n"
    image = with_code(small, code(tmp_path / "code", entrypoint=stays))
    what = inject(pod(securityContext=RESTRICTED))
    with Container.from_pod(what, image=image, shell=shell, binds={"/evil": evil}) as container:
        container.wait_for_log("STAYS\n")
        assert container.exec(["bash", "-ec", f"cd {MOUNT_PATH}; {TAMPERING[how]}"]).returncode == 0
        container.restart(kill=True)
        container.wait_for_log("STAYS\n")
        ours = Ran(0, container.stdout, container.stderr)
        texts = {
            "settings.json": what["spec"]["containers"][0]["command"][SETTINGS].replace("$$", "$") + "\n",
            **payload.FILES,
            **dict.fromkeys(LINKS, payload.FILES[SHIM]),
        }
        look = f"cd {MOUNT_PATH}; cat {' '.join(texts)}; find . -exec stat -c '%a %n' {{}} +"
        held = container.exec(["bash", "-ec", look]).stdout
    folders = {str(parent) for path in texts for parent in PurePosixPath(path).parents if str(parent) != "."}
    modes = dict.fromkeys(texts, "444") | dict.fromkeys((SHIM, *LINKS, PROOF, "spool"), "555")
    modes |= {"settings.json": "644", "state": "1777", **dict.fromkeys(folders, "755")}
    everything = {f"{mode} ./{path}" for path, mode in modes.items()}
    assert held.startswith("".join(texts.values()))
    assert set(held.removeprefix("".join(texts.values())).splitlines()) == {"777 .", *everything}
    assert ours.shown["argv"][-4:] == ASKED_LIMITS
    assert (len(ours.in_effect), ours.loud) == (1, [])
    assert "evil" not in ours.stderr
    assert snapshot(evil) == before


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(each): (each.stat().st_mode, each.read_bytes() if each.is_file() else b"") for each in folder.rglob("*")
    }


@every_shell
def test_a_volume_that_was_filled_up_is_said(small: Image, shell: Shell, tmp_path: Path) -> None:
    stays = "#!/bin/bash\nexec gunicorn stay --max-requests 1200 --max-requests-jitter 1000\n"
    image = with_code(small, code(tmp_path / "code", entrypoint=stays))
    with Container.from_pod(inject(pod(securityContext=RESTRICTED)), image=image, shell=shell) as container:
        container.wait_for_log("STAYS\n")
        container.exec(["sh", "-c", f"cd {MOUNT_PATH}; rm -rf *; cat /dev/zero >junk"])
        container.restart(kill=True)
        container.wait_for_log("STAYS\n")
        ours = Ran(0, container.stdout, container.stderr)
    assert ours.shown["argv"][-4:] == UPSTREAM_LIMITS
    assert (len(ours.loud), ours.in_effect) == (1, [])
    assert "can't be written" in ours.loud[0]


@every_shell
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to another user")
def test_files_of_another_user_are_replaced_or_said(small: Image, shell: Shell) -> None:
    """A disk-backed volume, which the test can reach into."""
    what = inject(pod(securityContext=RESTRICTED))
    what["spec"]["volumes"][0]["emptyDir"] = {}
    container = Container.from_pod(what, image=small, shell=shell)
    folder = container.folders[VOLUME]
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text("{}")  # may be removed: the folder is open to all
    with container:
        assert container.wait() == 0
        assert (folder / "settings.json").stat().st_uid == 65534
        for name in ("bin", "lib"):
            (folder / name).chmod(0o755)
            os.chown(folder / name, 0, 0)
        container.start()
        assert container.wait() == 0
        ours = Ran(0, container.stdout, container.stderr)
    assert ours.shown["argv"][-4:] == UPSTREAM_LIMITS
    assert (len(ours.loud), ours.in_effect) == (1, [])
    assert "can't be cleared" in ours.loud[0]


# --- what travels


def test_the_texts_are_ascii_and_no_word_is_too_long() -> None:
    """Older kubelets corrupt what is beyond ASCII after a dollar sign."""
    words = inject(pod())["spec"]["containers"][0]["command"]
    assert words[GUARD].isascii()
    assert words[EXPORTS] == " ".join(f"{name}={value}" for name, value in DEFAULTS.items())
    assert all(each.isascii() for each in words)
    assert words[3] == ARGV0
    assert words[PACKED] == payload.PACKED
    assert len(words) == PACKED + 2
    assert max(map(len, words)) < 128 * 1024  # the kernel's limit for one argument


@every_shell
@pytest.mark.parametrize(
    "text", [payload.GUARD, payload.FILES[SHIM], payload.FILES["spool"]], ids=["guard", "shim", "spool"]
)
def test_the_scripts_are_clean_in_every_shell(small: Image, shell: Shell, text: str) -> None:
    what = pod("/bin/sh", "-n", "-c", text.replace("$", "$$"))
    assert run(small, what, shell=shell) == Ran(0, "", "")
