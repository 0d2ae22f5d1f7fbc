"""The engine as the service sees it, and the one place where a request's exception becomes an errno."""

import errno
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from overlayfs_py.errors import OUT_OF_DESCRIPTORS

log = logging.getLogger("overlayfs_py.engine")

# Requests that always change something, by FUSE's names in lower case; a frozen mount holds them. (OPEN and
# IOCTL depend on their arguments.)
CHANGING = frozenset(
    (
        *("symlink", "mknod", "mkdir", "create", "tmpfile", "link", "unlink", "rmdir", "rename", "rename2"),
        *("setattr", "setxattr", "removexattr"),
        *("write", "fallocate", "copy_file_range", "copy_file_range_64"),
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineCapabilities:
    """What the engine can do; tests choose by these fields, never by the engine's name."""

    name: str
    fallback: str = ""  # why a better engine or data=passthrough is not in use
    no_open: bool = False  # opens and closes send no request
    cached_listings: bool = False  # listing a directory again sends no request
    passthrough: bool = False
    writeback: bool = False
    fallocate: bool = False
    seek_data: bool = False
    copy_range: bool = False
    tmpfile: bool = False
    file_flags: bool = False  # FS_IOC_GETFLAGS
    statx: bool = False
    syncfs: bool = False
    interrupts: bool = False  # a waiting request ends when its sender is killed
    marked_write_back: bool = False  # WRITE distinguishes write-back of mapped pages from new writes
    synchronous_direct: bool = False  # an asynchronous O_DIRECT write leaves no older page in the cache
    caller_of_write: bool = False  # WRITE names the writer: set-id bits depend on it, not on the opener

    @property
    def data(self) -> str:
        """Return the data path in use, as the option ``data=`` names it."""
        return "passthrough" if self.passthrough else "writeback" if self.writeback else "cached"


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStatistics:
    """Present figures of a live engine."""

    nodes: int
    open_files: int
    open_directories: int
    copies: int  # long copy-ups in progress
    held: int  # requests that wait until the mount is thawed
    operations: Mapping[str, int]  # requests so far, by FUSE's names in lower case
    errors: Mapping[str, Mapping[str, int]]  # failed ones, by the errno's name

    @property
    def requests(self) -> int:
        return sum(self.operations.values())


def errors_by_operation(refusals: Mapping[tuple[str, int], int]) -> dict[str, dict[str, int]]:
    """Return `EngineStatistics.errors` from counts by operation and errno."""
    found: dict[str, dict[str, int]] = {}
    for (operation, code), count in sorted(refusals.items()):
        found.setdefault(operation.lower(), {})[errno.errorcode.get(code, str(code))] = count
    return found


class Engine(Protocol):
    """One FUSE session over one `union.Overlay`."""

    capabilities: EngineCapabilities

    def attach(self, fuse_fd: int) -> None:
        """Take over a mounted /dev/fuse descriptor; the engine closes it."""

    async def serve(self) -> None:
        """Answer requests until the mount is unmounted or `stop` is called; requests in progress end
        first.
        """

    def stop(self) -> None:
        """Make `serve` return; the mount stays, and is dead once the engine is closed."""

    def close(self) -> None:
        """Release everything, also the descriptor, but not the overlay; idempotent."""

    async def freeze(self, *, write_back: bool = False) -> None:
        """Hold every request that changes something until `thaw`; return when none is in progress.

        `write_back`: still let the kernel write pages that were changed through mappings (needs the
        capability `marked_write_back`); a second call without it ends that. MountError when writes cannot be
        held. The caller must call `thaw` also after an error or a cancellation.
        """

    def thaw(self) -> None:
        """Carry out all held requests; idempotent."""

    def statistics(self) -> EngineStatistics: ...


def wants_descriptors(error: Exception) -> bool:
    """Whether a request failed because the process has no descriptor left.

    Its sender has not used them up, so the engine frees cached descriptors, waits for others, and tries
    again.
    """
    return isinstance(error, OSError) and error.errno in OUT_OF_DESCRIPTORS


class ErrorTranslator:
    """Maps a request's exception to an errno; one that is no OSError is a defect, logged once a place."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str, int]] = set()

    def reply_error(self, operation: str, error: Exception) -> int:
        """Return the errno to answer with."""
        if isinstance(error, OSError) and error.errno:
            return error.errno
        place = (operation, type(error).__name__, _line(error))
        if place in self._seen:
            log.error("%s failed again: %r", operation, error)
        else:
            self._seen.add(place)
            log.error("%s failed; the caller gets EIO", operation, exc_info=error)
        return errno.EIO


def _line(error: Exception) -> int:
    """Return the innermost line of the traceback."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_lineno if trace is not None else 0
