"""Turns at a steady rate: what keeps the limits of an endpoint."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import cache


class Pace:
    """Hands out turns, ``per_minute`` in sum at most, to all calls, threads and event loops of this process.

    A turn of size n keeps others waiting for n / ``per_minute`` minutes. Nothing is saved up while nobody asks, so no
    burst comes after a silence. (The limiters there are for asyncio belong to one event loop, and so begin anew with
    each call.)
    """

    def __init__(self, per_minute: float | None) -> None:
        """``None`` never keeps anybody waiting."""
        self.per_minute = per_minute
        self._free = 0.0
        self._lock = threading.Lock()

    async def turn(self, size: float = 1.0) -> None:
        if not self.per_minute:
            return
        with self._lock:
            now = time.monotonic()
            begins = max(now, self._free)
            self._free = begins + 60 * size / self.per_minute
        await asyncio.sleep(begins - now)


@cache
def pace(what: str, url: str | None, model: str, per_minute: float | None) -> Pace:
    """The pace of requests, or of tokens, to one model of one server: whoever asks it in this process shares it."""
    return Pace(per_minute)
