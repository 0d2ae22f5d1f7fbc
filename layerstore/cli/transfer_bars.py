"""Show a progress bar for each blob of a pull or a push on a terminal, and nothing elsewhere."""

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from layerstore.digest import Digest
from layerstore.transport.base import BlobReport, BlobState, ignore

_WORDS: dict[BlobState, str] = {
    "waiting": "Waiting",
    "moving": "Transferring",
    "retrying": "Retrying",
    "present": "Already exists",
    "mounted": "Mounted",
    "done": "Complete",
}
_EVERY = 0.1  # seconds between two updates of one blob


@contextmanager
def transfer_bars(*, quiet: bool, words: Mapping[BlobState, str] = _WORDS) -> Iterator[BlobReport]:
    """Yield the function to report blobs to; `words` replaces the words for some states."""
    if quiet or not sys.stderr.isatty():
        yield ignore
        return
    # rich takes longer to import than most verbs take to run.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        TextColumn("{task.fields[state]:<20}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    # Lines on standard output go above the bars if that is a terminal too.
    seen = sys.stdout.isatty()
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=seen) as bars:
        yield _BlobBars(bars, {**_WORDS, **words})


class _BlobBars:
    """One line for each blob. Thread-safe."""

    def __init__(self, bars: Any, words: Mapping[BlobState, str]) -> None:
        self._bars = bars
        self._words = words
        self._tasks: dict[Digest, Any] = {}
        self._last: dict[Digest, tuple[BlobState, float]] = {}
        self._lock = threading.Lock()

    def __call__(self, digest: Digest, state: BlobState, done: int, total: int) -> None:
        now, word = time.monotonic(), self._words[state]
        before, when = self._last.get(digest, (None, 0.0))
        if state == before and now - when < _EVERY and done < total:
            return
        with self._lock:
            if digest not in self._tasks:
                self._tasks[digest] = self._bars.add_task(digest.short, total=total, state=word)
            self._last[digest] = state, now
            task = self._tasks[digest]
        finished = state in {"present", "mounted", "done"}
        self._bars.update(task, completed=total if finished else done, state=word)
