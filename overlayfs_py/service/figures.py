"""Figures of a mount: requests, what it holds, memory and time; counted since the daemon's start."""

import os
import resource
import time

import overlayfs_py
from overlayfs_py.service.daemon import Daemon


def figures_of(daemon: Daemon) -> dict[str, object]:
    """Return the result of the verb ``stats``."""
    statistics, capabilities = daemon.engine.statistics(), daemon.engine.capabilities
    copied_up, copied_bytes = daemon.overlay.copied_up
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "mountpoint": os.fsdecode(daemon.options.mount.mountpoint),
        "version": overlayfs_py.__version__,
        "engine": capabilities.name,
        "data": capabilities.data,
        "started": round(daemon.started, 3),
        "uptime": round(time.time() - daemon.started, 3),
        "frozen": daemon.freezer.current is not None,
        "held": statistics.held,
        "nodes": statistics.nodes,
        "open_files": statistics.open_files,
        "open_directories": statistics.open_directories,
        "copies_running": statistics.copies,
        "copied_up": copied_up,
        "copied_bytes": copied_bytes,
        "requests": statistics.requests,
        "operations": dict(statistics.operations),
        "errors": {operation: dict(counts) for operation, counts in statistics.errors.items()},
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
        "resident_bytes": _resident_bytes(),
        "open_fds": len(os.listdir("/proc/self/fd")) - 1,  # without that of the listing itself
    }


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
