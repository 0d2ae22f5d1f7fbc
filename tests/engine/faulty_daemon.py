"""The daemon with a fault in one of its request handlers; a file names handler and exception at any time."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyfuse3

from overlayfs_py import cli
from overlayfs_py.engine.libfuse.operations import HANDLERS, OverlayOperations, guarded
from overlayfs_py.engine.native import wire
from overlayfs_py.engine.native.dispatch import Dispatcher

EXCEPTIONS: dict[str, Exception] = {
    "OSError": OSError(33, "EDOM, which no file system gives"),
    "OSErrorWithoutErrno": OSError("only text"),
    "ValueError": ValueError("a defect"),
    "KeyError": KeyError(7),
    "MemoryError": MemoryError(),
    "FUSEError": pyfuse3.FUSEError(33),  # an exception like any other for the native engine
}


def wanted(name: str, fault_file: Path) -> Exception | None:
    """What the fault file says that `name` has to raise."""
    handler, _, exception = fault_file.read_text().partition(" ")
    return EXCEPTIONS[exception] if handler == name else None


def faulty(name: str, request: Callable[..., Any], fault_file: Path) -> Callable[..., Any]:
    """`request` that raises when the fault file says so."""

    async def answer(self: OverlayOperations, *args: Any) -> Any:
        error = wanted(name, fault_file)
        if error is not None:
            if name == "release":  # what it would give back stays, as after a real defect
                await request(self, *args)
            raise error
        return await request(self, *args)

    return answer


def faulty_native(name: str, request: Callable[..., Any], fault_file: Path) -> Callable[..., Any]:
    """The same for a handler of the native engine."""

    @functools.wraps(request)
    def answer(*args: Any) -> Any:
        error = wanted(name, fault_file)
        if error is None:
            return request(*args)
        if name == "release":
            request(*args)
        raise error

    return answer


def spoil(fault_file: Path) -> None:
    """Put the fault into every handler of both engines."""
    for name in HANDLERS:
        handler = getattr(OverlayOperations, name).__wrapped__
        setattr(OverlayOperations, name, guarded(name, faulty(name, handler, fault_file)))
    find = Dispatcher._find_handlers

    def find_faulty(self: Dispatcher, *, no_open: bool) -> dict[int, Any]:
        return {
            opcode: faulty_native(wire.OPS[opcode].handler, handler, fault_file)
            for opcode, handler in find(self, no_open=no_open).items()
        }

    Dispatcher._find_handlers = find_faulty  # type: ignore[method-assign]  # the fault itself


if __name__ == "__main__":
    spoil(Path(sys.argv[1]))
    sys.exit(cli.main(sys.argv[2:]))
