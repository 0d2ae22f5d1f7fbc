"""Exchanging two names of the upper, and leaving a whiteout behind: by renameat2 where the file system takes
its flags, else step by step with a record (`pending`).
"""

from overlayfs_py.syscalls.rename import RENAME_EXCHANGE, RENAME_WHITEOUT, renameat2
from overlayfs_py.union.layer import Real
from overlayfs_py.union.stack import Stack


def exchange(stack: Stack, first: Real, second: Real) -> None:
    """Exchange `first`, a name in the upper, with `second`, which may be in the work directory."""
    if stack.capabilities.exchange:
        first_fd, first_name = first.at()
        renameat2(first_fd, first_name, *second.at(), RENAME_EXCHANGE)
        return
    stack.require_upper().pending.swap(first, second)


def leaves_whiteouts(stack: Stack) -> bool:
    """Whether `rename_leaving` needs no whiteout made beforehand."""
    return stack.capabilities.rename_whiteout


def rename_leaving(stack: Stack, old: Real, new: Real, whiteout: Real | None) -> None:
    """Rename within the upper and leave a whiteout at the old name: `whiteout`, made in the work directory,
    where the file system makes none.
    """
    if whiteout is None:
        old_fd, old_name = old.at()
        renameat2(old_fd, old_name, *new.at(), RENAME_WHITEOUT)
        return
    stack.require_upper().pending.leave(whiteout, old, new)
