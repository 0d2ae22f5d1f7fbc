"""One blob from the store to a registry: mounted if another repository has it, resumed where it broke off.

A blob goes in one request, its bytes in PATCH and its digest in PUT, as every registry takes it. Where that
fails it is continued from where the registry says it stands, in chunks, so that less is lost next time; a
registry that knows no PATCH gets one PUT. Nothing is sent that the registry has.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import httpx

from layerstore.errors import LayerstoreError
from layerstore.model import Descriptor
from layerstore.store import blobs, durable
from layerstore.store.store import Store
from layerstore.transport.base import RegistryOptions, Report
from layerstore.transport.errors import RegistryError, Transient
from layerstore.transport.registry import Repository
from layerstore.transport.retry import Retry

_PIECE = 256 << 10
_SMALL = 1 << 20  # goes in one PUT: a request less
_CHUNK = 16 << 20
_SMALL_CHUNK = 4 << 20
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})")
_FORGOTTEN = frozenset({"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"})
_OTHER_WAY = frozenset({400, 404, 405, 411, 415, 501})  # statuses of registries that know one way only


def upload(
    repository: Repository,
    store: Store,
    descriptor: Descriptor,
    report: Report,
    mount_from: str | None = None,
) -> None:
    """Bring a blob to the registry unless it is there."""
    digest, total = descriptor.digest, descriptor.size
    if repository.has_blob(digest):
        report(digest, "present", total, total)
        return
    place: httpx.URL | None = None
    if mount_from is not None:
        try:
            place = repository.begin_upload(digest, mount_from)
            if place is None:
                report(digest, "mounted", total, total)
                return
        except RegistryError:
            pass  # no right to read there, or no such thing as mounting: it is sent then
    fd = durable.open_regular(blobs.path_of(store, digest))
    try:
        _Upload(repository, descriptor, fd, report).run(place)
    except RegistryError as error:
        if "DIGEST_INVALID" in error.codes:
            _explain(store, descriptor)
        raise
    finally:
        os.close(fd)
    report(digest, "done", total, total)


def _explain(store: Store, descriptor: Descriptor) -> None:
    """Raise DigestMismatch when it is our blob that is damaged."""
    with blobs.open_blob(store, descriptor) as stream:
        stream.verify()


class _Upload:
    """An upload under way. `offset` bytes are with the registry, at `place`."""

    def __init__(self, repository: Repository, descriptor: Descriptor, fd: int, report: Report) -> None:
        options: RegistryOptions = repository.client.options
        self._repository = repository
        self._descriptor = descriptor
        self._fd = fd
        self._report = report
        self._stop = repository.client.stop
        self._retry = Retry(
            f"cannot push the blob {descriptor.digest} to {repository.name}", options, self._stop
        )
        self._chunk = options.chunk_size
        self._whole = descriptor.size <= _SMALL and not self._chunk
        self._switched = False
        self._place: httpx.URL | None = None
        self._offset = 0

    def run(self, place: httpx.URL | None) -> None:
        self._place = place
        while True:
            started = self._offset
            try:
                self._attempt()
                return
            except Transient as error:
                self._report(self._descriptor.digest, "retrying", self._offset, self._descriptor.size)
                if self._resync() > started:
                    self._retry.progressed()
                self._retry.pause(error)
                if self._is_done():
                    return
            except RegistryError as error:
                if _FORGOTTEN & {*error.codes}:
                    self._begin_anew()
                    self._retry.pause(Transient("the registry forgot the upload", status=error.status))
                elif not self._other_way(error):
                    raise

    def _attempt(self) -> None:
        if self._place is None:
            self._place, self._offset = self._repository.begin_upload(self._descriptor.digest), 0
        if self._place is None:
            return  # a registry may have found it by itself
        if self._whole:
            self._put(self._place, 0, self._descriptor.size)
            return
        while self._offset < self._descriptor.size:
            self._patch(self._place)
        self._put(self._place, self._descriptor.size, self._descriptor.size)

    def _patch(self, place: httpx.URL) -> None:
        """Send the next chunk, or all that is left."""
        start = self._offset
        end = min(start + self._chunk, self._descriptor.size) if self._chunk else self._descriptor.size
        headers = {"Content-Length": str(end - start)}
        if start or self._chunk:
            headers["Content-Range"] = f"{start}-{end - 1}"
        call = self._repository.upload_call("PATCH", place, headers, lambda: self._pieces(start, end))
        with self._repository.client.once(call) as response:
            if response.status_code == 416:
                raise Transient("416 the registry has another part of it", status=416)
            self._place = self._repository.location(response)
            confirmed = 1 if end == 1 else _confirmed(response)
            self._offset = end if confirmed is None else min(confirmed, end)
            if self._offset <= start:
                raise Transient("the registry took nothing of it")

    def _put(self, place: httpx.URL, start: int, end: int) -> None:
        """End the upload, with all of the content when nothing of it was sent before."""
        digest = self._descriptor.digest
        url = f"{place}{'&' if place.query else '?'}digest={digest.replace(':', '%3A')}"
        headers = {"Content-Length": str(end - start)}
        call = self._repository.upload_call("PUT", url, headers, lambda: self._pieces(start, end))
        with self._repository.client.once(call):
            pass

    def _resync(self) -> int:
        """After a failure: go on in chunks, from where the registry says; else from the beginning."""
        self._chunk = self._chunk or _CHUNK
        if self._place is not None and not self._whole:
            try:
                with self._repository.client.once(self._repository.upload_status(self._place)) as response:
                    confirmed = _confirmed(response)
                    if confirmed is not None and confirmed <= self._descriptor.size:
                        if "location" in response.headers:
                            self._place = self._repository.location(response)
                        self._offset = confirmed
                        return confirmed
            except (Transient, LayerstoreError):
                self._stop.check()
        self._begin_anew()
        return 0

    def _begin_anew(self) -> None:
        self._place, self._offset = None, 0

    def _is_done(self) -> bool:
        """Whether the registry has the blob after all: the answer to the last request may have got lost."""
        return self._place is None and self._repository.has_blob(self._descriptor.digest)

    def _other_way(self, error: RegistryError) -> bool:
        """Whether to do it anew in another form, because the registry does not take this one."""
        if error.status == 413 and not self._whole and (self._chunk or _CHUNK + 1) > _SMALL_CHUNK:
            self._chunk = _SMALL_CHUNK
        elif error.status in _OTHER_WAY and "DIGEST_INVALID" not in error.codes and not self._switched:
            self._switched, self._whole = True, not self._whole
        else:
            return False
        self._begin_anew()
        return True

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        digest, total = self._descriptor.digest, self._descriptor.size
        while start < end:
            self._stop.check()
            data = os.pread(self._fd, min(_PIECE, end - start), start)
            if not data:
                raise LayerstoreError(f"blob {digest} in the store ends after {start} of {total} bytes")
            yield data
            start += len(data)
            self._report(digest, "moving", start, total)


def _confirmed(response: httpx.Response) -> int | None:
    """How many bytes the registry says it has: ``Range: 0-LAST``; None when it does not say."""
    match = _RANGE.fullmatch(response.headers.get("range", ""))
    if match is None:
        return None
    last = int(match[1])
    return last + 1 if last else 0  # "0-0" is how most say "nothing"
