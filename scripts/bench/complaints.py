"""A contender that fails or hangs gets no figure and a line on stderr, and the run continues."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from contenders import CannotMount, Contender


class TooSlow(Exception):
    """A measurement did not end in time; raised by the alarm."""


@contextmanager
def complaints(contender: Contender, what: str) -> Iterator[None]:
    """Failures of the contender in the body end the body."""
    try:
        yield
    except (OSError, subprocess.SubprocessError, CannotMount, TooSlow) as error:
        print(f"bench: {contender.name}: {what}: {error}", file=sys.stderr)


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    """TooSlow in the body after `seconds`."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"not done in {seconds} s")

    previous = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
