"""The gate of a frozen mount: changing requests wait until the mount is thawed.

It costs nothing on other mounts: while a mount is frozen, the dispatcher uses another table of handlers, in
which changing opcodes lead here. A waiting request can be interrupted; all continue in the order of arrival.
"""

from collections.abc import Callable, Mapping

from overlayfs_py.engine.base import CHANGING
from overlayfs_py.engine.native import wire
from overlayfs_py.engine.native.deferral import FROZEN, Busy
from overlayfs_py.engine.native.message import Request
from overlayfs_py.engine.native.state import Answer, Handler
from overlayfs_py.union.overlay import WRITING

_IOC_WRITE = 1 << 30  # set in ioctl commands that pass data in

# Whether a request with these arguments changes something.
Condition = Callable[..., bool]


def _always(*_: object) -> bool:
    return True


def _opens_to_write(flags: int, *_: object) -> bool:
    return bool(flags & WRITING)


def _sets_flags(fh: int, flags: int, command: int, *_: object) -> bool:
    return bool(command & _IOC_WRITE)


def _writes_anew(fh: int, offset: int, size: int, flags: int, *_: object) -> bool:
    """Whether it is a new write, not write-back of a page that was changed before through a mapping."""
    return not flags & wire.WRITE_CACHE


def closed(handlers: Mapping[int, Handler], *, write_back: bool) -> dict[int, Handler]:
    """Return the handlers for a frozen mount; `write_back`: changed pages may still be written back."""
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
