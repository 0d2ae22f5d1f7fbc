"""A copy's metadata: owner, xattrs, mode and capability of a new inode, made to look like another's.

What writing and chown strip comes last; what a nosuid layer does not grant, its copy does not either.
"""

import contextlib
import errno
import os
import stat
from typing import NamedTuple

from overlayfs_py.syscalls import attrs
from overlayfs_py.syscalls.xattrs import ACLS, CAPABILITY
from overlayfs_py.union import marks
from overlayfs_py.union.layer import Real
from overlayfs_py.union.stack import Stack


class FinalMetadata(NamedTuple):
    """What writing and chown strip, so it is set when everything else is done: the mode, None when it is
    right already, and the file capability. `stripped`: there was one, which the copy does not get, or may
    not get, as only root can set it.
    """

    mode: int | None
    capability: bytes | None
    stripped: bool = False

    def apply(self, real: Real) -> None:
        if self.mode is not None and not stat.S_ISLNK(self.mode):
            attrs.set_mode(*real.at(), stat.S_IMODE(self.mode))
        if self.capability is not None:
            with self._if_allowed():
                marks.set_xattr(real, CAPABILITY, self.capability)

    def apply_fd(self, fd: int) -> None:
        if self.mode is not None:
            os.fchmod(fd, stat.S_IMODE(self.mode))
        if self.capability is not None:
            with self._if_allowed():
                os.setxattr(fd, CAPABILITY, self.capability)

    def _if_allowed(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.suppress(PermissionError) if self.stripped else contextlib.nullcontext()


NOTHING_FINAL = FinalMetadata(None, None)


def plain_mode(stack: Stack, st: os.stat_result, names: list[str]) -> int | None:
    """The permission bits of a regular file that is like `st`, with the xattrs `names`, once it is made with
    them; None for one that has to be dressed. What comes on the way needs, widens or strips none of them.
    """
    mode = st.st_mode & 0o7777
    ours = st.st_uid == stack.euid and st.st_gid == stack.egid
    if ours and not names and mode & 0o7600 == 0o600 and not mode & stack.umask:
        return mode
    return None


def copy_metadata(
    stack: Stack, source: Real, temp: Real, st: os.stat_result, names: list[str] | None = None
) -> FinalMetadata:
    """Give a new inode the owner and xattrs of `source`, which has those of `names` if they are known;
    returned is what must come last, so that it is never wider than wanted. What a nosuid layer does not
    grant, its copy does not either (CVE-2023-0386).
    """
    nosuid = source.layer.nosuid and not temp.layer.nosuid
    if (st.st_uid, st.st_gid) != (stack.euid, stack.egid):
        try:
            fd, name = temp.at()
            os.chown(name, st.st_uid, st.st_gid, dir_fd=fd, follow_symlinks=False)
        except PermissionError:
            if stack.uids.trivial:  # squashed or mapped owners are shown whatever the file's own is
                raise
            nosuid = True
    if names is None:
        names = marks.list_xattrs(source)
    _copy_xattrs(stack, source, temp, names)
    capable = CAPABILITY in names and stat.S_ISREG(st.st_mode)
    if nosuid and not stat.S_ISDIR(st.st_mode):
        return FinalMetadata(st.st_mode & ~(stat.S_ISUID | stat.S_ISGID), None, stripped=capable)
    if not capable:
        return FinalMetadata(st.st_mode, None)
    return FinalMetadata(
        st.st_mode, marks.get_xattr(source, CAPABILITY), stripped=not stack.capabilities.trusted_xattrs
    )


def _must_copy(stack: Stack, name: str) -> bool:
    """Whether a copy without this xattr might let others do more: security.*, and ACLs, as the mode shows
    their mask as the group's bits (ovl_must_copy_xattr). Under noacl ACLs count for nothing anyway.
    """
    if name in ACLS:
        return not stack.options.noacl
    return name.startswith("security.")


def _copy_xattrs(stack: Stack, source: Real, temp: Real, names: list[str]) -> None:
    """All xattrs but the overlay's own; one that cannot be kept fails the copy-up, as in the kernel."""
    for name in names:
        if marks.is_internal(name) or name == CAPABILITY:
            continue
        if name in marks.OVERRIDES and stack.options.xattr_permissions and name not in source.layer.overrides:
            continue  # it meant nothing there, and would here
        value = marks.get_xattr(source, name)
        if value is None:
            continue
        try:
            marks.set_xattr(temp, name, value)
        except OSError as e:
            if e.errno == errno.ENOTSUP and not _must_copy(stack, name):
                continue  # of what the upper does not know, the kernel leaves this out (ovl_copy_xattr)
            if (
                e.errno == errno.EPERM
                and not name.startswith("user.")
                and not stack.capabilities.trusted_xattrs
            ):
                continue  # an unprivileged mount cannot write security.* or trusted.*
            raise
