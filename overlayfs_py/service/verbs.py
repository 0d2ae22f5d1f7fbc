"""What a daemon can be asked over its control socket: one function a verb."""

import dataclasses
import os
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import overlayfs_py
from overlayfs_py.service.control import Verb

if TYPE_CHECKING:
    from overlayfs_py.service.daemon import Daemon


async def _status(daemon: "Daemon", request: Mapping[str, Any]) -> dict[str, object]:
    union, mount = daemon.options.union, daemon.options.mount
    return {
        "mountpoint": os.fsdecode(mount.mountpoint),
        "source": mount.fsname,
        "pid": os.getpid(),
        "version": overlayfs_py.__version__,
        "engine": dataclasses.asdict(daemon.engine.capabilities),
        "read_only": mount.read_only,
        "lower": [os.fsdecode(path) for path in union.lower],
        "data_lower": [os.fsdecode(path) for path in union.data_lower],
        "upper": os.fsdecode(union.upper) if union.upper is not None else None,
        "work": os.fsdecode(union.work) if union.work is not None else None,
        "options": {
            name: value
            for name, value in dataclasses.asdict(union).items()
            if name not in ("lower", "data_lower", "upper", "work")
        },
        "layers": _plain(daemon.overlay.capabilities),
        "uptime": round(time.time() - daemon.started, 3),
        "statistics": dataclasses.asdict(daemon.engine.statistics()),
    }


async def _umount(daemon: "Daemon", request: Mapping[str, Any]) -> None:
    await daemon.unmount(lazy=bool(request.get("lazy", False)))


_VERBS = {"status": _status, "umount": _umount}


def verbs_of(daemon: "Daemon") -> dict[str, Verb]:
    """The verb table of one daemon."""
    return {name: partial(verb, daemon) for name, verb in _VERBS.items()}


def _plain(capabilities: object) -> object:
    return dataclasses.asdict(capabilities) if dataclasses.is_dataclass(capabilities) else None  # type: ignore[arg-type]
