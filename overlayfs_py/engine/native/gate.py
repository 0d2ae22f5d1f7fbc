"""The gate of a frozen mount: what would change anything waits until the mount is thawed.

It is no check on every request: while the mount is frozen the dispatcher uses another table of handlers, in
which the opcodes that change something lead here. A request that waits can be interrupted, and all go on in
the order in which they came.
"""

from collections.abc import Callable, Mapping

from overlayfs_py.engine.base import CHANGING
from overlayfs_py.engine.native import wire
from overlayfs_py.engine.native.deferral import FROZEN, Busy
from overlayfs_py.engine.native.message import Request
from overlayfs_py.engine.native.state import Answer, Handler
from overlayfs_py.union.overlay import WRITING

_IOC_WRITE = 1 << 30  # an ioctl's command that hands something over

# Told a request's arguments: whether it changes something.
Condition = Callable[..., bool]


def _always(*_: object) -> bool:
    return True


def _opens_to_write(flags: int, *_: object) -> bool:
    return bool(flags & WRITING)


def _sets_flags(fh: int, flags: int, command: int, *_: object) -> bool:
    return bool(command & _IOC_WRITE)


def _writes_anew(fh: int, offset: int, size: int, flags: int, *_: object) -> bool:
    """Not a page that was changed before, through a mapping, and is only now written back."""
    return not flags & wire.WRITE_CACHE


def closed(handlers: Mapping[int, Handler], *, write_back: bool) -> dict[int, Handler]:
    """`handlers` as they are on a frozen mount. `write_back`: changed pages may still be written back."""
    conditions: dict[str, Condition] = dict.fromkeys(CHANGING, _always)
    conditions |= {"open": _opens_to_write, "ioctl": _sets_flags}
    if write_back:
        conditions["write"] = _writes_anew
    table = dict(handlers)
    for row in wire.OPS.values():
        condition = conditions.get(row.name.lower())
        if condition is not None:
            table[row.opcode] = _gated(handlers[row.opcode], condition)
    return table


def _gated(handler: Handler, changes: Condition) -> Handler:
    def wait_or_answer(request: Request, *arguments: object) -> Answer:
        if changes(*arguments):
            raise Busy(FROZEN)
        return handler(request, *arguments)

    return wait_or_answer
