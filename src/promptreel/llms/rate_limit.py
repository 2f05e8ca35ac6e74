"""Rate limits of endpoints: requests, or tokens, per minute."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import cache


class RateLimit:
    """A limit of ``per_minute`` units that all calls, threads and event loops of this process share.

    A use of n units delays the next one by n / ``per_minute`` minutes. Unused time is not saved up, so no burst follows
    a pause. (The limiters that exist for asyncio belong to one event loop, and would begin anew with each call.)
    """

    def __init__(self, per_minute: float | None) -> None:
        """``None`` is no limit."""
        self.per_minute = per_minute
        self._free = 0.0
        self._lock = threading.Lock()

    async def wait(self, size: float = 1.0) -> None:
        """Wait until ``size`` units may be used, and use them."""
        if not self.per_minute:
            return
        with self._lock:
            now = time.monotonic()
            begins = max(now, self._free)
            self._free = begins + 60 * size / self.per_minute
        await asyncio.sleep(begins - now)


@cache
def rate_limit(unit: str, url: str | None, model: str, per_minute: float | None) -> RateLimit:
    """Return the limit of a unit (``requests``, ``tokens``) for one model of one server.

    Equal arguments give the same object: all components of this process that ask the model share its limit.
    """
    return RateLimit(per_minute)
