"""Waiting for a condition: for what a test needs, not for a time in which it should be there."""

import time
from collections.abc import Callable
from pathlib import Path

_INTERVAL = 0.005


def wait_until(condition: Callable[[], object], *, what: str = "it", seconds: float = 20.0) -> None:
    """Return once `condition()` is true; AssertionError when it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(_INTERVAL)


def is_asleep(pid: int) -> bool:
    """Whether every thread of a process sleeps, as in a read or write that blocks; so does one that ended."""
    try:
        states = [
            (task / "stat").read_text().rpartition(")")[2] for task in Path(f"/proc/{pid}/task").iterdir()
        ]
    except FileNotFoundError:  # one ended meanwhile: look again
        return not Path(f"/proc/{pid}").exists()
    return all(state.split()[0] in "SZ" for state in states)
