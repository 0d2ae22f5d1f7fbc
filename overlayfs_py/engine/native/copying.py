"""Copy-ups: which are done inline, which in a worker thread, and what the kernel is notified of."""

from time import perf_counter

from overlayfs_py.engine.copying import INLINE_SIZE, CopyUpEffects
from overlayfs_py.engine.native.deferral import Busy, Deferrals, Postponed
from overlayfs_py.engine.native.latency import LatencyAverage, Timed
from overlayfs_py.engine.native.needs import Needs
from overlayfs_py.engine.native.notices import Notices
from overlayfs_py.union.overlay import CopyUp, Node, Overlay


class Copying:
    """The copy-ups that requests need."""

    def __init__(self, overlay: Overlay, deferrals: Deferrals, needs: Needs, notices: Notices) -> None:
        self._overlay = overlay
        self._deferrals = deferrals
        self._needs = needs
        self._notices = notices
        self._latency = LatencyAverage()  # of small copies

    def settled(self, node: Node) -> None:
        """Postpone the request while `node` is being copied up."""
        if self._deferrals.busy(node):
            raise Busy(node)

    def need_upper(self, node: Node, *, data: bool) -> None:
        """Give `node` an upper part (`data`: with its contents), or postpone the request until it has one."""
        self.settled(node)
        if not self._overlay.needs_copy_up(node, data=data):
            return
        self._needs.names_above(node)
        effects = CopyUpEffects(self._overlay, node)
        job = self._overlay.copy_up(node, data=data)
        if job is not None:
            if self._takes_long(job):
                raise self._postponed(node, job, effects)
            self._copy_now(job)
        self.copied(effects)

    def _takes_long(self, job: CopyUp) -> bool:
        """Whether a thread should copy: long copies, and small ones that must be synced to a slow or busy
        disk.
        """
        if job.size > INLINE_SIZE:
            return True
        return not self._overlay.options.volatile and (self._latency.is_slow or self._deferrals.copies > 0)

    def _copy_now(self, job: CopyUp) -> None:
        """Do a small copy inline, which is faster than a thread (benchmarks: copy-up by chmod)."""
        start = perf_counter()
        try:
            job.transfer()
            job.commit()
        except BaseException:
            job.abort()
            raise
        self._latency.record(perf_counter() - start)

    def _postponed(self, node: Node, job: CopyUp, effects: CopyUpEffects) -> Postponed:
        transfer = Timed(job.transfer, self._latency)

        def settle(error: BaseException | None) -> None:
            try:
                if error is not None:
                    raise error
                job.commit()
            except BaseException:
                job.abort()
                raise
            if job.size <= INLINE_SIZE:
                transfer.report()
            self.copied(effects)

        return Postponed(transfer, settle, node=node)

    def copied(self, effects: CopyUpEffects) -> None:
        """Invalidate in the kernel what a copy-up has changed besides the request's own node and names."""
        for node in effects.copied_up():
            self._notices.attributes_changed(node)
        if effects.renumbered:
            for parent, _ in effects.node.names():
                self._notices.listings.misnumbered(parent)
