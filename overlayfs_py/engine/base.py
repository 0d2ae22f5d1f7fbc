"""What every engine is to the service: attach a mounted /dev/fuse descriptor, serve it, stop, close.

Also the one place where an exception of a request becomes an errno.
"""

import errno
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from overlayfs_py.errors import OUT_OF_DESCRIPTORS

log = logging.getLogger("overlayfs_py.engine")

# Requests that change something whatever their arguments, by FUSE's names in small letters. A frozen mount
# holds them. (Of OPEN and IOCTL the arguments tell.)
CHANGING = frozenset(
    (
        *("symlink", "mknod", "mkdir", "create", "tmpfile", "link", "unlink", "rmdir", "rename", "rename2"),
        *("setattr", "setxattr", "removexattr"),
        *("write", "fallocate", "copy_file_range", "copy_file_range_64"),
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineCapabilities:
    """What users of a mount can expect of the engine; tests choose by these, never by the engine's name."""

    name: str
    fallback: str = ""  # why engine=auto could not take a better one, or data=passthrough is not in force
    no_open: bool = False  # opens and closes cost no round trip
    cached_listings: bool = False  # a directory listed again costs none either
    passthrough: bool = False
    writeback: bool = False
    fallocate: bool = False
    seek_data: bool = False
    copy_range: bool = False
    tmpfile: bool = False
    file_flags: bool = False  # FS_IOC_GETFLAGS
    statx: bool = False
    syncfs: bool = False
    interrupts: bool = False  # a request that waits ends when its sender is killed
    marked_write_back: bool = False  # WRITE tells pages that were changed through mappings from new writes
    synchronous_direct: bool = (
        False  # no cached page survives that is older than an asynchronous O_DIRECT write
    )
    caller_of_write: bool = False  # WRITE tells who writes, so that set-id bits are judged by the writer

    @property
    def data(self) -> str:
        """The data path in force, as the option of that name calls it."""
        return "passthrough" if self.passthrough else "writeback" if self.writeback else "cached"


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStatistics:
    """A moment's figures of a live engine."""

    nodes: int
    open_files: int
    open_directories: int
    copies: int  # long copy-ups under way
    held: int  # requests that wait for the thaw
    operations: Mapping[str, int]  # requests so far, by FUSE's name in small letters
    errors: Mapping[str, Mapping[str, int]]  # of those, refused: by the errno's name

    @property
    def requests(self) -> int:
        return sum(self.operations.values())


def errors_by_operation(refusals: Mapping[tuple[str, int], int]) -> dict[str, dict[str, int]]:
    """`EngineStatistics.errors` from counts by operation and errno."""
    found: dict[str, dict[str, int]] = {}
    for (operation, code), count in sorted(refusals.items()):
        found.setdefault(operation.lower(), {})[errno.errorcode.get(code, str(code))] = count
    return found


class Engine(Protocol):
    """One FUSE session over one `union.Overlay`."""

    capabilities: EngineCapabilities

    def attach(self, fuse_fd: int) -> None:
        """Take over a mounted /dev/fuse descriptor, which the engine closes from now on."""

    async def serve(self) -> None:
        """Answer requests until it is unmounted or `stop` was called; running requests end first."""

    def stop(self) -> None:
        """Make `serve` return; the mount stays behind, dead once the engine is closed."""

    def close(self) -> None:
        """Give everything back, the descriptor too; idempotent. The overlay stays open."""

    async def freeze(self, *, write_back: bool = False) -> None:
        """Hold every request that changes something until `thaw`; return when none is under way any more.

        `write_back`: pages that were changed through mappings may still be written (only where the
        capabilities say `marked_write_back`); a second call without it ends that. Cancelled, or with
        MountError because writes cannot be held, the mount has to be thawed all the same.
        """

    def thaw(self) -> None:
        """Let all that was held go on; idempotent."""

    def statistics(self) -> EngineStatistics: ...


def wants_descriptors(error: Exception) -> bool:
    """Whether the process had no descriptor left. Nobody is told that who has not used them up: caches are
    given up, and what is under way is waited for.
    """
    return isinstance(error, OSError) and error.errno in OUT_OF_DESCRIPTORS


class ErrorTranslator:
    """Turns what a request raised into an errno; what is no OSError is a defect, logged once a place."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str, int]] = set()

    def reply_error(self, operation: str, error: Exception) -> int:
        """The errno to answer with."""
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
    """The innermost line that raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_lineno if trace is not None else 0
