"""Keeping idle processors from halting while requests come one after the other.

A client that waits for an answer leaves its processor idle. Where that halts a virtual processor, waking it
takes the hypervisor 30 to 60 µs, which is more than all the rest of a request. While somebody asks for no
latency at all (PM QoS, Documentation/power/pm_qos_interface.rst), Linux's haltpoll driver looks for work
instead.
"""

import logging
import os
import struct

log = logging.getLogger("overlayfs_py.engine.native")

_DEVICE = "/dev/cpu_dma_latency"
_DRIVER = "/sys/devices/system/cpu/cpuidle/current_driver"
_AT_ONCE = struct.pack("=i", 0)  # µs
_WHENEVER = struct.pack("=i", 2_000_000_000)  # PM_QOS_CPU_LATENCY_DEFAULT_VALUE
# It concerns every idle processor, so only where those are few.
_MOST_PROCESSORS = 8


class Wakefulness:
    """`keep` and `end` cost a system call, and that only when they change something. Without a use for it, or
    the right, they do nothing.
    """

    __slots__ = ("_fd", "_kept")

    def __init__(self, fd: int = -1) -> None:
        """Takes over `fd`, an open /dev/cpu_dma_latency; -1 for none."""
        self._fd = fd
        self._kept = False

    @classmethod
    def wanted(cls, choice: str) -> "Wakefulness":
        """As the option `awake` says. Never raises OSError: what is not available is logged."""
        if choice == "off" or (choice == "auto" and not _pays()):
            return cls()
        try:
            return cls(os.open(_DEVICE, os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            log.log(
                logging.WARNING if choice == "on" else logging.DEBUG,
                "awake=%s is not available: %s",
                choice,
                error,
            )
            return cls()

    @property
    def available(self) -> bool:
        """Whether `keep` does anything."""
        return self._fd >= 0

    @property
    def kept(self) -> bool:
        """Whether processors are kept from halting now."""
        return self._kept

    def keep(self) -> None:
        """From now on a client is woken quickly."""
        if not self._kept and self._fd >= 0:
            self._kept = True
            self._ask(_AT_ONCE)

    def end(self) -> None:
        """Processors may halt again."""
        if self._kept:
            self._kept = False
            self._ask(_WHENEVER)

    def close(self) -> None:
        """Idempotent; the kernel drops the wish with the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._kept = False

    def _ask(self, latency: bytes) -> None:
        try:
            os.write(self._fd, latency)
        except OSError as error:
            log.warning("awake is off from now on: %s", error)
            self.close()


def _pays() -> bool:
    """Whether halting is left to haltpoll, the driver of virtual machines, on few enough processors."""
    try:
        with open(_DRIVER, encoding="ascii") as driver:
            return driver.read().strip() == "haltpoll" and (os.cpu_count() or 0) <= _MOST_PROCESSORS
    except OSError:
        return False
