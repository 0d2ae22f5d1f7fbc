"""Download one blob from a registry into the store; continue an earlier attempt, however old.

It uses one connection as long as every connection has a blob of its own. When the other blobs are done, all
connections download pieces of a large one (`pieces`), if the registry supports ranges.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import httpx

from layerstore.errors import DigestMismatch
from layerstore.model import Descriptor
from layerstore.store import partials
from layerstore.store.partials import Partial
from layerstore.store.store import Store
from layerstore.transport.base import BlobReport
from layerstore.transport.errors import Transient
from layerstore.transport.pieces import PIECE, NoRanges, Pieces
from layerstore.transport.reading import is_range_from
from layerstore.transport.registry import Repository
from layerstore.transport.retry import PROGRESS, Retry

_LARGE = 8 * PIECE
_FAST = 64 << 20  # bytes a second over one connection, above which more connections gain nothing
_TRIAL = 0.25  # seconds to measure that
_PATIENCE = 0.2  # seconds between two checks for a stop


class Download:
    """A blob to download: `run` does it; idle threads call `help` to make it faster."""

    def __init__(
        self, repository: Repository, store: Store, descriptor: Descriptor, report: BlobReport
    ) -> None:
        self._repository = repository
        self._store = store
        self._descriptor = descriptor
        self._report = report
        self._pieces: Pieces | None = None
        self._is_offered = threading.Event()  # there are pieces to download, or never will be
        self._helpers = 0

    @property
    def is_large(self) -> bool:
        """Whether `help` may be useful."""
        return self._descriptor.size >= _LARGE

    def run(self) -> None:
        """Download it unless the store has it. DigestMismatch when the content does not match the
        descriptor.
        """
        try:
            self._run()
        finally:
            self._is_offered.set()

    def help(self) -> None:
        """Download pieces of it, once it has begun, until none is left."""
        self._helpers += 1
        while not self._is_offered.wait(_PATIENCE):
            self._repository.client.stop.check()
        if self._pieces is not None:
            with suppress(NoRanges):
                self._pieces.work()

    def _run(self) -> None:
        digest, total = self._descriptor.digest, self._descriptor.size
        with partials.resume(self._store, self._descriptor) as partial:
            if partial is None:
                self._report(digest, "present", total, total)
                return
            left_over = partial.size > 0
            while True:
                self._fill(partial)
                try:
                    partial.publish(self._store)
                    break
                except DigestMismatch:
                    # Bytes of an earlier run may be damaged; those of this run are not.
                    if not left_over:
                        raise
                    left_over = False
            self._report(digest, "done", total, total)

    def _fill(self, partial: Partial) -> None:
        """Complete a partial, over as many connections as needed."""
        digest, total = partial.descriptor.digest, partial.descriptor.size
        client = self._repository.client
        retry = Retry(f"cannot get the blob {digest} of {self._repository.name}", client.options, client.stop)
        while partial.size < total:
            before = partial.size
            try:
                if self._receive(partial):
                    self._share(partial)
            except Transient as error:
                if partial.size - before >= PROGRESS:
                    retry.progressed()
                self._report(digest, "retrying", partial.size, total)
                retry.pause(error)

    def _share(self, partial: Partial) -> None:
        """Download the rest in pieces, together with the helpers."""
        self._pieces = Pieces(self._repository, partial, self._report)
        self._is_offered.set()
        try:
            with suppress(NoRanges):  # although the registry offered ranges: the rest comes in one piece then
                self._pieces.work()
                self._pieces.wait()
        finally:
            self._pieces.end()

    def _receive(self, partial: Partial) -> bool:
        """Download over one connection. True: it was ended because helpers are there."""
        digest, total = partial.descriptor.digest, partial.descriptor.size
        stop = self._repository.client.stop
        with self._repository.client.once(self._repository.blob(digest, partial.size)) as response:
            _position(partial, response)
            may_share = self._pieces is None and _takes_ranges(response)
            self._report(digest, "moving", partial.size, total)
            pace = _Pace(partial)
            for data in response.iter_raw():
                stop.check()
                partial.append(data)
                self._report(digest, "moving", partial.size, total)
                if may_share and self._helpers and pace.is_slow and total - partial.size >= 2 * PIECE:
                    return True
        if partial.size < total:
            raise Transient(f"the registry sent {partial.size} of {total} bytes")
        return False


class _Pace:
    """Measures how fast a partial grows over one connection."""

    def __init__(self, partial: Partial) -> None:
        self._partial = partial
        self._had, self._began = partial.size, time.monotonic()

    @property
    def is_slow(self) -> bool:
        """Whether more connections would be faster: this machine is not the bottleneck."""
        passed = time.monotonic() - self._began
        return passed >= _TRIAL and self._partial.size - self._had < _FAST * passed


def _position(partial: Partial, response: httpx.Response) -> None:
    """Make the partial match what the registry is about to send."""
    if response.status_code == 416:
        partial.restart()
        raise Transient("416 the registry cannot send the rest", status=416)
    if response.status_code == 206:
        if is_range_from(response, partial.size):
            return
        partial.restart()
        raise Transient("206 the registry sends another range than was asked for", status=206)
    if partial.size:
        partial.restart()  # it sends everything


def _takes_ranges(response: httpx.Response) -> bool:
    return response.status_code == 206 or response.headers.get("accept-ranges", "").lower() == "bytes"
