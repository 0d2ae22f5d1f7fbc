"""Decide whether a transfer is too slow, by the time spent waiting for it, not by that of its reader."""

from __future__ import annotations

MIN_RATE = 1000  # bytes a second, as in curl and dnf
WINDOW = 30.0  # seconds of waiting


class Meter:
    """Counts bytes and the time they took, window by window."""

    def __init__(self, rate: int = MIN_RATE, window: float = WINDOW) -> None:
        self._rate, self._window = rate, window
        self._moved, self._waited = 0, 0.0

    def restart(self) -> None:
        """Start anew for another transfer."""
        self._moved, self._waited = 0, 0.0

    def is_too_slow(self, size: int, seconds: float) -> bool:
        """Count bytes and the seconds they took; return whether a window ended with too few."""
        self._moved += size
        self._waited += seconds
        if self._waited < self._window:
            return False
        slow = self._moved < self._rate * self._waited
        self.restart()
        return slow
