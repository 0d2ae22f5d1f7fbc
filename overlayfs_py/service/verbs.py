"""The verbs of the control socket, one function each."""

import dataclasses
import errno
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import overlayfs_py
from overlayfs_py.errors import ConfigError, MountError
from overlayfs_py.options.remount import check_kept
from overlayfs_py.service.control import Verb
from overlayfs_py.service.daemon import Daemon
from overlayfs_py.service.figures import figures_of
from overlayfs_py.service.freezing import Freeze

_LONGEST_FREEZE = 1e9  # seconds

_Verb = Callable[[Daemon, Mapping[str, Any], ExitStack], Awaitable[object]]


async def _status(daemon: Daemon, request: Mapping[str, Any], conversation: ExitStack) -> object:
    union, mount = daemon.options.union, daemon.options.mount
    statistics, frozen = daemon.engine.statistics(), daemon.freezer.current
    flags = daemon.mount.flags() if daemon.mount is not None else []
    return {
        "mountpoint": os.fsdecode(mount.mountpoint),
        "source": mount.fsname,
        "pid": os.getpid(),
        "connection": daemon.mount.connection if daemon.mount is not None else None,
        "version": overlayfs_py.__version__,
        "engine": dataclasses.asdict(daemon.engine.capabilities),
        "data": daemon.engine.capabilities.data,
        "read_only": daemon.overlay.read_only or "ro" in flags,
        "flags": ",".join(flags),
        "frozen": None if frozen is None else _described(frozen),
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
        "statistics": {
            "requests": statistics.requests,
            "nodes": statistics.nodes,
            "open_files": statistics.open_files,
            "open_directories": statistics.open_directories,
            "copies": statistics.copies,
            "held": statistics.held,
        },
    }


async def _stats(daemon: Daemon, request: Mapping[str, Any], conversation: ExitStack) -> object:
    return figures_of(daemon)


async def _freeze(daemon: Daemon, request: Mapping[str, Any], conversation: ExitStack) -> object:
    """``timeout``: seconds, null: no limit; ``hold``: only while this connection is open."""
    timeout, hold = request.get("timeout"), request.get("hold", False)
    if timeout is None and not hold:
        raise ConfigError("freeze needs a timeout, or hold: true")
    start = time.monotonic()
    frozen = await daemon.freezer.freeze(timeout)
    if hold:
        conversation.callback(daemon.freezer.release, frozen)
    return {"took": round(time.monotonic() - start, 6), **_described(frozen)}


async def _thaw(daemon: Daemon, request: Mapping[str, Any], conversation: ExitStack) -> object:
    return {"frozen_for": round(daemon.freezer.thaw(), 6)}


async def _sync(daemon: Daemon, request: Mapping[str, Any], conversation: ExitStack) -> object:
    return {"took": round(await daemon.freezer.sync(), 6)}


async def _umount(daemon: Daemon, request: Mapping[str, Any], conversation: ExitStack) -> None:
    if request.get("force", False):
        await daemon.abort()
    else:
        await daemon.unmount(lazy=request.get("lazy", False))


async def _remount(daemon: Daemon, request: Mapping[str, Any], conversation: ExitStack) -> bool:
    """Check whether ``mount -o remount`` is allowed; true: the client must send ``sync`` afterwards.

    ``options``: options that must equal the mount's, by ``record.field``; ``read_only``, ``noatime``: the new
    flags.
    """
    check_kept(request["options"], daemon.options)
    if daemon.freezer.holds:
        raise MountError(f"{os.strerror(errno.EBUSY)}: the mount is frozen; thaw it first")
    if daemon.overlay.read_only and not request["read_only"]:
        raise MountError(f"{os.strerror(errno.EROFS)}: the mount has no upperdir")
    daemon.overlay.spare_access_times(request["read_only"] or request.get("noatime", False))
    return bool(request["read_only"]) and daemon.must_sync


class _Argument(NamedTuple):
    """An argument of a verb, and what its value must be."""

    expected: str
    fits: Callable[[object], bool]
    required: bool = False


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _LONGEST_FREEZE


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


_FLAG = _Argument("true or false", _is_flag)
_TIMEOUT = _Argument(
    "a number of seconds above 0, or null", lambda value: value is None or _is_duration(value)
)
_OPTIONS = _Argument("an object of options", lambda value: isinstance(value, dict), required=True)

_VERBS: dict[str, tuple[_Verb, dict[str, _Argument]]] = {
    "status": (_status, {}),
    "stats": (_stats, {}),
    "freeze": (_freeze, {"timeout": _TIMEOUT, "hold": _FLAG}),
    "thaw": (_thaw, {}),
    "sync": (_sync, {}),
    "remount": (
        _remount,
        {"options": _OPTIONS, "read_only": _FLAG._replace(required=True), "noatime": _FLAG},
    ),
    "umount": (_umount, {"lazy": _FLAG, "force": _FLAG}),
}


def _check(name: str, known: Mapping[str, _Argument], request: Mapping[str, Any]) -> None:
    """Raise ConfigError for an unknown argument or an invalid value."""
    for word in request:
        if word != "verb" and word not in known:
            raise ConfigError(f"{name}: unknown argument {word}; there are {', '.join(known) or 'none'}")
    for word, argument in known.items():
        given = word in request
        if (given or argument.required) and not (given and argument.fits(request[word])):
            raise ConfigError(f"{name}: {word}: expected {argument.expected}")


def _described(frozen: Freeze) -> dict[str, object]:
    left = frozen.seconds_left()
    return {
        "frozen_for": round(time.monotonic() - frozen.since, 6),
        "seconds_left": None if left is None else round(left, 3),
        "pages_left": frozen.pages_left,
    }


def verbs_of(daemon: Daemon) -> dict[str, Verb]:
    """Return the verb table of one daemon."""
    return {name: partial(_called, daemon, name) for name in _VERBS}


async def _called(daemon: Daemon, name: str, request: Mapping[str, Any], conversation: ExitStack) -> object:
    verb, known = _VERBS[name]
    _check(name, known, request)
    return await verb(daemon, request, conversation)


def _plain(capabilities: object) -> object:
    return dataclasses.asdict(capabilities) if dataclasses.is_dataclass(capabilities) else None  # type: ignore[arg-type]
