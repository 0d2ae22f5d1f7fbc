"""Open an upper that another daemon still has: wait for a daemon that is ending, refuse at once otherwise.

The lock on the directories decides which of several waiting processes gets them; this module only decides how
long to try.
"""

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from overlayfs_py.errors import InUse, LayerError, MountError, shown
from overlayfs_py.service.keepers import (
    FORCE,
    connection_of,
    describe,
    keepers,
    may_be_daemon,
    mountpoint_of,
    mounts_here,
)
from overlayfs_py.syscalls import processes

log = logging.getLogger("overlayfs_py")

# Seconds to wait for an ending daemon, which may have much to write.
_WAIT_SECONDS = 60.0
_TELL_AFTER = 1.0
_LOOK_EVERY = 0.05
# The lock may be released between its refusal and our search for its holder.
_UNKNOWN_TRIES = 10

Opened = TypeVar("Opened")


def open_when_free(
    opener: Callable[[], Opened],
    run_dir: bytes | None,
    *,
    seconds: float = _WAIT_SECONDS,
    remedy: str | None = None,
) -> Opened:
    """Call `opener` until it no longer raises InUse for a daemon that is ending; return its result.

    LayerError names the process that has the directory. `remedy`: the command that ends a daemon in use.
    """
    began = time.monotonic()
    unknown = 0
    told = False
    while True:
        try:
            return opener()
        except InUse as refusal:
            holder = next(iter(processes.lock_holders(*refusal.identity)), None)
            unknown = 0 if holder is not None else unknown + 1
            if unknown > _UNKNOWN_TRIES:
                raise
            waited = time.monotonic() - began
            if holder is None:
                time.sleep(_LOOK_EVERY)
                continue
            check_ending(refusal.what, holder, run_dir, remedy)
            if waited > seconds:
                why = f"{_overlay(holder)} has been stopping for {seconds:g} s and still has it"
                raise LayerError(f"{refusal.what}: {why}; mount again after it has stopped") from None
            if waited > _TELL_AFTER and not told:
                told = True
                log.warning(
                    "%s: waiting until the daemon (pid %d) of the last mount has stopped",
                    refusal.what,
                    holder,
                )
        wait_briefly(holder)


def check_ending(what: str, holder: int, run_dir: bytes | None, remedy: str | None = None) -> None:
    """Return if the process that holds the lock on `what` is ending or starting.

    Otherwise raise LayerError, which names the process and the remedy.
    """
    found = _who_has_it(holder, run_dir, remedy)
    if found is not None and not _has_ended(holder):  # it may have ended meanwhile
        raise LayerError(f"{what}: in use by {found}")


def _has_ended(pid: int) -> bool:
    return processes.is_ending(pid) or not processes.words_of(pid)


def _who_has_it(holder: int, run_dir: bytes | None, remedy: str | None) -> str | None:
    """Describe a daemon that serves a mount, or another program; None for a daemon that ends or starts."""
    if not may_be_daemon(holder):
        return f"pid {holder} ({processes.command_of(holder)})"
    if not processes.may_look_into(holder):
        return f"{_overlay(holder)}, another user's; unmount it first"
    connection = connection_of(holder, run_dir)
    if connection is None:
        return None
    if here := mounts_here(connection):
        return f"the overlay on {shown(here[-1].mountpoint)} (pid {holder}); unmount it first"
    found = keepers(connection, besides=[holder])
    if not found:
        return None
    place = mountpoint_of(holder, found=found) or _asked(holder, run_dir)
    remedy = remedy or f"{FORCE} {shown(place) if place else 'it'}"
    return f"{_overlay(holder, place)}, kept alive by {describe(found)}: end that process, or run {remedy}"


def _asked(holder: int, run_dir: bytes | None) -> bytes | None:
    """Ask the daemon for its mount point, when nothing else tells it."""
    from overlayfs_py.service.client import ask_daemon

    with suppress(MountError, TypeError, KeyError):
        return os.fsencode(ask_daemon(run_dir, holder, "status")["mountpoint"]) if run_dir else None
    return None


def _overlay(holder: int, place: bytes | None = None) -> str:
    place = place or mountpoint_of(holder)
    return f"the overlay that was on {shown(place)} (pid {holder})" if place else f"an overlay (pid {holder})"


def wait_briefly(pid: int) -> None:
    """Wait a short time for the process to end; it may release the lock before that."""
    try:
        pid_fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        processes.wait_readable(pid_fd, _LOOK_EVERY)
    finally:
        os.close(pid_fd)
