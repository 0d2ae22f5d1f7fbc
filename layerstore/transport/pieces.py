"""Download one large blob over several connections: pieces requested by range and written in order.

A piece stays in memory until all pieces before it are written. So the file on disk is always a beginning of
the blob, from which the next attempt can continue, and the digest is computed on the way. The distance
between downloading and writing is limited, and so is the memory.
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
_AHEAD = 5  # pieces that were begun and are not written yet
_PATIENCE = 0.2  # seconds between two checks for a stop


class NoRanges(Exception):
    """The registry does not send the requested range."""


class Pieces:
    """The missing pieces of one blob; any number of threads may call `work`."""

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
        """Download pieces until none is left. NoRanges, in every thread, when the registry sends no
        ranges.
        """
        while (piece := self._claim()) is not None:
            try:
                self._deliver(piece[0], self._get(*piece))
            except BaseException:
                self._fail()
                raise

    def wait(self) -> None:
        """Return when everything is written, or a thread failed (NoRanges)."""
        with self._changed:
            while self._partial.size < self._partial.descriptor.size:
                if self._failed:
                    raise NoRanges
                self._repository.client.stop.check()
                self._changed.wait(_PATIENCE)

    def end(self) -> None:
        """End all writing to the partial before this returns; pieces that are still under way are dropped."""
        with self._changed:
            self._failed = True
            self._changed.notify_all()
            while self._writing:
                self._changed.wait(_PATIENCE)

    def _claim(self) -> tuple[int, int] | None:
        """Return begin and end of the next piece; wait while too many are under way."""
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
        """Write the pieces that are next in order; one thread at a time does so, for all."""
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
        """Download one piece, over as many connections as needed."""
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
        """Download bytes `at` to `end` over one connection, appended to `got`."""
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
