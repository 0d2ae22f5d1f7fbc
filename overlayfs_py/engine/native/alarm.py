"""Delayed calls: one timer thread for all of them, and none while no call is pending."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable

Call = Callable[[], None]


class Alarm:
    """Passes each call to `ring` when it is due, the earliest first, in the alarm's own thread."""

    def __init__(self, ring: Callable[[Call], None]) -> None:
        self._ring = ring
        self._lock = threading.Lock()
        self._due: list[tuple[float, int, Call]] = []
        self._numbers = itertools.count()
        self._timer: threading.Timer | None = None

    def set(self, seconds: float, call: Call) -> None:
        """Pass `call` to `ring` after so many seconds; callable from any thread."""
        number = next(self._numbers)
        with self._lock:
            heapq.heappush(self._due, (time.monotonic() + seconds, number, call))
            if self._due[0][1] == number:  # it is the earliest
                self._wait()

    def _wait(self) -> None:
        """Start one timer, for the earliest call."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._due:
            self._timer = threading.Timer(max(0.0, self._due[0][0] - time.monotonic()), self._awake)
            self._timer.daemon = True
            self._timer.start()

    def _awake(self) -> None:
        calls = []
        with self._lock:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                calls.append(heapq.heappop(self._due)[2])
            self._wait()
        for call in calls:
            self._ring(call)
