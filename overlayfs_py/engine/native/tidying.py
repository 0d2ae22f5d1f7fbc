"""Giving memory back after the kernel has forgotten many inodes, once that is over."""

from collections.abc import Callable

from overlayfs_py.syscalls.memory import give_back

# Forgetting comes in bursts (memory pressure, a tree that was removed), and giving back takes milliseconds.
_SECONDS = 1.0


class Tidying:
    """`later` has the loop's thread do something between two requests, after some seconds."""

    def __init__(self, later: Callable[[float, Callable[[], None]], None]) -> None:
        self._later = later
        self._is_waiting = False

    def soon(self) -> None:
        """Give memory back a little later, once however often this is called meanwhile."""
        if not self._is_waiting:
            self._is_waiting = True
            self._later(_SECONDS, self._now)

    def _now(self) -> None:
        self._is_waiting = False
        give_back()
