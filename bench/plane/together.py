"""Doing something to several releases at the same time, so that each meets the same machine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T, R = TypeVar("T"), TypeVar("R")


def each(things: Sequence[T], deed: Callable[[T], R]) -> list[R]:
    """Do it to all of them side by side; what came of it. The first error is raised when all are done."""
    with ThreadPoolExecutor(len(things)) as pool:
        return [done.result() for done in [pool.submit(deed, thing) for thing in things]]
