"""The native engine as the service sees it: a plain thread serves a mounted /dev/fuse descriptor."""

import errno
import logging
import os
import platform
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from overlayfs_py.engine.base import EngineCapabilities, EngineStatistics, errors_by_operation
from overlayfs_py.engine.caching import cache_policy
from overlayfs_py.engine.native.cpu_latency import CpuLatencyRequest
from overlayfs_py.engine.native.deferral import Deferrals
from overlayfs_py.engine.native.dispatch import Dispatcher
from overlayfs_py.engine.native.loop import GONE, Loop, Polling, SessionEnd
from overlayfs_py.engine.native.message import refusal
from overlayfs_py.engine.native.negotiation import MAX_WRITE, Negotiated, SessionOptions
from overlayfs_py.engine.native.pipes import AnswerPipe, Body, Piped
from overlayfs_py.engine.native.readahead import raise_readahead
from overlayfs_py.engine.native.state import SessionState
from overlayfs_py.engine.native.wire import OPS, OUT_HEADER, PAGE_SIZE, Init
from overlayfs_py.errors import EngineUnavailable, MountError
from overlayfs_py.options import ServiceOptions
from overlayfs_py.syscalls.privileges import is_administrator

if TYPE_CHECKING:
    from overlayfs_py.union.overlay import Overlay

log = logging.getLogger("overlayfs_py.engine.native")

_OLDEST_KERNEL = (5, 12)
# Default µs to poll for the next request: longer where waking the client takes long (decision 0020).
_POLL, _POLL_AWAKE = 500, 100


class NativeEngine:
    """`base.Engine` over the kernel's own protocol."""

    def __init__(self, overlay: "Overlay", options: ServiceOptions) -> None:
        self.capabilities = EngineCapabilities(
            name="native",
            no_open=True,
            cached_listings=True,
            fallocate=True,
            seek_data=True,
            copy_range=True,
            tmpfile=overlay.capabilities.tmpfile,
            file_flags=True,
            syncfs=True,
            statx=True,
            synchronous_direct=True,
            caller_of_write=True,
            interrupts=True,
            marked_write_back=True,
        )
        passthrough = options.data == "passthrough"
        if passthrough and (why := _cannot_register()):
            self._without_passthrough(why)
            passthrough = False
        policy = cache_policy(options.timeout)
        self._overlay = overlay
        self._options = options
        self._fuse_fd = -1
        self._loop: Loop | None = None
        self._deferrals = Deferrals(options.threads, self._wake)
        self._state = SessionState(overlay, policy, self._deferrals, self._notify)
        self._state.backings.refused = self._without_passthrough
        self._requested = SessionOptions(
            acl=not overlay.options.noacl,
            no_open=not passthrough,
            passthrough=passthrough,
            writeback=options.data == "writeback",
            changing=options.timeout <= 0,
        )
        self._dispatcher = Dispatcher(
            self._state, self._send, self._requested, agreed=self._agreed, debug=options.debug
        )

    def _agreed(self, session: Negotiated) -> None:
        """Take in the result of INIT: what the mount can do."""
        passthrough = session.has(Init.PASSTHROUGH)
        no_open = session.has(Init.NO_OPEN_SUPPORT)
        if session.has(Init.WRITEBACK_CACHE):
            self._state.collects = True
            self.capabilities = replace(self.capabilities, writeback=True, marked_write_back=False)
        self.capabilities = replace(self.capabilities, no_open=no_open, passthrough=passthrough)
        if passthrough:
            self._state.backings.enable(self._fuse_fd)
        elif self._requested.passthrough:
            self._without_passthrough("it needs Linux 6.9 or newer, with CONFIG_FUSE_PASSTHROUGH")

    def _without_passthrough(self, why: str) -> None:
        """data=passthrough was requested and is not available: fall back to data=cached and say why."""
        reason = f"data=passthrough is not available: {why}"
        log.warning("%s; using data=cached", reason)
        self.capabilities = replace(self.capabilities, passthrough=False, fallback=reason)

    def attach(self, fuse_fd: int) -> None:
        self._fuse_fd = fuse_fd
        raise_readahead(fuse_fd)
        self._state.pipe = AnswerPipe()
        cpu_latency = CpuLatencyRequest.from_option(self._options.awake)
        poll = self._options.poll
        if poll is None:
            poll = _POLL_AWAKE if cpu_latency.available else _POLL
        self._loop = Loop(
            fuse_fd,
            MAX_WRITE + PAGE_SIZE,
            self._dispatcher.serve,
            self._deferrals.complete,
            lambda: self._deferrals.running,
            self._state.forgotten.shorten,
            self._overlay.rest,
            Polling(poll * 1e-6),
            cpu_latency,
            self._state.chores,
        )

    async def serve(self) -> None:
        """Run the loop in its own thread; EngineUnavailable when the session cannot begin."""
        loop = self._loop
        if loop is None:
            return
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stop_when_cancelled)
                await trio.to_thread.run_sync(loop.run)
                nursery.cancel_scope.cancel()
        except* SessionEnd as ends:
            raise EngineUnavailable(str(ends.exceptions[0])) from None

    async def _stop_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.stop()

    def stop(self) -> None:
        if self._loop is not None:
            self._loop.stop()

    def close(self) -> None:
        """End running copies first, since their requests still wait for answers."""
        if self._loop is None:
            return
        loop, self._loop = self._loop, None
        self._deferrals.close()
        self._deferrals.complete()
        self._state.chores.clear()
        loop.close()
        if self._state.pipe is not None:
            self._state.pipe.close()
        os.close(self._fuse_fd)
        self._fuse_fd = -1
        self._dispatcher.opens.drop_all()
        for node in self._state.nodes.clear():
            self._overlay.forget(node)

    def statistics(self) -> EngineStatistics:
        dispatcher = self._dispatcher
        return EngineStatistics(
            nodes=len(self._state.nodes),
            open_files=len(dispatcher.opens),
            open_directories=0,
            copies=self._deferrals.copies,
            held=self._deferrals.held,
            operations={
                row.name.lower(): count for row in OPS.values() if (count := dispatcher.counts[row.opcode])
            },
            errors=errors_by_operation(dispatcher.refusals.copy()),
        )

    async def freeze(self, *, write_back: bool = False) -> None:
        token = trio.lowlevel.current_trio_token()
        quiet = trio.Event()

        def report_quiet() -> None:
            try:
                token.run_sync_soon(quiet.set)
            except trio.RunFinishedError:
                pass

        def close_gate() -> None:
            self._dispatcher.freeze(write_back=write_back)
            self._deferrals.when_idle(report_quiet)

        self._deferrals.call(close_gate)
        await quiet.wait()
        if written := len(self._state.backings.written):
            raise MountError(
                f"{written} of its files are open for writing with data=passthrough, where the kernel "
                "writes without a request: close them, or mount with data=cached"
            )

    def thaw(self) -> None:
        self._deferrals.call(self._dispatcher.thaw)

    def _wake(self) -> None:
        if self._loop is not None:
            self._loop.wake()

    def _send(self, header: bytes, body: Body = b"") -> bool:
        """Send one answer in one write; False: the kernel no longer waits for it."""
        try:
            if isinstance(body, Piped):
                body.pipe.send(self._fuse_fd, body.size)
            else:
                os.writev(self._fuse_fd, (header, body))
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in GONE:
                log.error("the kernel refused an answer of %d bytes: %s", len(header) + len(body), error)
                self._refuse(header)
        return True

    def _refuse(self, header: bytes) -> None:
        """Answer EIO after the kernel refused an answer, or the sender would wait for ever."""
        _, _, unique = OUT_HEADER.unpack_from(header)
        try:
            os.write(self._fuse_fd, refusal(unique, errno.EIO))
        except OSError as error:  # ENOENT: the kernel has ended the request itself
            log.debug("the kernel refused the EIO answer too: %s", error)

    def _notify(self, message: bytes) -> None:
        """Send a notification; the kernel answers ENOENT when it no longer holds the node."""
        try:
            os.write(self._fuse_fd, message)
        except OSError as error:
            log.debug("the kernel refused a notification: %s", error)


def _cannot_register() -> str:
    """Why this process may not give the kernel backing files; empty when it may."""
    return "" if is_administrator() else "it needs CAP_SYS_ADMIN outside of user namespaces"


def create(overlay: "Overlay", options: ServiceOptions) -> NativeEngine:
    """Make the engine, for `open_engine`."""
    if platform.system() != "Linux":
        raise EngineUnavailable(f"engine=native speaks Linux's FUSE protocol; this is {platform.system()}")
    release = platform.release().split("-")[0].split(".")
    if tuple(int(part) for part in release[:2] if part.isdigit()) < _OLDEST_KERNEL:
        raise EngineUnavailable(f"engine=native needs Linux 5.12 or newer; this is {platform.release()}")
    return NativeEngine(overlay, options)
