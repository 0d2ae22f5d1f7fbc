"""Whether what moves is too slow to wait for: by the time spent waiting, not by its reader's own."""

from __future__ import annotations

MIN_RATE = 1000  # bytes a second, as curl and dnf have it
WINDOW = 30.0  # seconds of waiting


class Meter:
    """Counts what moved, and how long that took, window by window."""

    def __init__(self, rate: int = MIN_RATE, window: float = WINDOW) -> None:
        self._rate, self._window = rate, window
        self._moved, self._waited = 0, 0.0

    def restart(self) -> None:
        """Something else begins: what was so far counts no more."""
        self._moved, self._waited = 0, 0.0

    def is_too_slow(self, size: int, seconds: float) -> bool:
        """Count bytes that took so long; whether the window that ends with them had too few."""
        self._moved += size
        self._waited += seconds
        if self._waited < self._window:
            return False
        slow = self._moved < self._rate * self._waited
        self.restart()
        return slow
