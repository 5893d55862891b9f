"""A container of an image, under what Pod Security `restricted` and a read-only root leave it.

It has the image's files and the mounts that it is given, and nothing of this machine but the network.

It is there beside lab/node, on which the same image runs in tests/e2e/node, because CI has no node and the image is to
be run there too; and because it takes a second.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lab.oci import Layout
from lab.process import Startable
from lab.sandbox import Sandboxed

if TYPE_CHECKING:
    from collections.abc import Mapping

# A runtime changes the user before it starts the program, and bubblewrap can't without mapping it to root's: the
# image's own Python does it, for there is nothing else in it that could.
BECOME = "import os, sys; os.setgroups([]); os.setgid({gid}); os.setuid({uid}); os.execv(sys.argv[1], sys.argv[1:])"


class Container(Startable):
    """`with` starts it with these arguments, and it is gone afterwards.

    `mounts` has folders of this machine by where the container finds them.
    """

    def __init__(
        self,
        image: Layout,
        *arguments: str,
        mounts: Mapping[str, Path] | None = None,
        user: str | None = None,
        workdir: str | None = None,
        program: str | None = None,
    ) -> None:
        """Prepare it. `user` is UID:GID; without it, `workdir` and `program` they are the image's."""
        self.image, self.arguments, self.mounts, self.program = image, arguments, mounts or {}, program
        self.user, self.workdir = user, workdir
        self.folder = Path(tempfile.mkdtemp(prefix="plane-webhook-image-"))
        self.out, self.err = self.folder / "out", self.folder / "err"

    def start(self) -> None:
        """Start it; what it prints is in `out` and `err`."""
        root = self.folder / "root"
        self.image.unpack(root)
        configuration = self.image.configuration()
        uid, gid = map(int, (self.user or configuration["User"]).split(":"))
        options = ["--bind", str(root), "/", "--proc", "/proc", "--dev", "/dev", "--unshare-ipc", "--unshare-uts"]
        for path, source in self.mounts.items():
            (root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)  # bubblewrap would make it for root only
            options += ["--bind", str(source), path]
        options += [
            "--remount-ro",
            "/",
            "--chdir",
            self.workdir or configuration.get("WorkingDir") or "/",
            "--clearenv",
        ]
        for variable in configuration["Env"]:
            options += ["--setenv", *variable.split("=", 1)]
        options += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        become = ["/usr/bin/python3", "-I", "-c", BECOME.format(uid=uid, gid=gid)]
        entrypoint = [self.program] if self.program else configuration["Entrypoint"]
        argv = [*become, *entrypoint, *(self.arguments or configuration["Cmd"])]
        self.process = Sandboxed("the image", options, argv, stdout=self.out, stderr=self.err)

    def close(self) -> None:
        """End it at once and remove its root."""
        if hasattr(self, "process"):
            self.process.stop(0)
        shutil.rmtree(self.folder)

    def status(self) -> dict[str, str]:
        """Return what /proc says of its first process."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def run(
    image: Layout,
    *arguments: str,
    mounts: Mapping[str, Path] | None = None,
    user: str | None = None,
    workdir: str | None = None,
    program: str | None = None,
) -> tuple[int, str, str]:
    """Run a container to its end; return its exit code and what it printed on stdout and stderr."""
    with Container(image, *arguments, mounts=mounts, user=user, workdir=workdir, program=program) as container:
        return container.process.wait(60), container.out.read_text(), container.err.read_text()
