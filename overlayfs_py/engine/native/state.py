"""What all handlers share: the overlay, the nodes the kernel knows, and how nodes become answers.

Of the notifications INVAL_INODE alone is sent; the others deadlock or have no use (docs/decisions/0019).
"""

import itertools
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

from overlayfs_py.engine.caching import CachePolicy
from overlayfs_py.engine.copying import INLINE_SIZE, Before
from overlayfs_py.engine.native import message, wire
from overlayfs_py.engine.native.chores import Chores
from overlayfs_py.engine.native.cookies import Cookies
from overlayfs_py.engine.native.deferral import Busy, Chore, Deferrals, Postponed
from overlayfs_py.engine.native.forgetting import Backlog
from overlayfs_py.engine.native.message import Request, Timeout
from overlayfs_py.engine.native.passthrough import Backings
from overlayfs_py.engine.native.patience import Patience, Timed
from overlayfs_py.engine.native.pipes import AnswerPipe, Body
from overlayfs_py.engine.native.tidying import Tidying
from overlayfs_py.engine.nodes import NodeTable
from overlayfs_py.engine.setid import may_keep_setgid, without_setid
from overlayfs_py.union.overlay import Attr, AttrChanges, CopyUp, Node, Overlay

NOT_KEPT = Timeout(0, 0)
# Seconds after which an answer has been taken in.
_TAKEN_IN = 1.0
# Inodes that are forgotten at once.
_FEW = 100
# LOOKUPs after which a listing without attributes was a mistake.
_ONE_BY_ONE = 32


class State:
    """One session's state. `notify` sends the kernel a message it did not ask for."""

    def __init__(
        self, overlay: Overlay, policy: CachePolicy, deferrals: Deferrals, notify: Callable[[bytes], None]
    ) -> None:
        self.overlay = overlay
        self.nodes = NodeTable(overlay.root, Tidying(deferrals.later).soon)
        self.chores = Chores()
        self._forgetting: Chore | None = None
        self._listings: dict[Node, Chore] = {}  # directories whose names are being found out
        self.forgotten = Backlog(self.take_back, self.chores.begin)
        self.backings = Backings(overlay)
        self.deferrals = deferrals
        self.notify = notify
        self.names = Timeout.of(policy.entry)
        self.attrs = Timeout.of(policy.attr)
        self.missing = message.missing(Timeout.of(policy.negative))
        # Directories whose cached listing must go before the request under way is answered.
        self.stale_listings: list[Node] = []
        # Directories of which the kernel has begun a listing.
        self.cookies: dict[Node, Cookies] = {}
        self.tags = itertools.count()
        # Directories that the kernel has listed without attributes, and how many names it looked up since.
        self.bare_listings: dict[Node, int] = {}
        # data=writeback: the kernel collects writes. Sizes and times of files are its own, to be told later.
        self.collects = False
        self.pipe: AnswerPipe | None = None
        overlay.remove_large_with(lambda remove: deferrals.start(remove, lambda error: None))
        self._copying = Patience()  # with small ones

    def node(self, nodeid: int) -> Node:
        """ESTALE for a number the kernel should have forgotten."""
        return self.nodes.inode(nodeid).node

    # -- answers -------------------------------------------------------------------------------

    def entry(self, node: Node, kept: Timeout | None = None) -> bytes:
        """The answer that hands out `node`, which is new or locked by who asks, so that no change can outdate
        it. `kept`: how long the kernel may keep the attributes, if not as usual.
        """
        try:
            attr = self.overlay.getattr(node)
        except BaseException:
            if self.nodes.known(node) is None:
                self.overlay.forget(node)
            raise
        inode = self.nodes.remember(node, attr[0])
        return message.entry(inode.nodeid, self.names, self.kept(node) if kept is None else kept, attr)

    def made(self, node: Node, attr: Attr) -> bytes:
        """As `entry` for an inode that is all new, and so has no file capability."""
        inode = self.nodes.remember(node, attr[0])
        inode.uncapable = True
        return message.entry(inode.nodeid, self.names, self.attrs, attr)

    def found(self, node: Node, attr: Attr, asker: int) -> bytes:
        """As `entry` where the attributes are known, for the thread `asker`."""
        inode = self.nodes.remember(node, attr[0])
        if inode.asker != asker:
            inode.answered(asker)
        return message.entry(inode.nodeid, self.names, self.kept(node), attr)

    def attributes(self, node: Node, attr: Attr) -> bytes:
        return message.attributes(self.kept(node), attr)

    def kept(self, node: Node) -> Timeout:
        """How long the kernel may keep the node's attributes: not at all while it changes them unseen."""
        written = self.backings.written
        return NOT_KEPT if written and node in written else self.attrs

    def take_back(self, nodeid: int, lookups: int) -> None:
        """FORGET: the node goes when the kernel holds it no longer."""
        node = self.nodes.forget(nodeid, lookups)
        if node is None:
            return
        if node.is_dir:
            self.bare_listings.pop(node, None)
            self.cookies.pop(node, None)
        if self.deferrals.busy(node):  # its request was interrupted; a new LOOKUP may find it meanwhile
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

    # -- huge directories -------------------------------------------------------------------

    def parent(self, nodeid: int) -> Node:
        """The directory `nodeid` to change names in; postpones the request until all of them are known."""
        node = self.nodes.inode(nodeid).node
        self.need_names(node)
        self.need_names_above(node)
        return node

    def need_names(self, node: Node, *, ordered: bool = False) -> None:
        """Postpone the request until all names of a directory are known (`ordered`: can be listed): of a huge
        one they become so between other requests.
        """
        if not node.is_dir or self.overlay.has_names(node, ordered=ordered):
            return
        chore = self._listings.get(node)
        if chore is None:
            work = self.overlay.listing_work(node, ordered=ordered)
            if work is None:
                return
            chore = self._listings[node] = Chore()
            self.deferrals.hold(chore)
            self.chores.begin(work, lambda: self._names_known(node))
        raise Busy(chore)

    def _names_known(self, node: Node) -> None:
        for then in self.deferrals.release(self._listings.pop(node)):
            then()

    def need_forgotten(self) -> None:
        """Forget what the kernel has forgotten; postpones the request if that is much."""
        if len(self.forgotten) <= _FEW:
            self.forgotten.clear()
            return
        if self._forgetting is None:
            self._forgetting = Chore()
            self.deferrals.hold(self._forgetting)
            self.chores.begin(self.forgotten.shortened(0), self._all_forgotten)
        raise Busy(self._forgetting)

    def _all_forgotten(self) -> None:
        chore, self._forgetting = self._forgetting, None
        for then in self.deferrals.release(chore):
            then()

    def need_names_above(self, node: Node) -> None:
        """`need_names` of those directories in whose upper a copy-up of `node` makes names."""
        for one in self.overlay.copy_up_chain(node):
            if one.parent is not None:
                self.need_names(one.parent)

    # -- listings ------------------------------------------------------------------------------

    def listed(self, node: Node) -> None:
        """The kernel gets a listing of `node` without attributes, and keeps it."""
        self.bare_listings.setdefault(node, 0)

    def looked_up(self, parent: Node) -> None:
        """One more name of `parent` was asked for by itself. Who goes on like that is better off with a new
        listing, which comes with attributes (READDIRPLUS) once the kernel has seen such LOOKUPs.
        """
        count = self.bare_listings.get(parent, -1)
        if count < 0 or parent in self.cookies:
            return
        if count >= _ONE_BY_ONE:
            del self.bare_listings[parent]
            self._drop_listing(parent)
        else:
            self.bare_listings[parent] = count + 1

    def listing_complete(self, node: Node, cookies: Cookies) -> None:
        """The kernel is told now that its listing of `node` is complete."""
        self.cookies.pop(node, None)
        if cookies.is_wrong:
            self._drop_listing(node)

    def misnumbered(self, node: Node) -> None:
        """An entry of `node` has a new st_ino: listings with the old one must go. One that is being put
        together must be completed first, as the kernel begins no other.
        """
        cookies = self.cookies.get(node)
        if cookies is None:
            self.stale_listings.append(node)
        else:
            cookies.misnumbered()

    def _drop_listing(self, node: Node) -> None:
        self.deferrals.start(lambda: self.drop_pages([node]), lambda error: None)

    # -- copy-up -------------------------------------------------------------------------------

    def settled(self, node: Node) -> None:
        """Postpone the request while `node` is being copied up."""
        if self.deferrals.busy(node):
            raise Busy(node)

    def need_upper(self, node: Node, *, data: bool) -> None:
        """Give `node` an upper part (`data`: with its contents), or postpone the request until it has one."""
        self.settled(node)
        if not self.overlay.needs_copy_up(node, data=data):
            return
        self.need_names_above(node)
        before = Before(self.overlay, node)
        job = self.overlay.copy_up(node, data=data)
        if job is not None:
            if self._takes_long(job):
                raise self._postponed(node, job, before)
            self._copy_now(job)
        self.copied(before)

    def _takes_long(self, job: CopyUp) -> bool:
        """Besides long ones those that are synced to a slow disk, or to one that a long one keeps busy."""
        if job.size > INLINE_SIZE:
            return True
        return not self.overlay.options.volatile and (self._copying.lost or self.deferrals.copies > 0)

    def _copy_now(self, job: CopyUp) -> None:
        """A small copy here and now: shorter than the hand-over to a thread, unless the disk is slow."""
        start = perf_counter()
        try:
            job.transfer()
            job.commit()
        except BaseException:
            job.abort()
            raise
        self._copying.took(perf_counter() - start)

    def _postponed(self, node: Node, job: CopyUp, before: Before) -> Postponed:
        transfer = Timed(job.transfer, self._copying)

        def settle(error: BaseException | None) -> None:
            try:
                if error is not None:
                    raise error
                job.commit()
            except BaseException:
                job.abort()
                raise
            if job.size <= INLINE_SIZE:
                transfer.tell()
            self.copied(before)

        return Postponed(transfer, settle, node=node)

    def changing(self, parent: Node, changer: int) -> "Change":
        """Within, the thread `changer` changes entries of `parent`, which the union copies up for that: there
        is nothing long about it, and what is refused changes nothing.
        """
        return Change(self, parent, changer)

    def copied(self, before: Before) -> None:
        """Make the kernel ask again for what a copy-up has changed, which its own requests do not tell it."""
        for node in before.copied_up():
            self.attributes_changed(node)
        if before.renumbered:
            for parent, _ in before.node.names():
                self.misnumbered(parent)

    def attributes_changed(self, node: Node) -> None:
        """Make the kernel ask again for the attributes of `node`.

        Safe from the loop's thread, as a request under way holds the node: the kernel is not freeing it.
        """
        inode = self.nodes.known(node)
        if inode is not None:
            body = wire.INVAL_INODE_OUT.pack(inode.nodeid, -1, 0)
            self.notify(message.notification(wire.NOTIFY_INVAL_INODE, body))

    def changed(self, node: Node, changer: int) -> None:
        """`node` was changed by the thread `changer` in a way that makes the kernel drop the attributes it
        has, but not those on their way to somebody else (fi->attr_version stays): void these too.

        So it is with directories whose entries change, with times of change alone, and with what is written
        back (`written_back`).
        """
        if node in self.cookies:
            self.cookies[node].changed()
        inode = self.nodes.known(node)
        if inode is not None and inode.outdated(changer):
            self.attributes_changed(node)

    def written_back(self, node: Node) -> None:
        """Pages of `node` that were changed through a mapping have been written: `changed` by nobody in
        particular. In a worker's thread, as such a WRITE need not hold the inode: the kernel may be freeing
        it, for which it waits for our answer, and the notification for that.
        """
        inode = self.nodes.known(node)
        if inode is None:
            return
        if inode.outdated(0):
            self._void(node)
        if not inode.mapped:
            inode.mapped = True  # so that LINK is answered with that in mind, but the last one was not
            if self.overlay.getattr(node).nlink > 1:
                self.deferrals.later(_TAKEN_IN, lambda: self._void(node))

    @contextmanager
    def times_told(self, node: Node) -> Iterator[None]:
        """What changes `node` inside does not move its mtime where the kernel keeps that: it tells by SETATTR
        when the change was made, unless that is the very time it was told last.
        """
        if not self.collects:
            yield
            return
        mtime = self.overlay.getattr(node).mtime_ns
        yield
        self.overlay.setattr(node, AttrChanges(mtime_ns=mtime))

    def _void(self, node: Node) -> None:
        self.deferrals.start(lambda: self.attributes_changed(node), lambda error: None)

    def drop_pages(self, nodes: Sequence[Node]) -> None:
        """Make the kernel forget the listings it has of these directories; from a worker's thread only.

        The kernel may have to wait for a reader of the listing, who may wait for the loop.
        """
        for node in nodes:
            inode = self.nodes.known(node)
            if inode is not None:
                body = wire.INVAL_INODE_OUT.pack(inode.nodeid, 0, 0)
                self.notify(message.notification(wire.NOTIFY_INVAL_INODE, body))

    def drop_setid(self, node: Node, request: Request) -> None:
        """Clear set-id bits, as the kernel asks for a change of the contents or the owner.

        It asks for anybody's chown, and for writes by those without CAP_FSETID.
        """
        attr = self.overlay.getattr(node)
        if not attr.mode & (stat.S_ISUID | stat.S_ISGID):
            return
        member = may_keep_setgid(attr.gid, request.uid, request.gid, request.pid)
        wanted = without_setid(attr.mode, member=member)
        if wanted != attr.mode:
            self.change_mode(node, wanted)

    def change_mode(self, node: Node, mode: int) -> None:
        """Set the permission bits, which the kernel does not know of yet."""
        self.overlay.setattr(node, AttrChanges(mode=stat.S_IMODE(mode)))
        self.attributes_changed(node)


class Change:
    """See `State.changing`: the kernel is told in the end what its own request does not tell it."""

    __slots__ = ("_before", "_changer", "_parent", "_state")

    def __init__(self, state: State, parent: Node, changer: int) -> None:
        self._state = state
        self._parent = parent
        self._changer = changer

    def __enter__(self) -> None:
        overlay, parent = self._state.overlay, self._parent
        self._before = Before(overlay, parent) if overlay.needs_copy_up(parent, data=False) else None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._before is not None:
            self._state.copied(self._before)
        if kind is None:
            self._state.changed(self._parent, self._changer)


# What a handler returns is the answer's body; an int is an errno, for refusals too common to be raised.
Answer = Body | int | None
Handler = Callable[..., Answer]
__all__ = ["Answer", "Handler", "Request", "State"]
