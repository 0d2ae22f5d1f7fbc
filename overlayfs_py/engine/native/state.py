"""The state that the handlers of one session share."""

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from overlayfs_py.engine.caching import CachePolicy
from overlayfs_py.engine.copying import CopyUpEffects
from overlayfs_py.engine.native.answers import Answers
from overlayfs_py.engine.native.chores import Chores
from overlayfs_py.engine.native.copying import Copying
from overlayfs_py.engine.native.deferral import Deferrals
from overlayfs_py.engine.native.forgetting import Backlog, MemoryTrim
from overlayfs_py.engine.native.message import Request
from overlayfs_py.engine.native.needs import Needs
from overlayfs_py.engine.native.notices import Notices
from overlayfs_py.engine.native.passthrough import Backings
from overlayfs_py.engine.native.pipes import AnswerPipe, Body
from overlayfs_py.engine.nodes import NodeTable
from overlayfs_py.engine.setid import may_keep_setgid, without_setid
from overlayfs_py.union.overlay import AttrChanges, Node, Overlay


class SessionState:
    """The state of one session. `notify` sends a notification to the kernel."""

    def __init__(
        self, overlay: Overlay, policy: CachePolicy, deferrals: Deferrals, notify: Callable[[bytes], None]
    ) -> None:
        self.overlay = overlay
        self.deferrals = deferrals
        self.nodes = NodeTable(overlay.root, MemoryTrim(deferrals.later).schedule)
        self.chores = Chores()
        self.forgotten = Backlog(self.take_back, self.chores.begin)
        self.backings = Backings(overlay)
        self.answers = Answers(overlay, self.nodes, self.backings, policy)
        self.notices = Notices(overlay, self.nodes, deferrals, notify)
        self.listings = self.notices.listings
        self.needs = Needs(overlay, deferrals, self.chores, self.forgotten)
        self.copying = Copying(overlay, deferrals, self.needs, self.notices)
        # data=writeback: the kernel collects writes, and keeps sizes and times of files until it writes them
        # back.
        self.collects = False
        self.pipe: AnswerPipe | None = None
        overlay.remove_large_with(lambda remove: deferrals.start(remove, lambda error: None))

    def node(self, nodeid: int) -> Node:
        """Return the node of `nodeid`; ESTALE for a forgotten one."""
        return self.nodes.inode(nodeid).node

    def parent(self, nodeid: int) -> Node:
        """Return the directory `nodeid`, to change names in; postpones the request until all names
        are known.
        """
        node = self.nodes.inode(nodeid).node
        self.needs.names(node)
        self.needs.names_above(node)
        return node

    def changing(self, parent: Node, changer: int) -> "Change":
        """Let the thread `changer` change entries of `parent` inside the block; notify the kernel afterwards.

        The union copies `parent` up for that, which is quick; a refused request changes nothing.
        """
        return Change(self, parent, changer)

    def take_back(self, nodeid: int, lookups: int) -> None:
        """Take back `lookups` (FORGET); drop the node when the kernel no longer holds it."""
        node = self.nodes.forget(nodeid, lookups)
        if node is None:
            return
        if node.is_dir:
            self.listings.forget(node)
        if self.deferrals.busy(node):  # its request was interrupted; a LOOKUP may find it again meanwhile
            self.deferrals.after(node, lambda: self._forget(node))
        else:
            self._forget(node)

    def _forget(self, node: Node) -> None:
        if self.nodes.known(node) is None:
            names = self.overlay.forget(node)
            if names:
                self.nodes.released(names)
            if self.overlay.has_debris:
                self.chores.begin(self.overlay.clear_debris())

    @contextmanager
    def keeping_mtime(self, node: Node) -> Iterator[None]:
        """Keep the mtime of `node` over changes inside the block, where the kernel keeps the mtime itself.

        The kernel sends the time of the change by SETATTR, unless it equals the time that it received last.
        """
        if not self.collects:
            yield
            return
        mtime = self.overlay.getattr(node).mtime_ns
        yield
        self.overlay.setattr(node, AttrChanges(mtime_ns=mtime))

    def drop_setid(self, node: Node, request: Request) -> None:
        """Clear set-id bits when the kernel requests it with a change of contents or owner.

        It does so for every chown, and for writes by callers without CAP_FSETID.
        """
        attr = self.overlay.getattr(node)
        if not attr.mode & (stat.S_ISUID | stat.S_ISGID):
            return
        member = may_keep_setgid(attr.gid, request.uid, request.gid, request.pid)
        wanted = without_setid(attr.mode, member=member)
        if wanted != attr.mode:
            self.change_mode(node, wanted)

    def change_mode(self, node: Node, mode: int) -> None:
        """Set the permission bits, and make the kernel read them."""
        self.overlay.setattr(node, AttrChanges(mode=stat.S_IMODE(mode)))
        self.notices.attributes_changed(node)


class Change:
    """See `SessionState.changing`; notifies the kernel at the end of what its request does not imply."""

    __slots__ = ("_before", "_changer", "_parent", "_state")

    def __init__(self, state: SessionState, parent: Node, changer: int) -> None:
        self._state = state
        self._parent = parent
        self._changer = changer

    def __enter__(self) -> None:
        overlay, parent = self._state.overlay, self._parent
        self._before = CopyUpEffects(overlay, parent) if overlay.needs_copy_up(parent, data=False) else None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._before is not None:
            self._state.copying.copied(self._before)
        if kind is None:
            self._state.notices.changed(self._parent, self._changer)


# A handler returns the answer's body; or an errno, for refusals that are too common to raise (benchmarks:
# create+write+close).
Answer = Body | int | None
Handler = Callable[..., Answer]
__all__ = ["Answer", "Handler", "Request", "SessionState"]
