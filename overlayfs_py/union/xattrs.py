"""Extended attributes as users see them: the overlay's own are hidden, theirs of the same name are escaped.

As the kernel since 6.7 (fs/overlayfs/xattrs.c): ``trusted.overlay.X`` set through the mount is
stored as ``trusted.overlay.overlay.X``, so overlays nest and no user can forge a mark. The same
is done for ``user.overlay.``. What fuse-overlayfs and containers/storage take for marks,
``user.fuseoverlayfs.X`` and ``user.containers.override_stat``, is stored after ``user.overlay.literal.``.
"""

import errno
import os

from overlayfs_py.errors import fail
from overlayfs_py.syscalls import as_owner
from overlayfs_py.syscalls.xattrs import ACL_DEFAULT, ACLS, CAPABILITY
from overlayfs_py.union import acl, marks
from overlayfs_py.union.copyup import copy_up
from overlayfs_py.union.marks import (
    ESCAPE,
    FOREIGN,
    FUSE_OVERLAYFS,
    LITERAL,
    OVERRIDES,
    TRUSTED,
    USER,
    is_internal,
)
from overlayfs_py.union.node import Node
from overlayfs_py.union.protection import check_change
from overlayfs_py.union.stack import Stack

_FOREIGN_OVERRIDES = frozenset(name for name in OVERRIDES if name.startswith("user."))
_LITERAL = (TRUSTED + LITERAL, USER + LITERAL)


def _on_disk(name: str) -> str:
    for prefix in (TRUSTED, USER):
        if name.startswith(prefix):
            return prefix + ESCAPE + name[len(prefix) :]
    return FOREIGN + name if _is_foreign(name) else name


def _is_foreign(name: str) -> bool:
    return name.startswith(FUSE_OVERLAYFS) or name in _FOREIGN_OVERRIDES


def _visible(name: str) -> str:
    if name.startswith(FOREIGN):
        return name[len(FOREIGN) :]
    for prefix in (TRUSTED, USER):
        if name.startswith(prefix + ESCAPE):
            return prefix + name[len(prefix) + len(ESCAPE) :]
    return name


def _is_reserved(stack: Stack, name: str) -> bool:
    """Whether this mount itself keeps owner and mode there, where only root may write anyhow."""
    return bool(stack.options.xattr_permissions) and name in OVERRIDES and not _is_foreign(name)


def _refuse_acl(stack: Stack, name: str) -> None:
    if stack.options.noacl and name in ACLS:
        fail(errno.EOPNOTSUPP)


def _maps(stack: Stack, name: str) -> bool:
    """Whether the value holds ids that differ between the mount and the layers."""
    return name in ACLS and not (stack.uids.trivial and stack.gids.trivial)


def getxattr(stack: Stack, node: Node, name: bytes) -> bytes:
    """The value; ENODATA when there is none, EOPNOTSUPP as the layer's file system says.

    Where that has no ACLs, a file has none: the kernel asks for them at each permission check of an ordinary
    user (fuse_get_acl), and any other error would be the answer to that (do_ovl_get_acl: IS_POSIXACL).
    """
    key = os.fsdecode(name)
    _refuse_acl(stack, key)
    if _is_reserved(stack, key):
        fail(errno.ENODATA)
    try:
        value = as_owner.getxattr_at(*node.top.at(), _on_disk(key))
    except OSError as e:
        if e.errno == errno.ENODATA and node.is_dir and key in _LITERAL:
            return b"y"  # asked by an overlay over this one: all names of a merged directory are plain names
        if e.errno == errno.EOPNOTSUPP and key in ACLS:
            fail(errno.ENODATA)
        raise
    if _maps(stack, key):
        value = acl.with_ids(value, stack.uids.to_mount, stack.gids.to_mount)
    return value


def listxattr(stack: Stack, node: Node, *, trusted: bool = True) -> list[bytes]:
    """The names; without `trusted` those of trusted.* are left out, as the kernel does for ordinary users.
    EOPNOTSUPP as the layer's file system says.
    """
    names = []
    for name in marks.listed_xattrs(node.top):
        if is_internal(name) or _is_foreign(name) or _is_reserved(stack, name):
            continue
        if stack.options.noacl and name in ACLS:
            continue
        if trusted or not name.startswith("trusted."):
            names.append(os.fsencode(_visible(name)))
    return names


def check_set(stack: Stack, node: Node, name: bytes, value: bytes) -> bytes:
    """Return `value` as it is stored, or raise all that `setxattr` refuses before anything is copied up.

    EPERM for names that are never users'; for ACLs EOPNOTSUPP where the upper has none, EACCES for a default
    one of no directory (ovl_set_or_remove_acl, ovl_set_acl); EOPNOTSUPP for names that the upper does not
    take. EEXIST and ENODATA of the flags come later, as in ovl_xattr_set.
    """
    stack.require_upper()
    key = os.fsdecode(name)
    _refuse_acl(stack, key)
    check_change(stack, node)
    if _is_reserved(stack, key):
        fail(errno.EPERM)
    if key in ACLS and not stack.capabilities.acls:
        fail(errno.EOPNOTSUPP)
    if key == ACL_DEFAULT and not node.is_dir:
        fail(errno.EACCES)
    if node.upper is None:
        _upper_takes(stack, _on_disk(key))
    if not _maps(stack, key):
        return value
    try:
        return acl.with_ids(value, stack.uids.to_layer, stack.gids.to_layer)
    except KeyError:  # as posix_acl_from_xattr says of an id that means nothing here
        fail(errno.EINVAL)


def _upper_takes(stack: Stack, name: str) -> None:
    """EOPNOTSUPP for a kind of xattr that the upper does not take, ERANGE for a name that is too long."""
    try:
        os.getxattr(b"/proc/self/fd/%d" % stack.require_upper().layer.root.fd, name)
    except OSError as e:
        if e.errno in (errno.EOPNOTSUPP, errno.ERANGE):
            raise


def setxattr(stack: Stack, node: Node, name: bytes, value: bytes, flags: int = 0) -> None:
    """Set an xattr on the upper inode, copied up first; refused as `check_set` says."""
    stored = check_set(stack, node, name, value)
    copy_up(stack, node, data=False)
    marks.set_xattr(node.top, _on_disk(os.fsdecode(name)), stored, flags)
    if node.is_dir:
        node.inherits = None


def check_remove(stack: Stack, node: Node, name: bytes) -> bool:
    """All that `removexattr` refuses before anything is copied up (ENODATA); False: there is
    nothing to do.
    """
    stack.require_upper()
    key = os.fsdecode(name)
    _refuse_acl(stack, key)
    check_change(stack, node, touching=key == CAPABILITY)  # which an append drops, too
    if _is_reserved(stack, key):
        fail(errno.ENODATA)
    if key == ACL_DEFAULT and not node.is_dir:
        return False  # nothing but a directory has one, and the kernel says so by success
    if node.upper is None:
        getxattr(stack, node, name)
    return True


def removexattr(stack: Stack, node: Node, name: bytes) -> None:
    """Remove an xattr; ENODATA before anything is copied up when there is none."""
    if not check_remove(stack, node, name):
        return
    copy_up(stack, node, data=False)
    key = os.fsdecode(name)
    try:
        marks.remove_xattr(node.top, _on_disk(key))
    except OSError as e:
        # The lower has it and the copy was made without: what the caller wants gone is gone.
        if e.errno != errno.ENODATA or key != CAPABILITY or node not in stack.stripped:
            raise
    stack.stripped.discard(node)
    if node.is_dir:
        node.inherits = None
