"""Whether the disk may be waited for here and now, or had better be left to a thread.

Handing work over costs more than reading what is cached, or a quick disk; but while the loop waits for a slow
one, so does everybody else. What it took lately tells which it is, whoever waited.
"""

# Seconds; others may be kept waiting as long as this.
_ENOUGH = 2e-3
_SPREAD = 4


class Patience:
    """For one kind of work. `lost`: leave it to a thread, until threads find it quick again."""

    __slots__ = ("_usual",)

    def __init__(self) -> None:
        self._usual = 0.0

    @property
    def lost(self) -> bool:
        return self._usual > _ENOUGH

    def took(self, seconds: float) -> None:
        """It took so long this time. One exception, however long, is not enough to lose patience."""
        self._usual += (min(seconds, 3 * _ENOUGH) - self._usual) / _SPREAD
