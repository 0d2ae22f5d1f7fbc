"""One pyfuse3 session: what its requests share, such as inodes, open files and answers with attributes."""

import itertools
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyfuse3
import trio

from overlayfs_py.engine.base import EngineStatistics, ErrorTranslator, errors_by_operation
from overlayfs_py.engine.caching import CachePolicy
from overlayfs_py.engine.libfuse.copies import Copies
from overlayfs_py.engine.libfuse.gate import Gate
from overlayfs_py.engine.libfuse.replies import SETID_BITS, fill
from overlayfs_py.engine.nodes import NO_THREAD, SEVERAL_THREADS, Inode, NodeTable
from overlayfs_py.engine.setid import in_group, may_keep_setgid, may_keep_setid, without_setid
from overlayfs_py.syscalls.dirents import DT_DIR
from overlayfs_py.union.overlay import Attr, AttrChanges, Node

if TYPE_CHECKING:
    from overlayfs_py.union.overlay import Handle, Overlay

_A_MOMENT = 0.005  # seconds
_DOTS = 2  # . and .. come first in a snapshot

Context = pyfuse3.RequestContext


class OpenFile:
    """One open of a file; pyfuse3's `fh` is its number."""

    __slots__ = ("handle", "inode", "pid", "uid")

    def __init__(self, inode: Inode, handle: "Handle", ctx: Context) -> None:
        self.inode = inode
        self.handle = handle
        self.uid: int = ctx.uid
        self.pid: int = ctx.pid


class OpenDirectory:
    """One open of a directory; the first read makes its snapshot, a rewind makes a new one."""

    __slots__ = ("entries", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.entries: Sequence[tuple[bytes, int, int]] = ()


class Session(pyfuse3.Operations):
    """The nodes that the kernel holds, open files and directories, copies in progress."""

    supports_dot_lookup = False  # a forgotten node is not found by its number
    enable_writeback_cache = False

    def __init__(self, overlay: "Overlay", policy: CachePolicy, limiter: trio.CapacityLimiter) -> None:
        super().__init__()
        self.enable_acl = not overlay.options.noacl
        self._overlay = overlay
        self._policy = policy
        self._limiter = limiter
        self._nodes = NodeTable(overlay.root)
        self._copies = Copies(overlay, limiter, self._attributes_changed)
        self._files: dict[int, OpenFile] = {}
        self._directories: dict[int, OpenDirectory] = {}
        self._handles = itertools.count(1)
        self.errors = ErrorTranslator()
        self.gate = Gate()
        self.counts: Counter[str] = Counter()
        self.refusals: Counter[tuple[str, int]] = Counter()
        self._missing = pyfuse3.EntryAttributes()
        self._missing.st_ino = 0
        self._missing.entry_timeout = policy.negative

    def statistics(self) -> EngineStatistics:
        """Return the present figures."""
        return EngineStatistics(
            nodes=len(self._nodes),
            open_files=len(self._files),
            open_directories=len(self._directories),
            copies=len(self._copies),
            held=self.gate.held,
            operations=dict(sorted(self.counts.items())),
            errors=errors_by_operation(self.refusals),
        )

    async def spared_descriptors(self, attempt: int) -> bool:
        """Free descriptors for the next attempt, or wait a moment for workers that hold some; False when
        neither is possible.
        """
        spared = self._overlay.spare_descriptors()
        if attempt and self._limiter.borrowed_tokens:
            await trio.sleep(_A_MOMENT)
            return True
        return spared and not attempt

    def drop_all(self) -> None:
        """Release what the kernel left open and never forgot, after the end of the session."""
        for file in self._files.values():
            self._overlay.release(file.handle)
        self._files.clear()
        self._directories.clear()
        for node in self._nodes.clear():
            self._overlay.forget(node)

    def _node(self, nodeid: int) -> Node:
        return self._nodes.inode(nodeid).node

    @contextmanager
    def _changing(self, parent: Node, ctx: Context) -> Iterator[None]:
        """Change entries of `parent` inside the block, then notify the kernel of what its request does not
        imply.

        The union copies `parent` up for that, which is quick; a refused request changes nothing.
        """
        with self._copies.reporting(parent):
            yield
        self._changed(parent, ctx)

    async def _settled(self, parent: Node, name: bytes) -> Node | None:
        """Return the node of `name` once no copy of it is in progress; None when the kernel does not
        hold it.
        """
        node = self._overlay.known_child(parent, name)
        if node is not None:
            await self._copies.settled(node)
        return node

    def _entry(self, node: Node, requester: int = NO_THREAD) -> pyfuse3.EntryAttributes:
        """Return an entry reply for the thread `requester`; counts one lookup of `node`."""
        inode, attr = self._nodes.hand_out(self._overlay, node)
        inode.sent_to(requester)
        inode.setid = bool(attr.mode & SETID_BITS)
        entry = pyfuse3.EntryAttributes()
        fill(entry, attr)
        entry.st_ino = inode.nodeid
        entry.generation = inode.generation
        entry.entry_timeout = self._policy.entry
        # The number in an entry is the nodeid. If the st_ino differs, GETATTR must follow to give it.
        entry.attr_timeout = self._policy.attr if inode.is_plain(attr.ino) else 0
        return entry

    def _attributes(self, inode: Inode, attr: Attr) -> pyfuse3.EntryAttributes:
        """Return the answer to GETATTR and SETATTR, in which st_ino need not be the nodeid."""
        inode.setid = bool(attr.mode & SETID_BITS)
        entry = pyfuse3.EntryAttributes()
        fill(entry, attr)
        entry.st_ino = attr.ino
        entry.attr_timeout = self._policy.attr
        return entry

    def _opened(self, file: OpenFile) -> pyfuse3.FileInfo:
        fh = next(self._handles)
        self._files[fh] = file
        return pyfuse3.FileInfo(fh=fh, keep_cache=self._policy.keep_pages)

    def _snapshot(self, node: Node) -> list[tuple[bytes, int, int]]:
        """Return the directory's entries after . and .., as a local file system lists them."""
        above = node.parent or node
        here = [(name, self._overlay.getattr(n).ino, DT_DIR) for name, n in ((b".", node), (b"..", above))]
        return here + self._overlay.list_dir(node).entries

    def _reply_name(
        self,
        directory: OpenDirectory,
        position: int,
        entry: pyfuse3.EntryAttributes,
        token: pyfuse3.ReaddirToken,
    ) -> bool:
        """Report one name with its node; False when the kernel's buffer is full."""
        name, ino, d_type = directory.entries[position]
        if position < _DOTS:  # the kernel makes no node of these
            entry.st_ino, entry.st_mode = ino, d_type << 12
            return bool(pyfuse3.readdir_reply(token, name, entry, position + 1))
        try:
            node = self._overlay.lookup(directory.node, name)
            if node is None:
                return True  # removed since the snapshot
            attr = self._overlay.getattr(node)
        except OSError:  # list it without a node: using the name gives the error
            entry.st_ino, entry.st_mode = 0, d_type << 12
            return bool(pyfuse3.readdir_reply(token, name, entry, position + 1))
        inode = self._nodes.remember(node, attr.ino)
        inode.sent_to(SEVERAL_THREADS)  # libfuse does not say which thread lists
        inode.setid = bool(attr.mode & SETID_BITS)
        entry.entry_timeout, entry.attr_timeout = self._policy.entry, self._policy.attr
        if inode.nodeid != attr.ino:
            inode, attr = self._lend(inode, attr, entry)
        fill(entry, attr)
        entry.st_ino, entry.generation = inode.nodeid, inode.generation
        if pyfuse3.readdir_reply(token, name, entry, position + 1):
            return True
        self._forget(inode.nodeid, 1)
        return False

    def _lend(self, inode: Inode, attr: Attr, entry: pyfuse3.EntryAttributes) -> tuple[Inode, Attr]:
        """Return an inode with the right number for a name whose d_ino is not its nodeid, with timeout 0.

        So the kernel looks the name up again before it uses it, and gets the real inode.
        """
        entry.entry_timeout = entry.attr_timeout = 0
        if inode.node.is_dir:
            return inode, attr  # the kernel accepts one dentry for a directory, so it never gets two numbers
        lent = self._nodes.lend(inode.node, attr.ino)
        if lent is None:
            return inode, attr
        if lent.node is not inode.node:
            attr = self._overlay.getattr(lent.node)
        self._forget(inode.nodeid, 1)
        return lent, attr

    def _forget(self, nodeid: int, lookups: int) -> None:
        node = self._nodes.forget(nodeid, lookups)
        if node is not None:
            self._overlay.forget(node)

    def _drop_setid(self, inode: Inode, uid: int, pid: int) -> bool:
        """Clear the set-id bits when a caller without CAP_FSETID changes the contents; whether it did."""
        if not inode.setid or may_keep_setid(uid, pid):
            return False
        attr = self._overlay.getattr(inode.node)
        return self._change_mode(
            inode, attr.mode, without_setid(attr.mode, member=in_group(attr.gid, -1, pid))
        )

    def _drop_setgid_for_acl(self, inode: Inode, ctx: Context) -> None:
        """Clear set-group-ID when a caller outside the group sets an ACL (posix_acl_update_mode)."""
        attr = self._overlay.getattr(inode.node)
        if not may_keep_setgid(attr.gid, ctx.uid, ctx.gid, ctx.pid):
            self._change_mode(inode, attr.mode, attr.mode & ~stat.S_ISGID)

    def _change_mode(self, inode: Inode, mode: int, wanted: int) -> bool:
        if mode == wanted:
            return False
        self._overlay.setattr(inode.node, AttrChanges(mode=stat.S_IMODE(wanted)))
        inode.setid = bool(wanted & SETID_BITS)
        self._attributes_changed(inode.node)  # else the kernel would execute the file with the cached bits
        return True

    def _changed(self, node: Node, ctx: Context) -> None:
        """Invalidate attributes of `node` that are still on their way to other threads.

        The kernel drops its cached attributes with its own request, but for changed directory entries, for a
        new ctime alone and for page write-back it does not raise fi->attr_version, so it would still accept
        older ones (decision 0019).
        """
        inode = self._nodes.known(node)
        if inode is not None and inode.clear_requester(ctx.pid):
            self._attributes_changed(node)

    def _attributes_changed(self, node: Node) -> None:
        """Make the kernel read the attributes of `node` again."""
        inode = self._nodes.known(node)
        if inode is None:
            return
        try:
            pyfuse3.invalidate_inode(inode.nodeid, attr_only=True)
        except FileNotFoundError:
            pass  # it has none cached
