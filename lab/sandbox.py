"""A program as PID 1 of a pid namespace of its own (bubblewrap), with all that it starts.

When PID 1 ends, the kernel kills the rest; when the Python process ends, however it ends, the kernel kills PID 1. So
nothing is left behind and nobody needs to be looked for by name. This module must never signal a process that isn't in
the namespace that it made.

It is there beside lab/node because it starts at once and needs neither root nor cgroup v1: container.py's containers,
the brokers and databases and tests/image run in it, in CI too, which has no node.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lab.cache import LabError
from lab.packages import program
from lab.process import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# "Die with your parent" means the thread that started you. This one lasts until Python ends, whichever thread asks.
starter = ThreadPoolExecutor(1, thread_name_prefix="lab-starter")


@dataclass(frozen=True)
class Inhabitant:
    """A process in the namespace, by its pid outside of it."""

    pid: int
    argv: tuple[str, ...]


class Sandboxed:
    """A running program in namespaces of its own. `options` are bwrap's; stdout and stderr go to files, appended."""

    def __init__(
        self,
        name: str,
        options: Sequence[str],
        argv: Sequence[str],
        *,
        stdout: Path,
        stderr: Path,
        env: Mapping[str, str] | None = None,
        enter: Sequence[str] = (),
    ) -> None:
        """Start it. `enter` is a command prefix (nsenter) that leads to where bwrap is to run."""
        self.name, self.stdout, self.stderr = name, stdout, stderr
        always = ["--unshare-pid", "--as-pid-1", "--die-with-parent"]
        # Through a file, because neither length nor content of the options is limited there.
        with (
            os.fdopen(os.memfd_create("bwrap-options"), "w+b") as listed,
            stdout.open("ab") as out,
            stderr.open("ab") as err,
        ):
            listed.write(b"".join(os.fsencode(word) + b"\0" for word in (*always, *options)))
            listed.seek(0)
            info, info_write = os.pipe()
            command = [*enter, program("bwrap"), "--info-fd", str(info_write), "--args", str(listed.fileno())]
            self._popen = starter.submit(
                subprocess.Popen,
                [*command, "--", *argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=env,
                pass_fds=(listed.fileno(), info_write),
                start_new_session=True,
            ).result()
            os.close(info_write)
        with os.fdopen(info) as reader:
            self.pid = self._first_pid(reader)  # PID 1 of the namespace, by its pid outside
        try:
            self._pidfd = os.pidfd_open(self.pid)
            self._namespace = os.stat(f"/proc/{self.pid}/ns/pid").st_ino  # noqa: PTH116 - not a file
            wait_for(self._arrived, 20, f"{name} starts")
        except (ProcessLookupError, FileNotFoundError):  # it has ended already: its exit code says why
            self._popen.wait()

    def _first_pid(self, reader: IO[str]) -> int:
        text = reader.read()
        if not text:
            self._popen.wait()
            raise LabError(f"{self.name}: bubblewrap could not make the namespaces:\n{self.tail()}")
        return json.loads(text)["child-pid"]

    def _arrived(self) -> bool:
        """Tell whether the program itself runs, and not what prepares its namespaces and user."""
        if self._popen.poll() is not None:
            return True
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/exe").readlink().name not in {"bwrap", "setpriv"}
        return False

    def alive(self) -> bool:
        return self._popen.poll() is None

    def check(self) -> None:
        """Raise LabError with the end of the log if the program has ended."""
        if not self.alive():
            raise LabError(f"{self.name} ended with exit code {self._popen.returncode}:\n{self.tail()}")

    def tail(self, lines: int = 30) -> str:
        texts = [path.read_text(errors="replace") for path in dict.fromkeys((self.stdout, self.stderr))]
        return "\n".join("\n".join(text.splitlines()[-lines:]) for text in texts)

    def signal(self, number: int) -> None:
        """Send PID 1 a signal. As in any container, only SIGKILL and those that it has a handler for do anything."""
        if self.alive():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def wait(self, timeout: float) -> int:
        """Return the exit code once PID 1 has ended: 128 + N after signal N."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name} still runs after {timeout:g} s:\n{self.tail()}") from None

    def stop(self, grace: float) -> int:
        """SIGTERM, and SIGKILL `grace` seconds later, as a kubelet does; return the exit code."""
        self.signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(grace)
        self.signal(signal.SIGKILL)
        return self.wait(30)

    def inhabitants(self) -> list[Inhabitant]:
        """Return the namespace's processes in the order of its own pids: PID 1, then oldest first.

        Outside of it the pids say nothing of that: the machine's begin anew at 300 when they have come to their end.
        """
        found = {}
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                pid = int(entry.name)
                if os.stat(entry / "ns/pid").st_ino == self._namespace:  # noqa: PTH116
                    words = (entry / "cmdline").read_bytes().split(b"\0")[:-1]
                    status = (entry / "status").read_text(errors="replace")
                    inside = status.split("NSpid:")[1].splitlines()[0].split()[-1]
                    found[int(inside)] = Inhabitant(pid, tuple(os.fsdecode(word) for word in words))
        return [found[inside] for inside in sorted(found)]

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            os.close(self._pidfd)
