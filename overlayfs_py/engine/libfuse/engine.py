"""The portable engine: pyfuse3 over libfuse, one trio task for each request.

pyfuse3 keeps its session in process-wide variables, so a process can have only one such engine.
"""

import logging
from typing import TYPE_CHECKING

import pyfuse3
import trio

from overlayfs_py.engine.base import EngineCapabilities, EngineStatistics
from overlayfs_py.engine.caching import cache_policy
from overlayfs_py.engine.libfuse.loop import RequestLoop
from overlayfs_py.engine.libfuse.operations import OverlayOperations
from overlayfs_py.errors import EngineUnavailable
from overlayfs_py.options import ServiceOptions

if TYPE_CHECKING:
    from overlayfs_py.union.overlay import Overlay

CAPABILITIES = EngineCapabilities(name="pyfuse3")
# Requests in progress at once; many, so that waiting copies and syncs do not keep others from being read.
_MAX_TASKS = 256


class LibfuseEngine:
    """`base.Engine` over pyfuse3."""

    def __init__(self, overlay: "Overlay", options: ServiceOptions) -> None:
        self.capabilities = CAPABILITIES
        self._debug = options.debug
        self._attached = False
        limiter = trio.CapacityLimiter(max(1, options.threads))
        self._rest = overlay.rest
        self._operations = OverlayOperations(overlay, cache_policy(options.timeout), limiter)

    def attach(self, fuse_fd: int) -> None:
        """Give libfuse the mounted descriptor as mount point /dev/fd/N; libfuse closes it at the end."""
        logging.getLogger("pyfuse3").setLevel(logging.DEBUG if self._debug else logging.WARNING)
        RequestLoop(self._rest).install()
        pyfuse3.init(self._operations, f"/dev/fd/{fuse_fd}", {"debug"} if self._debug else set())
        self._attached = True

    async def serve(self) -> None:
        await pyfuse3.main(max_tasks=_MAX_TASKS)

    def stop(self) -> None:
        pyfuse3.terminate()

    def close(self) -> None:
        if self._attached:
            self._attached = False
            self._operations.drop_all()
            pyfuse3.close(unmount=False)

    async def freeze(self, *, write_back: bool = False) -> None:
        await self._operations.gate.close()

    def thaw(self) -> None:
        self._operations.gate.open()

    def statistics(self) -> EngineStatistics:
        return self._operations.statistics()


def create(overlay: "Overlay", options: ServiceOptions) -> LibfuseEngine:
    """Make the engine, for `open_engine`."""
    if options.data in ("passthrough", "writeback"):
        raise EngineUnavailable(f"data={options.data} needs engine=native; it is not available with pyfuse3")
    return LibfuseEngine(overlay, options)
