"""One large blob over several connections: pieces asked for by range, put together in order.

A piece waits in memory until all before it have been written, so that what is on disk is always a beginning
of the blob, which the next attempt can go on from, and the digest is made in passing. How far anybody reads
ahead of what is written is bounded, and so is the memory.
"""

from __future__ import annotations

import threading

from layerstore.store.partials import Partial
from layerstore.transport.base import BlobReport
from layerstore.transport.errors import Transient
from layerstore.transport.reading import is_range_from
from layerstore.transport.registry import Repository
from layerstore.transport.retry import PROGRESS, Retry

PIECE = 8 << 20
_AHEAD = 5  # pieces begun and not written yet
_PATIENCE = 0.2  # seconds between two looks at whether to stop


class NoRanges(Exception):
    """The registry sends something else than the range it was asked for."""


class Pieces:
    """The pieces of one blob from what is there of it to its end; `work` is for any number of threads."""

    def __init__(self, repository: Repository, partial: Partial, report: BlobReport) -> None:
        self._repository = repository
        self._partial = partial
        self._report = report
        self._next = partial.size
        self._ready: dict[int, list[bytes]] = {}
        self._writing = False
        self._failed = False
        self._received = partial.size
        self._changed = threading.Condition()

    def work(self) -> None:
        """Get pieces until there is none left to get. NoRanges, for everybody, when that is no way here."""
        while (piece := self._claim()) is not None:
            try:
                self._deliver(piece[0], self._get(*piece))
            except BaseException:
                self._fail()
                raise

    def wait(self) -> None:
        """Until everything is written, or somebody failed (NoRanges)."""
        with self._changed:
            while self._partial.size < self._partial.descriptor.size:
                if self._failed:
                    raise NoRanges
                self._repository.client.stop.check()
                self._changed.wait(_PATIENCE)

    def end(self) -> None:
        """Nobody writes to the partial any more once this returns; what is still on its way is dropped."""
        with self._changed:
            self._failed = True
            self._changed.notify_all()
            while self._writing:
                self._changed.wait(_PATIENCE)

    def _claim(self) -> tuple[int, int] | None:
        """Begin and end of the next piece; waits while too many are on their way."""
        total = self._partial.descriptor.size
        with self._changed:
            while (
                self._next < total and self._next - self._partial.size >= _AHEAD * PIECE and not self._failed
            ):
                self._repository.client.stop.check()
                self._changed.wait(_PATIENCE)
            if self._failed or self._next >= total:
                return None
            start, self._next = self._next, min(self._next + PIECE, total)
            return start, self._next

    def _fail(self) -> None:
        with self._changed:
            self._failed = True
            self._changed.notify_all()

    def _deliver(self, start: int, got: list[bytes]) -> None:
        """Write what is now in order; one thread at a time does so, for all."""
        with self._changed:
            self._ready[start] = got
            if self._writing or self._failed:
                return
            self._writing = True
        try:
            while (now := self._next_to_write()) is not None:
                for data in now:
                    self._partial.append(data)
        except BaseException:
            self._writing = False
            self._fail()
            raise

    def _next_to_write(self) -> list[bytes] | None:
        with self._changed:
            self._changed.notify_all()
            ready = None if self._failed else self._ready.pop(self._partial.size, None)
            self._writing = ready is not None
            return ready

    def _get(self, start: int, end: int) -> list[bytes]:
        """One piece, over as many connections as it takes."""
        repository, digest = self._repository, self._partial.descriptor.digest
        retry = Retry(
            f"cannot get the blob {digest} of {repository.name}",
            repository.client.options,
            repository.client.stop,
        )
        got: list[bytes] = []
        while (at := start + sum(map(len, got))) < end:
            try:
                self._receive(got, at, end)
            except Transient as error:
                if start + sum(map(len, got)) - at >= PROGRESS:
                    retry.progressed()
                self._report(digest, "retrying", self._received, self._partial.descriptor.size)
                retry.pause(error)
        return got

    def _receive(self, got: list[bytes], at: int, end: int) -> None:
        """One connection's worth of bytes `at` to `end`, added to `got`."""
        client, digest = self._repository.client, self._partial.descriptor.digest
        with client.once(self._repository.blob(digest, at, end)) as response:
            if not is_range_from(response, at):
                raise NoRanges
            for data in response.iter_raw():
                client.stop.check()
                got.append(data[: end - at])
                at += len(got[-1])
                with self._changed:
                    self._received += len(got[-1])
                self._report(digest, "moving", self._received, self._partial.descriptor.size)
        if at < end:
            raise Transient(f"the registry did not send the last {end - at} bytes of a piece")
