"""Giving memory back after the kernel has forgotten many inodes, once that is over."""

import threading
from collections.abc import Callable

from overlayfs_py.syscalls.memory import give_back

# Forgetting comes in bursts (memory pressure, a tree that was removed), and giving back takes milliseconds.
_SECONDS = 1.0


class Tidying:
    """`call` has the loop's thread do something between two requests; any thread may ask it."""

    def __init__(self, call: Callable[[Callable[[], None]], None]) -> None:
        self._call = call
        self._timer: threading.Timer | None = None

    def soon(self) -> None:
        """Give memory back a little later, once however often this is called meanwhile."""
        if self._timer is None:
            self._timer = threading.Timer(_SECONDS, self._call, (self._now,))
            self._timer.daemon = True
            self._timer.start()

    def _now(self) -> None:
        self._timer = None
        give_back()
