"""The daemon with a fault in one of its request handlers; a file names handler and exception at any time."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from overlayfs_py import cli
from overlayfs_py.engine import libfuse_operations
from overlayfs_py.engine.libfuse_operations import HANDLERS, OverlayOperations, guarded

EXCEPTIONS: dict[str, Exception] = {
    "OSError": OSError(33, "EDOM, which no file system gives"),
    "OSErrorWithoutErrno": OSError("only text"),
    "ValueError": ValueError("a defect"),
    "KeyError": KeyError(7),
    "MemoryError": MemoryError(),
    "FUSEError": libfuse_operations.pyfuse3.FUSEError(33),
}


def faulty(name: str, request: Callable[..., Any], fault_file: Path) -> Callable[..., Any]:
    """`request` that raises when the fault file says so."""

    async def answer(self: OverlayOperations, *args: Any) -> Any:
        handler, _, exception = fault_file.read_text().partition(" ")
        if handler == name:
            if name == "release":  # what it would give back stays, as after a real defect
                await request(self, *args)
            raise EXCEPTIONS[exception]
        return await request(self, *args)

    return answer


if __name__ == "__main__":
    where = Path(sys.argv[1])
    for handler in HANDLERS:
        setattr(
            OverlayOperations,
            handler,
            guarded(handler, faulty(handler, getattr(OverlayOperations, handler).__wrapped__, where)),
        )
    sys.exit(cli.main(sys.argv[2:]))
