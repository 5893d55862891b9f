"""PostgreSQL as plain processes on loopback, with the limit of connections that Plane's chart leaves it: 100.

Every one starts from the same empty database, made once for the machine. It runs in namespaces of its own (sandbox.py),
as nobody where the lab is root, because PostgreSQL refuses to be root. Nothing is flushed to disk: a lab's data needn't
outlive a power failure. This module must never touch a PostgreSQL that it did not start.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from lab import cache
from lab.cache import LabError
from lab.packages import PACKAGES, program
from lab.process import Startable, free_port, wait_for
from lab.sandbox import Sandboxed

START = 30.0  # seconds; 0.3 alone
NOBODY = 65534
DEFAULT_CONNECTIONS = 100  # of the chart, which sets none: PostgreSQL's own
DATABASE = USER = "plane"
# What PostgreSQL calls the process of a connection to the database: who asks, and what it does, follow.
BACKEND = f"postgres: {USER} {DATABASE} "


class Postgres(Startable):
    """A PostgreSQL with an empty database. `with` starts it and removes it with its data."""

    def __init__(self, max_connections: int = DEFAULT_CONNECTIONS) -> None:
        self._programs = _programs()
        self.folder = Path(tempfile.mkdtemp(prefix="plane-webhook-postgres-"))
        self.port, self.max_connections = free_port(), max_connections
        self.url = f"postgresql://{USER}@127.0.0.1:{self.port}/{DATABASE}"
        self.log = self.folder / "postgres.log"
        self._data = self.folder / "data"
        shutil.copytree(_template(self._programs), self._data)
        _give_away(self.folder)
        self._process: Sandboxed | None = None

    def start(self) -> None:
        """Start it, on the data that it left, and return when it takes connections."""
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": self.max_connections,
            "fsync": "off",
            "full_page_writes": "off",
        }
        self._process = Sandboxed(
            "PostgreSQL",
            # Its shared memory is nobody else's, and goes with it however it ends.
            ["--dev-bind", "/", "/", "--proc", "/proc", "--unshare-ipc", "--perms", "1777", "--tmpfs", "/dev/shm"],
            [
                *_as_nobody(),
                str(self._programs / "postgres"),
                *("-D", str(self._data)),
                *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
            ],
            stdout=self.log,
            stderr=self.log,
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
        )
        wait_for(self._answers, START, "PostgreSQL takes connections", need=[self._process])

    def stop(self) -> None:
        """Stop it as an operator in a hurry does: connections are closed, what was committed is kept."""
        if self._process is not None:
            self._process.signal(2)  # SIGINT: its fast shutdown; SIGTERM would wait for the clients
            self._process.wait(30)

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.signal(9)
            self._process.wait(30)

    def close(self) -> None:
        """Kill it and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def connections(self) -> int:
        """How many connections the database has now. Counted from outside: asking it would take one of them."""
        if self._process is None:
            return 0
        return sum(" ".join(each.argv).startswith(BACKEND) for each in self._process.inhabitants())

    def dump(self, path: Path) -> None:
        """Write all that the database holds to a file."""
        _run([self._programs / "pg_dump", *self._client(), "--file", path], as_nobody=False)

    def load(self, path: Path) -> None:
        """Fill the database, an empty one, with what `dump` wrote."""
        options = ("--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--output", os.devnull)
        _run([self._programs / "psql", *self._client(), *options, "--file", path], as_nobody=False)

    def _client(self) -> tuple[str, ...]:
        return ("--host", "127.0.0.1", "--port", str(self.port), "--username", USER, "--dbname", DATABASE)

    def _answers(self) -> bool:
        ask = [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ask, check=False).returncode == 0


def _programs() -> Path:
    """Return the folder of the newest PostgreSQL's programs: Debian keeps them off PATH."""
    found = list(Path("/").glob(PACKAGES["postgresql"][1:]))
    if not found:
        raise LabError("PostgreSQL isn't there: install the Debian package postgresql: `apt-get install postgresql`")
    return max(found, key=lambda path: int(re.sub(r"\D", "", path.parts[-3]))).parent


def _template(programs: Path) -> Path:
    """Return a data folder with an empty database, made if need be: seconds that not every start has to wait for."""

    def make(path: Path) -> None:
        path.mkdir(mode=0o700)
        with tempfile.TemporaryDirectory(prefix="plane-webhook-initdb-") as made:  # nobody can't enter the cache
            data = Path(made) / "data"
            data.mkdir(mode=0o700)
            _give_away(Path(made))
            _run([programs / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"])
            _run([programs / "postgres", "--single", "-D", data, "postgres"], input=f"CREATE DATABASE {DATABASE}\n")
            shutil.copytree(data, path, dirs_exist_ok=True)

    version = programs.parent.name
    return cache.made(
        cache.folder("postgres", version) / "data", make, what=f"an empty PostgreSQL {version}", takes="two seconds"
    )


def _run(argv: list[str | Path], *, as_nobody: bool = True, **options: str) -> None:
    command = [*(_as_nobody() if as_nobody else []), *map(str, argv)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **options)
    if run.returncode != 0:
        raise LabError(f"`{' '.join(command)}` failed:\n{run.stdout}{run.stderr}")


def _as_nobody() -> list[str]:
    """Return the command prefix that makes root nobody; anybody else is good enough for PostgreSQL as they are."""
    if os.geteuid() != 0:
        return []
    return [program("setpriv"), "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--"]


def _give_away(folder: Path) -> None:
    """Make a folder nobody's, with all that is in it."""
    if os.geteuid() != 0:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
