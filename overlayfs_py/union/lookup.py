"""One name through the stack: which parts make up the node, and how deep the merge goes.

The rules are the kernel's (fs/overlayfs/namei.c ovl_lookup): the topmost entry decides the type;
directories merge downwards until an opaque mark, a whiteout or a non-directory; a redirect
changes the name looked for in the layers below it.
"""

import errno
import os
import stat
from collections.abc import Iterable

from overlayfs_py.errors import fail
from overlayfs_py.syscalls import as_owner
from overlayfs_py.syscalls.dirents import DT_DIR
from overlayfs_py.union.inode import PLAIN_LIMIT
from overlayfs_py.union.layer import Layer, Real
from overlayfs_py.union.links import adopt_index, hard_link_key, load_count, register
from overlayfs_py.union.listing import Listing, dir_index, find_entry
from overlayfs_py.union.marks import NO_DIR_MARKS, NO_FILE_MARKS, DirMarks, FileMarks, has_aufs_opaque
from overlayfs_py.union.node import UPPER, Directory, DirIndex, Entry, Node
from overlayfs_py.union.order import NameOrder
from overlayfs_py.union.origin import Origin, real_at
from overlayfs_py.union.redirect import candidates, combine
from overlayfs_py.union.stack import Stack


def resolve(stack: Stack, parent: Node, name: bytes) -> Node | None:
    """The node `name` of `parent`, None when there is none; a node not yet known is made but not attached.

    Raises ENAMETOOLONG; EPERM for a redirect or metacopy that this mount does not follow.
    """
    found = find(stack, parent, name)
    return None if found is None else found[0]


def find(stack: Stack, parent: Node, name: bytes) -> tuple[Node, os.stat_result | None] | None:
    """As `resolve`, with the stat of the node's top part where finding it took one."""
    node = parent.children.get(name) if parent.children else None
    if node is not None:
        return node, None
    if len(name) > stack.name_max:
        fail(errno.ENAMETOOLONG)
    entry = find_entry(stack, parent, name)
    return None if entry is None else node_of(stack, parent, name, entry)


def node_of(stack: Stack, parent: Node, name: bytes, entry: Entry) -> tuple[Node, os.stat_result | None]:
    """The node of what `parent` holds under `name`, as its index says; see `find`."""
    positions = entry[0]
    part = _part(parent, positions[0])
    real = Real(part.layer, part, name)
    st = as_owner.stat_at(part.dir_fd(), name)
    if stat.S_ISDIR(st.st_mode):
        below = [_part(parent, position).child(name) for position in positions[1:]]
        return _directory(stack, parent, name, [real, *below], st), st
    node = _inode(stack, parent, name, entry, real, st)
    return node, (st if (node.upper or node.lowers[0]) is real else None)


def _part(node: Node, position: int) -> Real:
    return node.copied if position == UPPER else node.lowers[position]


def _is_dir(real: Real) -> bool:
    return stat.S_ISDIR(real.stat().st_mode)


def root_node(stack: Stack) -> Node:
    """The root: all layers' roots merge, but for an AUFS opaque mark in one of them."""
    node = Directory(None, b"")
    flagged: set[int] = set()
    if stack.upper is not None:
        node.upper = stack.upper.layer.root
        marks = stack.marks.read_dir(node.upper)
        node.impure = marks.impure
        if marks.protection:
            stack.protected[node] = marks.protection
        if marks.xattr_whiteouts:
            flagged.add(UPPER)
    lowers: list[Real] = []
    for layer in stack.lowers:
        if stack.marks.read_dir(layer.root).xattr_whiteouts:
            flagged.add(len(lowers))
        lowers.append(layer.root)
        if has_aufs_opaque(layer.root):
            break
    node.lowers = tuple(lowers)
    node.xattr_whiteouts = frozenset(flagged)
    node.ino = _number(stack, lowers[0] if lowers else node.top)
    node.known = True
    return node


class _DirMerge:
    """Collects the parts of one merged directory, reading marks on the way down."""

    def __init__(self, stack: Stack, node: Node) -> None:
        self.stack = stack
        self.node = node
        self.lowers: list[Real] = []
        self.flagged: set[int] = set()
        self.path = node.name  # what the parts are called in the layers reached so far
        self.redirect: bytes | None = None
        self.below = UPPER  # layer position after which the search goes on
        self.done = False

    def add(self, real: Real, *, last: bool) -> None:
        """Take `real` as the next part; `last`: nothing can merge below it."""
        upper = real.layer.is_upper
        position = UPPER if upper else len(self.lowers)
        if upper:
            self.node.upper = real
        else:
            self.lowers.append(real)
        marks = NO_DIR_MARKS if last and not upper else self.stack.marks.read_dir(real)
        if upper:
            self.node.impure = marks.impure
            if marks.protection:
                self.stack.protected[self.node] = marks.protection
        if marks.xattr_whiteouts:
            self.flagged.add(position)
        self._follow(real, marks)

    def _follow(self, real: Real, marks: DirMarks) -> None:
        self.below = real.layer.position
        if marks.opaque:
            self.done = True
        elif marks.redirect is not None:
            if not self.stack.follow_redirects:
                raise PermissionError(errno.EPERM, "redirect not followed")
            self.redirect = self.path = combine(self.path, marks.redirect)

    def finish(self) -> None:
        self.node.lowers = tuple(self.lowers)
        self.node.xattr_whiteouts = frozenset(self.flagged)


def _directory(stack: Stack, parent: Node, name: bytes, reals: list[Real], st: os.stat_result) -> Node:
    node = Directory(parent, name)
    merge = _DirMerge(stack, node)
    last = len(stack.lowers) - 1
    for real in reals:
        if (merge.lowers or node.upper is not None) and not _is_dir(real):
            break
        merge.add(real, last=real.layer.position == last)
        if merge.done or merge.redirect is not None:
            break
    if merge.redirect is not None:
        _merge_redirected(stack, parent, merge)
    merge.finish()
    top = node.lowers[0] if node.lowers else reals[0]
    node.ino = stack.number(top, st.st_dev, st.st_ino) if top is reals[0] else _number(stack, top)
    return node


def _number(stack: Stack, real: Real) -> int:
    st = real.stat()
    return stack.number(real, st.st_dev, st.st_ino)


def _merge_redirected(stack: Stack, parent: Node, merge: _DirMerge) -> None:
    """Go on below the part that has the redirect, at the place the redirect names."""
    while merge.redirect is not None and not merge.done:
        redirect, below = merge.redirect, merge.below
        merge.redirect = None
        for candidate in candidates(stack, parent, redirect, below):
            if candidate.real is None or not _is_dir(candidate.real):
                merge.done = True
            else:
                merge.add(candidate.real, last=False)
                merge.done = merge.done or candidate.sealed
            if merge.done or merge.redirect is not None:
                break


def _inode(stack: Stack, parent: Node, name: bytes, entry: Entry, real: Real, st: os.stat_result) -> Node:
    """A non-directory: a node of its own, or the one its other names already have."""
    several = st.st_nlink > 1
    key = hard_link_key(stack, real, st) if several else None
    # Also with one link left: its other names may have been removed while somebody has it open.
    known = stack.hard_links.get((st.st_dev, st.st_ino)) if stack.hard_links else None
    if known is not None:
        return known
    node = Node(stat.S_IFMT(st.st_mode), parent, name)
    if entry[0][0] == UPPER:
        _upper_inode(stack, parent, node, entry[0], real, st)
    else:
        node.lowers = (real,)
        listed = entry[1]  # as a rule the same number, and then one object is enough
        node.ino = stack.number(real, st.st_dev, listed if listed == st.st_ino else st.st_ino)
        if node.kind == stat.S_IFREG and (real.layer.position < len(stack.lowers) - 1 or stack.data_lowers):
            _find_data(stack, parent, node, real)
        if several and stack.indexing:
            origin = stack.origins.encode(real, st.st_dev)
            shared = adopt_index(stack, node, origin, (st.st_dev, st.st_ino), st.st_nlink)
            if shared is not None:
                return shared
            if node.upper is None:
                load_count(stack, node, origin, st.st_nlink)
    if key is not None:
        register(stack, node, key)
    return node


def _upper_inode(
    stack: Stack, parent: Node, node: Node, positions: tuple[int, ...], real: Real, st: os.stat_result
) -> None:
    node.upper = real
    node.ino = stack.number(real, st.st_dev, st.st_ino)
    # The kernel moves a metacopy without an origin into a directory it does not mark impure.
    marks = stack.marks.read_file(real) if parent.impure or node.is_file else NO_FILE_MARKS
    if marks.protection:
        stack.protected[node] = marks.protection
    if marks.metacopy and node.is_file:
        _find_data(stack, parent, node, real)
    if marks.origin is None:
        return
    covered = [_part(parent, position).child(node.name) for position in positions[1:]]
    origin = _origin(stack, node, marks, covered, st)
    if origin is None:
        return
    if st.st_nlink > 1 and stack.indexing:
        adopt_index(stack, node, marks.origin, (origin.dev, origin.ino), origin.nlink)
    if origin.nlink <= 1 or node.indexed:  # else other names of the lower inode have its number
        node.has_origin = True
        node.ino = stack.number(covered[0] if covered else real, origin.dev, origin.ino)


def _origin(
    stack: Stack, node: Node, marks: FileMarks, covered: list[Real], st: os.stat_result
) -> Origin | None:
    """The lower inode that an upper one, whose stat is `st`, was copied from; None when it cannot be told.

    `covered`: what the lowers have under its name, topmost first.
    """
    handle = marks.origin or b""
    found = stack.origins.find(handle)
    if found is not None:
        return found if found.nlink else found._replace(nlink=_covered_nlink(covered, found.ino))
    if marks.source is not None:
        return stack.origins.named(handle, marks.source, node.kind)
    if not covered or (st.st_nlink > 1 and not stack.indexing):
        return None  # each of its names would cover something else
    return stack.origins.names(handle, covered[0], node.kind)


def _covered_nlink(covered: list[Real], ino: int) -> int:
    """The link count of the lower inode `ino` where a lower still has it under the same name, else 0."""
    for real in covered:
        st = real.stat()
        if st.st_ino == ino:
            return st.st_nlink
    return 0


def _find_data(stack: Stack, parent: Node, node: Node, real: Real) -> None:
    """Give a metacopy file the lower file that has its data; a file that is no metacopy is left alone."""
    marks = stack.marks.read_file(real)
    if not marks.metacopy:
        return
    if not stack.metacopy:
        raise PermissionError(errno.EPERM, "metacopy not followed")
    lowers: list[Real] = [] if real.layer.is_upper else [real]
    wanted = node.name if marks.redirect is None else marks.redirect
    below = real.layer.position
    for _ in range(len(stack.lowers) + 1):
        target = _next_data(stack, parent, wanted, below)
        if target is None:
            raise OSError(errno.EIO, "it is a metadata-only copy whose data is missing from the lower layers")
        lowers.append(target)
        marks = stack.marks.read_file(target)
        if not marks.metacopy:
            break
        if marks.redirect is not None:
            wanted = combine(wanted, marks.redirect)
        below = target.layer.position
    node.lowers = tuple(lowers)
    node.metacopy = True


def _next_data(stack: Stack, parent: Node, target: bytes, below: int) -> Real | None:
    for candidate in candidates(stack, parent, target, below):
        real = candidate.real
        return real if real is not None and stat.S_ISREG(real.stat().st_mode) else None
    if target.startswith(b"/"):
        for layer in stack.data_lowers:
            real = _data_only(layer, target)
            if real is not None:
                return real
    return None


def _data_only(layer: Layer, target: bytes) -> Real | None:
    """The file `target` of a data-only layer, which absolute redirects reach."""
    real = real_at(layer, target)
    try:
        return real if stat.S_ISREG(real.stat().st_mode) else None
    except OSError:
        return None


def list_dir(stack: Stack, node: Node, names: Iterable[bytes] | None = None) -> Listing:
    """A snapshot of a directory, or of some of its `names`, with the inode numbers that stat shows.

    An upper entry with an origin has its lower's number; those are only in impure or merged places.
    """
    entries = []
    index = dir_index(stack, node)
    if index.unlisted:
        fail(errno.EACCES)
    plain = index.other_filesystems is None and all(
        real.layer.dev == stack.inodes.first for real in (node.upper, *node.lowers) if real is not None
    )
    found = index.entries
    wanted = found.items() if names is None else [(name, found[name]) for name in names]
    for name, (positions, ino, kind) in wanted:
        top = positions[0]
        if top == UPPER and (node.impure or (kind == DT_DIR and len(positions) > 1)):
            ino = _shown_number(stack, node, name, ino)
        elif not plain or ino >= PLAIN_LIMIT:
            ino = _number_listed(stack, index, _part(node, top), top, name, ino)
        entries.append((name, ino, kind))
    return Listing(entries)


def _number_listed(stack: Stack, index: DirIndex, part: Real, top: int, name: bytes, ino: int) -> int:
    """The number to show for an entry of `part` that is listed with `ino`."""
    other = index.other_filesystems.get(top) if index.other_filesystems is not None else None
    if other is None:
        return stack.number(part, part.layer.dev, ino)
    return other.numbers.get(name) or stack.number(part, other.dev, ino)


def names_after(stack: Stack, node: Node, cookie: int, most: int) -> list[tuple[int, bytes]]:
    """The next names of a directory behind `cookie` (0: from its start), each with its own; none at the end.

    They are as they are now, whenever the reader began.
    """
    index = dir_index(stack, node)
    if index.unlisted:
        fail(errno.EACCES)
    if index.order is None:
        index.order = NameOrder(index.entries)
    index.order.complete()
    return index.order.after(cookie, most)


def _shown_number(stack: Stack, node: Node, name: bytes, fallback: int) -> int:
    try:
        child = resolve(stack, node, name)
    except OSError:
        return fallback
    return child.ino if child is not None else fallback
