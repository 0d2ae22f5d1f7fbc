"""One name through the stack: which parts make up the node, and how deep the merge goes.

The rules are the kernel's (fs/overlayfs/namei.c ovl_lookup): the topmost entry decides the type;
directories merge downwards until an opaque mark, a whiteout or a non-directory; a redirect
changes the name looked for in the layers below it.

The kernel asks each layer of the parent for the name. Here the parent's index (`listing`) already says which
parts have it, so whiteouts were dealt with, a missing name costs no system call, and a lookup stats the
topmost part only (bench: stat, first; missing name, first). What the index cannot say is read here: marks of
directories, which say how deep the merge goes, and of files in the upper, which say where data and number
are.

A lookup changes nothing on the disk. Nodes are made here and attached by the caller, so that one that is
refused half way leaves no trace.
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
    """Return the node `name` of `parent`, None when there is none; a node not yet known is made but not
    attached.

    Raises ENAMETOOLONG; EPERM for a redirect or metacopy that this mount does not follow; EIO for a redirect
    that is malformed or a metacopy file whose data is missing.
    """
    found = find(stack, parent, name)
    return None if found is None else found[0]


def find(stack: Stack, parent: Node, name: bytes) -> tuple[Node, os.stat_result | None] | None:
    """As `resolve`, with the stat of the node's top part where finding it took one.

    LOOKUP answers with attributes, and this stat saves them a second one (bench: stat, first).
    """
    node = parent.children.get(name) if parent.children else None
    if node is not None:
        return node, None
    if len(name) > stack.name_max:
        fail(errno.ENAMETOOLONG)
    entry = find_entry(stack, parent, name)
    return None if entry is None else node_of(stack, parent, name, entry)


def node_of(stack: Stack, parent: Node, name: bytes, entry: Entry) -> tuple[Node, os.stat_result | None]:
    """Return the node of what `parent` holds under `name`, as the index entry says; see `find`."""
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
    """Return the root node: all layers' roots merge, but for an AUFS opaque mark in one of them.

    As in the kernel, `overlay.opaque` and redirects on the roots of layers do not count (ovl_get_root).
    """
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
    """Collects the parts of one merged directory, reading marks on the way down.

    The state of ovl_lookup_data: whether the last part ends the merge (`done`), or sends the search on to
    another name below it (`redirect`, `below`). Each mark is read once, when its part is added, because what
    is below counts only if the mark allows it.
    """

    def __init__(self, stack: Stack, node: Node) -> None:
        self.stack = stack
        self.node = node
        self.lowers: list[Real] = []
        self.flagged: set[int] = set()
        self.path = node.name  # what the parts are called in the layers reached so far
        self.redirect: bytes | None = None
        self.below = UPPER  # layer position below which the search continues
        self.done = False

    def add(self, real: Real, *, last: bool) -> None:
        """Take `real` as the next part; `last`: nothing can merge below it.

        Marks of a part in the bottom layer could only hide or redirect what is below, so they are not read:
        one system call less for each directory of a plain two-layer mount (bench: scandir+stat of 10,000,
        first).
        """
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
        """Decide how the merge continues below `real`. An opaque mark wins over a redirect beside it."""
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
    """Merge the parts that the index names, `reals`, until a mark ends that or leads elsewhere.

    They are directories, but for one case: beside a directory of the upper the index names a lower's file,
    since removing the directory needs a whiteout for it. The file ends the merge.

    The number shown is that of the topmost lower part, which a copy-up leaves as it is (ovl_map_dev_ino).
    """
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
    """Continue below the part that has the redirect, at the place that the redirect names.

    A part found there may have a redirect of its own, from which the search goes on again. Each round starts
    below the layer of the last part, so it ends. A whiteout or a file at the place ends the merge, and so
    does an opaque directory on the way there (`sealed`): what is below it is not below that place any more.
    """
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
    """Return the node of a non-directory: its own, or the one that its other names already have.

    In this order, as each step may find the node: by the real inode, for other names in the same layer; by
    the index, for a lower name whose inode was copied up under another. A file that may be a metacopy has its
    data looked for before that, as a node without data could not be used.
    """
    several = st.st_nlink > 1
    key = hard_link_key(stack, real, st) if several else None
    # Also with one link left: its other names may have been removed while it is open.
    known = stack.hard_links.get((st.st_dev, st.st_ino)) if stack.hard_links else None
    if known is not None:
        return known
    node = Node(stat.S_IFMT(st.st_mode), parent, name)
    if entry[0][0] == UPPER:
        _upper_inode(stack, parent, node, entry[0], real, st)
    else:
        node.lowers = (real,)
        # As a rule the listing's number, and then one int object serves both (bench: memory with 100,000
        # known inodes).
        listed = entry[1]
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
    """Fill in a node whose topmost part is in the upper: its marks, its data if it is a metacopy, its number.

    A copy keeps the number of the inode that it was copied from, so that nothing that holds a file by its
    number sees a copy-up (the kernel's constant st_ino). Of several names of a lower inode without an index
    only the uncopied ones can have it: the copy is another file now, and shows its own number.
    """
    node.upper = real
    node.ino = stack.number(real, st.st_dev, st.st_ino)
    # Only directories marked impure hold entries with marks: elsewhere symlinks and special files need no
    # listxattr. Regular files do, as the kernel moves a metacopy without an origin into a directory it does
    # not mark impure.
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
    """Return the lower inode that an upper one, whose stat is `st`, was copied from; None when it is
    unknown.

    `covered`: what the lowers have under its name, topmost first. Three ways, from the surest: the handle, on
    the upper's own file system; the path that was kept when the inode left its name (`Marks.source`), if the
    handle is right for what is there; the name that it covers, in the same way. See `origin` for why a
    handle alone is not believed elsewhere.
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
    """Give a metacopy file the lower file that has its data; a file that is no metacopy is left alone.

    Its lowers may be metacopies, too, each with a redirect: the chain is followed to the first file with
    data, through data-only layers at its end (ovl_lookup_data_layers). EIO where it ends
    without data: an empty file in place of a full one would be worse than an error.
    """
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
    """Return the topmost regular file below position `below` at `target`. What is there and is no file ends
    the search: a metacopy file continues by files only. Data-only layers have no names of their own in the
    merged view, so only an absolute target reaches into them.
    """
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
    """Return a snapshot of a directory, or of some of its `names`, with the inode numbers that stat shows.

    An upper entry with an origin has its lower's number; those are only in impure or merged places, and each
    of them costs a lookup. All other numbers come from the listings themselves. With layers on one file
    system they are the ones to show, without a look at each (`plain`; bench: list 10,000 names, first).
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
    """Return the number that stat shows for an entry with marks; the listed one where a lookup is refused, so
    that one bad entry does not make the whole directory unreadable.
    """
    try:
        child = resolve(stack, node, name)
    except OSError:
        return fallback
    return child.ino if child is not None else fallback
