"""A name server on loopback that knows one answer, and gives it, gives it late, fails, or is silent.

Port 53 is where resolvers ask and needs root; every server has an address of its own in 127.0.0.0/8. This module must
never listen anywhere else.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Self

from lab.cache import LabError

Mode = Literal["answer", "fail", "silent"]

_A = 1
_ANSWERS, _FAILS = 0x8180, 0x8182  # a response, recursion available; the last digit 2 is SERVFAIL


class NameServer:
    """Resolves every name to 127.0.0.1. Use it as a context manager; bind `resolv_conf` into a container."""

    def __init__(self) -> None:
        self.mode: Mode = "answer"
        self.delay = 0.0  # seconds before it answers
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.address = f"127.53.{random.randint(1, 250)}.{random.randint(1, 250)}"  # noqa: S311 - not a secret
        try:
            self._socket.bind((self.address, 53))
        except OSError as error:
            self._socket.close()
            raise LabError(f"can't listen on {self.address}:53 ({error.strerror}): run it as root") from error
        self._folder = TemporaryDirectory(prefix="plane-webhook-dns-")
        self.resolv_conf = Path(self._folder.name, "resolv.conf")
        self.resolv_conf.write_text(f"nameserver {self.address}\n", encoding="ascii")
        self.resolv_conf.chmod(0o644)
        Path(self._folder.name).chmod(0o755)
        self._thread = threading.Thread(target=self._serve, name="name-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._folder.cleanup()

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                query, client = self._socket.recvfrom(512)
                if self.mode != "silent" and query:
                    threading.Timer(self.delay, self._send, (self._response(query), client)).start()

    def _send(self, response: bytes, client: tuple[str, int]) -> None:
        with suppress(OSError):
            self._socket.sendto(response, client)

    def _response(self, query: bytes) -> bytes:
        end = query.index(0, 12) + 5  # the question: a name that ends with an empty label, type and class
        question = query[12:end]
        (kind,) = struct.unpack(">H", question[-4:-2])
        found = self.mode == "answer" and kind == _A
        header = struct.pack(">HHHHH", _FAILS if self.mode == "fail" else _ANSWERS, 1, int(found), 0, 0)
        answer = b"\xc0\x0c" + struct.pack(">HHIH4B", _A, 1, 0, 4, 127, 0, 0, 1) if found else b""
        return query[:2] + header + question + answer
