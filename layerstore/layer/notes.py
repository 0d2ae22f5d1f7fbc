"""What an operation left out or could not keep, as lines for the user."""

from __future__ import annotations

from layerstore.errors import one_line, shortened

_MOST = 200


class Notes:
    """Collects lines. Keeps each line once, and of more than 200 only the number."""

    __slots__ = ("_lines", "_more")

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}
        self._more = 0

    def add(self, line: str) -> None:
        line = shortened(one_line(line))
        if line in self._lines:
            return
        if len(self._lines) < _MOST:
            self._lines[line] = None
        else:
            self._more += 1

    def lines(self) -> tuple[str, ...]:
        more = (f"and {self._more} more like these",) if self._more else ()
        return (*self._lines, *more)
