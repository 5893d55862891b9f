"""What goes on in a thread of its own for as long as a `with` block lasts."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Self


class Meanwhile(ABC):
    """Use it as a context manager. `work` is to return soon after `over` is set; the block's end waits for that."""

    def __init__(self, name: str | None = None) -> None:
        self.over = threading.Event()
        self._thread = threading.Thread(target=self.work, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._thread.join()

    @abstractmethod
    def work(self) -> None:
        """What the thread does."""
