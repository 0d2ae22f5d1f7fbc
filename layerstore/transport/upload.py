"""Upload one blob from the store to a registry: mount it if another repository has it, resume after a
failure.

A blob is sent in one PATCH, followed by a PUT with its digest: every registry accepts this. After a failure
it continues at the offset that the registry reports, in chunks, so that less is lost next time, and of a size
that the registry accepts. If a reported offset proves wrong, the registry is not asked again, and the last
attempt is one PUT with everything. Nothing is sent that the registry has.
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
from layerstore.transport.base import BlobReport, RegistryOptions
from layerstore.transport.errors import LoginNeeded, RegistryError, Stopped, Transient
from layerstore.transport.registry import Repository, UploadSession, least_chunk
from layerstore.transport.retry import Retry

_PIECE = 256 << 10
_SMALL = 1 << 20  # sent in one PUT, which saves a request
_CHUNK = 16 << 20
_SMALLER = (
    4 << 20,
    1 << 20,
    256 << 10,
)  # chunk sizes for registries and proxies that refuse larger ones
_RANGE = re.compile(r"(?:bytes[= ])?0-(\d{1,19})")
_FORGOTTEN = frozenset({"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"})
_GONE = frozenset({404, 410})
_OTHER_WAY = frozenset({400, 404, 405, 411, 415, 501})  # statuses of registries that support one form only
_REFUSALS = 16  # 416s in one upload
_FINAL = frozenset({413, 429})  # one PUT with everything would be refused, too


def upload(
    repository: Repository,
    store: Store,
    descriptor: Descriptor,
    report: BlobReport,
    mount_from: str | None = None,
) -> None:
    """Upload a blob unless the registry has it."""
    digest, total = descriptor.digest, descriptor.size
    if repository.has_blob(digest):
        report(digest, "present", total, total)
        return
    session: UploadSession | None = None
    if mount_from is not None:
        try:
            session = repository.begin_upload(digest, mount_from)
            if session is None:
                report(digest, "mounted", total, total)
                return
        except RegistryError:
            pass  # no read access there, or no mounting: it is sent then
    fd = durable.open_regular(blobs.path_of(store, digest))
    try:
        _send(_Upload(repository, descriptor, fd, report), session, store)
    finally:
        os.close(fd)
    report(digest, "done", total, total)


def _send(upload: _Upload, session: UploadSession | None, store: Store) -> None:
    try:
        upload.run(session)
    except RegistryError as error:
        if "DIGEST_INVALID" in error.codes:
            _explain(store, upload.descriptor)
        if not upload.may_be_whole(error):
            raise
        try:
            upload.send_whole()
        except (Transient, Stopped, RegistryError):
            upload.stop.check()
            raise error from None


def _explain(store: Store, descriptor: Descriptor) -> None:
    """After the registry reported other bytes: raise DigestMismatch when the store's blob is damaged."""
    with blobs.open_blob(store, descriptor) as stream:
        stream.verify()


class _Upload:
    """An upload. The registry has `_offset` bytes, at `_place`."""

    def __init__(self, repository: Repository, descriptor: Descriptor, fd: int, report: BlobReport) -> None:
        options: RegistryOptions = repository.client.options
        self.descriptor = descriptor
        self.stop = repository.client.stop
        self._repository = repository
        self._fd = fd
        self._report = report
        self._retry = Retry(
            f"cannot push the blob {descriptor.digest} to {repository.name}", options, self.stop
        )
        self._chunk = options.chunk_size  # 0: everything left
        self._least = 0  # minimum size of all chunks but the last
        self._whole = descriptor.size <= _SMALL and not self._chunk
        self._has_begun = self._was_whole = self._switched = False
        self._place: httpx.URL | None = None
        self._offset = self._sent = self._furthest = 0
        self._refusals = 0
        self._is_trusted = True  # whether its reported offsets are right
        self._is_resumed = False  # it continues at a reported offset that the registry has not confirmed

    def run(self, session: UploadSession | None) -> None:
        """Upload it, with new attempts as long as there is progress. RegistryError."""
        if session is not None:
            self._begin(session)
        while True:
            try:
                self._attempt()
                return
            except Transient as error:
                if self._recover(error):
                    return
            except RegistryError as error:
                if not self._adapt(error):
                    raise

    def may_be_whole(self, error: RegistryError) -> bool:
        """Whether to try one PUT with everything, after all else failed."""
        refused = isinstance(error, LoginNeeded) or error.status in _FINAL
        return self._has_begun and not (refused or self._was_whole)

    def send_whole(self) -> None:
        """Make one attempt with one PUT. Transient, RegistryError."""
        self._begin_anew()
        self._whole = True
        self._attempt()

    def _attempt(self) -> None:
        size = self.descriptor.size
        while True:
            if self._place is None:
                session = self._repository.begin_upload(self.descriptor.digest)
                if session is None:
                    return  # a registry may have found the blob itself
                self._begin(session)
            elif self._whole:
                self._was_whole = True
                self._put(self._place, 0)
                return
            elif self._offset < size:
                self._patch(self._place)
            else:
                self._put(self._place, size)
                return

    def _begin(self, session: UploadSession) -> None:
        self._place, self._offset, self._sent, self._has_begun = session.place, 0, 0, True
        self._demand(session.least)

    def _begin_anew(self) -> None:
        self._place, self._offset, self._sent, self._is_resumed = None, 0, 0, False

    def _demand(self, least: int) -> bool:
        """Store the registry's minimum chunk size; return whether ours get larger."""
        self._least = max(self._least, least)
        grows = 0 < self._chunk < self._least
        self._chunk = self._least if grows else self._chunk
        return grows

    def _patch(self, place: httpx.URL) -> None:
        """Send the next chunk, or everything left. The final digest verifies accepted bytes."""
        start, size = self._offset, self.descriptor.size
        end = min(start + self._chunk, size) if self._chunk else size
        headers = {"Content-Length": str(end - start)}
        if start or self._chunk:
            headers["Content-Range"] = f"{start}-{end - 1}"
        call = self._repository.upload_call("PATCH", place, headers, lambda: self._pieces(start, end))
        with self._repository.client.once(call) as response:
            if response.status_code == 416:
                self._step_back(response, start, end)
                return
            if "location" in response.headers:
                self._place = self._repository.location(response)
            said = _confirmed(response)
            self._offset, self._is_resumed = end, False
            self._is_trusted = self._is_trusted and (said is None or start < said <= end or end == 1)

    def _put(self, place: httpx.URL, start: int) -> None:
        """Finish the upload, with all of the content if none was sent before."""
        digest, end = self.descriptor.digest, self.descriptor.size
        url = f"{str(place).rstrip('?')}{'&' if place.query else '?'}digest={digest.replace(':', '%3A')}"
        headers = {"Content-Length": str(end - start)}
        call = self._repository.upload_call("PUT", url, headers, lambda: self._pieces(start, end))
        with self._repository.client.once(call):
            pass

    def _step_back(self, response: httpx.Response, start: int, end: int) -> None:
        """Handle a 416: the registry has another offset, or refuses the size of the chunk."""
        self._refusals += 1
        if self._refusals > _REFUSALS:
            raise self._refused()
        if self._demand(least_chunk(response)):
            self._begin_anew()
            return
        if self._is_resumed:
            self._is_trusted = False  # it refuses the offset that it reported
            raise Transient("416 the registry refuses the bytes after its own offset", status=416)
        if "location" in response.headers:
            self._place = self._repository.location(response)
        said = _confirmed(response) if "range" in response.headers else self._status()
        if self._may_resume(said) and said != start:
            self._offset, self._is_resumed = said or 0, True
        elif not self._shrink(end - start):
            raise self._refused()
        elif said != start:
            self._begin_anew()

    def _refused(self) -> RegistryError:
        what = f"cannot push the blob {self.descriptor.digest} to {self._repository.name}"
        return RegistryError(f"{what}: 416 for every chunk size", status=416)

    def _recover(self, error: Transient) -> bool:
        """After a failure: continue at the registry's offset, else from the start. True: it has
        everything.
        """
        size = self.descriptor.size
        self._report(self.descriptor.digest, "retrying", self._offset, size)
        said = None if self._whole or self._place is None or not self._is_trusted else self._status()
        if self._may_resume(said):
            self._offset, self._is_resumed = said or 0, True
        else:
            self._begin_anew()
        if self._offset > self._furthest:
            self._furthest = self._offset
            self._retry.progressed()
        elif error.status == 0 and self._chunk:
            self._shrink(self._chunk)  # a proxy may end requests that are too large for it
        self._chunk = max(self._chunk or _CHUNK, self._least)
        self._retry.pause(error)
        # The response to the last request may be lost.
        return self._place is None and self._repository.has_blob(self.descriptor.digest)

    def _status(self) -> int | None:
        """Return the registry's offset; None when it has none, or no longer."""
        if self._place is None:
            return None
        try:
            with self._repository.client.once(self._repository.upload_status(self._place)) as response:
                if "location" in response.headers:
                    self._place = self._repository.location(response)
                return _confirmed(response)
        except (Transient, LayerstoreError):
            self.stop.check()
            return None

    def _may_resume(self, said: int | None) -> bool:
        """Whether an offset is possible, and earlier ones were right."""
        return self._is_trusted and said is not None and said <= self._sent

    def _adapt(self, error: RegistryError) -> bool:
        """Whether to start again in another form, because the registry does not support this one."""
        if self._place is None:
            return False
        forgotten = error.status in _GONE and not self._whole and self._offset > 0
        if _FORGOTTEN & {*error.codes} or forgotten:
            self._begin_anew()
            self._retry.pause(Transient("the registry forgot the upload", status=error.status))
            return True
        if error.status == 413:
            if not self._shrink(self._chunk or self.descriptor.size):
                return False
            self._whole = False
        elif error.status in _OTHER_WAY and "DIGEST_INVALID" not in error.codes and not self._switched:
            self._switched, self._whole = True, not self._whole
        else:
            return False
        self._begin_anew()
        return True

    def _shrink(self, refused: int) -> bool:
        """Use smaller chunks than the refused one; False when the registry accepts none."""
        for size in _SMALLER:
            if self._least <= size < refused:
                self._chunk = size
                return True
        return False

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        digest, total = self.descriptor.digest, self.descriptor.size
        while start < end:
            self.stop.check()
            data = os.pread(self._fd, min(_PIECE, end - start), start)
            if not data:
                raise LayerstoreError(f"blob {digest} in the store ends after {start} of {total} bytes")
            yield data
            start += len(data)
            self._sent = max(self._sent, start)
            self._report(digest, "moving", start, total)


def _confirmed(response: httpx.Response) -> int | None:
    """Return the offset in a response, ``Range: 0-LAST``; None without one."""
    match = _RANGE.fullmatch(response.headers.get("range", ""))
    if match is None:
        return None
    last = int(match[1])
    return last + 1 if last else 0  # most registries send "0-0" for "nothing"
