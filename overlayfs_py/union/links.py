"""Hard links: which names are one node, and the index that keeps them one after copy-up.

The index directory holds, for each copied-up lower inode with several names, one link to the
upper inode, named by the lower's origin handle in hex. `overlay.nlink` on it tells how the
union's link count differs from the upper inode's (``U+n``) or the lower's (``L+n``); see
fs/overlayfs/util.c ovl_nlink_start.

Why two forms: the count of names that users see changes together with one of the two real counts, or with
neither, and a crash may come before or after any call. So before each call the mark is written in the form
that the call leaves true:

- A lower name gets its link in the upper (copy-up, `copyup.link_up`): the upper's count rises, the users'
  does not. The mark is relative to the lower's count meanwhile, which never changes.
- A name in the upper is removed or added (`remove.prepare_unlink`, `create.link`): both counts change by one
  in the same call. The mark is relative to the upper's count (`store_nlink`).

Ours alone is `WORK/nlink` (`store_count`): removing one name of a large lower file need not copy it up.
"""

import contextlib
import os
import stat

from overlayfs_py.union import marks
from overlayfs_py.union.layer import Real
from overlayfs_py.union.marks import FileMarks
from overlayfs_py.union.node import Node
from overlayfs_py.union.origin import real_at
from overlayfs_py.union.stack import Stack

Key = tuple[int, int]

_LITTLE_DATA = 64 << 10
_ENOUGH_ROOM = 1 << 20


def hard_link_key(stack: Stack, real: Real, st: os.stat_result) -> Key | None:
    """Return the real inode's identity when several names may share a node, else None.

    Names in the upper always do. Lower names do if they stay one file whatever is done to them: with an
    index, or when nothing can be copied up. Otherwise a copy-up breaks the link, and each name is a node of
    its own.
    """
    if st.st_nlink > 1 and (real.layer.is_upper or (stack.link_lowers and _can_join(stack, real, st))):
        return st.st_dev, st.st_ino
    return None


def _can_join(stack: Stack, real: Real, st: os.stat_result) -> bool:
    """Whether names of a lower inode can stay joined when it is copied up: with an index all layers can, but
    perhaps not what is mounted in them.
    """
    return st.st_dev == real.layer.dev or stack.read_only or stack.origins.has_origins(real, st.st_dev)


def register(stack: Stack, node: Node, key: Key) -> None:
    """Let later lookups of other names find `node` by the real inode `key`.

    A node may have two keys: the lower inode's and, once it is copied up, the upper inode's.
    """
    if key not in node.keys:
        node.keys += (key,)
    stack.hard_links[key] = node


def unregister(stack: Stack, node: Node) -> None:
    """Forget the node's keys."""
    for key in node.keys:
        if stack.hard_links.get(key) is node:
            del stack.hard_links[key]
    node.keys = ()


def needs_index(stack: Stack, node: Node) -> bool:
    """Whether a copy-up of `node` goes through the index: a lower hard link not yet copied up, which every
    lookup registers.
    """
    return stack.indexing and node.upper is None and bool(node.keys)


def unlinking_copies(stack: Stack, node: Node) -> bool:
    """Whether the copy-up that makes the index entry comes before a name of `node` goes, as in the kernel
    (ovl_nlink_start). Where that would copy much data, or there is hardly room, names are counted instead.

    Removing files must work on a full disk, and `rm` of one of two names of a large file should not write it.
    """
    if not needs_index(stack, node):
        return False
    if node.is_file and not stack.metacopy:
        st = node.data.stat()
        if min(st.st_size, st.st_blocks * 512) > _LITTLE_DATA:
            return False
    space = os.fstatvfs(stack.require_upper().layer.root.fd)
    return space.f_bavail * space.f_frsize > _ENOUGH_ROOM


def adopt_index(
    stack: Stack, node: Node, origin: bytes | None, lower_key: Key, lower_nlink: int
) -> Node | None:
    """Connect `node` with the index entry of its `origin`, if there is one; a node that another name already
    has is returned instead. `lower_nlink`: the origin's link count, 0 when it is unknown.

    For lower names that is how a copy-up under another name is found (ovl_lookup_index): the node gets the
    index entry as its upper part. For upper names it only adds the count and the numbers of the lower. An
    entry of another type, or one that fits another inode, is ignored.
    """
    if not origin or stack.upper is None:
        return None
    entry = stack.upper.work.index.child(origin.hex().encode())
    try:
        st = entry.stat()
    except FileNotFoundError:
        return None
    if stat.S_IFMT(st.st_mode) != node.kind:
        return None
    key = st.st_dev, st.st_ino
    if node.upper is not None and hard_link_key(stack, node.upper, node.upper.stat()) != key:
        return None  # the index entry is another inode's: a stale one, which the kernel ignores as well
    shared = stack.hard_links.get(key)
    if shared is None:
        file_marks = stack.marks.read_file(entry)
        if not _fits(stack, node, origin, file_marks):
            return None
        node.upper = entry
        node.indexed = node.has_origin = True
        node.metacopy = file_marks.metacopy and bool(node.lowers)
        if file_marks.protection:
            stack.protected[node] = file_marks.protection
        node.nlink = _union_nlink(file_marks.nlink, st.st_nlink, lower_nlink)
        register(stack, node, key)
    register(stack, node if shared is None else shared, lower_key)
    return shared


def _fits(stack: Stack, node: Node, origin: bytes, entry: FileMarks) -> bool:
    """Whether an index entry is of the lower inode that `node` is, and not of one that had its handle.

    The entry's own origin must be its name (ovl_verify_index). On another file system than the upper's, which
    may be an image made again since, the name that it was copied from must lead to this inode as well; an
    entry that the kernel made has none, and its word is taken where there is a UUID.
    """
    if entry.origin != origin:
        return False
    if node.upper is not None:
        return True  # found by the upper's own name
    real = node.lowers[0]
    st = real.stat()
    if stack.origins.is_home(real, st.st_dev):
        return True
    if entry.source is None:
        return stack.origins.has_uuid(real, st.st_dev)
    if entry.source == real.layer_path():
        return True
    try:
        return os.path.samestat(real_at(real.layer, entry.source).stat(), st)
    except OSError:
        return False


def load_count(stack: Stack, node: Node, origin: bytes | None, lower_nlink: int) -> None:
    """Take in how many names went of a lower hard link that has no index entry (`store_count`)."""
    if stack.upper is None or not stack.work.counted or not origin:
        return
    name = origin.hex().encode()
    if name not in stack.work.counted:
        return
    kept = stack.marks.read_file(stack.work.counts.child(name))
    if kept.nlink is not None and _fits(stack, node, origin, kept._replace(origin=origin)):
        node.nlink = _union_nlink(kept.nlink, 0, lower_nlink)
    else:
        drop_count(stack, origin)  # another file's, or cut off by a crash


def store_count(stack: Stack, node: Node) -> None:
    """A name of a lower hard link without an index entry went: keep how many did, for the next mount.

    The whiteout came first, this follows. A crash before this, or no room for it, shows one link too many:
    then the index entry that a later copy-up makes stays when the last name goes, and nothing worse. The
    other order would show one link too few, and the last name could vanish from the count while it is there.
    """
    lower = node.lowers[0]
    with contextlib.suppress(OSError):
        st = lower.stat()
        origin = stack.origins.encode(lower, st.st_dev)
        if not origin:
            return
        if node.nlink == 0:
            drop_count(stack, origin)
            return
        stack.work.make_counts()
        kept = stack.work.counts.child(origin.hex().encode())
        if kept.name not in stack.work.counted:
            fd, name = kept.at()
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=fd))
            stack.work.counted.add(kept.name)
            mark_source(stack, kept, lower)
        marks.set_xattr(kept, stack.marks.nlink, b"L%+d" % (node.nlink - st.st_nlink))


def drop_count(stack: Stack, origin: bytes) -> None:
    """Remove a stored count: the index entry has it from now on, or no name is left."""
    name = origin.hex().encode()
    if name in stack.work.counted:
        stack.work.counted.discard(name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=stack.work.counts.fd)


def keep_source(stack: Stack, node: Node, covered: Real | None) -> None:
    """Before an inode with an origin leaves the name it was copied up from, or gets another one: keep that
    name with it, where the origin's handle is not enough. `covered`: what the lowers have under its name.
    """
    if node.is_dir or not node.has_origin or node.upper is None or not stack.origins.need_names():
        return
    source = node.lowers[0] if node.lowers else covered
    if source is None or marks.get_xattr(node.upper, stack.marks.source) is not None:
        return
    mark_source(stack, node.upper, source)


def mark_source(stack: Stack, real: Real, source: Real) -> None:
    """Keep where in its lower `source` is with its copy `real`; where there is no room, the copy counts as
    an inode of its own from the next mount on.
    """
    with contextlib.suppress(OSError):
        if not stack.origins.is_home(source, source.stat().st_dev):
            marks.set_xattr(real, stack.marks.source, source.layer_path())


def _union_nlink(mark: bytes | None, upper_nlink: int, lower_nlink: int) -> int:
    """The union's link count from the index entry's mark; without a valid one, the upper's less the
    index's own.
    """
    fallback = max(1, upper_nlink - 1)
    if mark is None or len(mark) < 3 or mark[:1] not in (b"U", b"L"):
        return fallback
    try:
        difference = int(mark[1:])
    except ValueError:
        return fallback
    base = upper_nlink if mark[:1] == b"U" else lower_nlink
    if base == 0:
        return fallback
    return base + difference if base + difference > 0 else fallback


def store_nlink(stack: Stack, node: Node) -> None:
    """Write the union's link count relative to the upper's, before one call changes both by one.

    ``U+1`` with two links means three names. After unlink(2) of one it is ``U+1`` with one link: two names.
    """
    if node.indexed and node.upper is not None:
        difference = node.nlink - node.upper.stat().st_nlink
        marks.set_xattr(node.upper, stack.marks.nlink, b"U%+d" % difference)


def drop_index(stack: Stack, node: Node, origin: bytes | None) -> None:
    """Remove the index entry of a node whose last name is gone. The node is stashed by now, if it is in use:
    the entry was the last name of its inode.
    """
    if origin is not None and stack.upper is not None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(origin.hex().encode(), dir_fd=stack.work.index.fd)
    node.indexed = False
