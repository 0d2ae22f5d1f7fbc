"""Keep idle processors from halting while requests come one after the other (decision 0020).

A client that waits for an answer leaves its processor idle. In a virtual machine the processor then halts,
and waking it takes the hypervisor 30 to 60 µs, more than all the rest of a request. While a process requests
zero wake-up latency (PM QoS, Documentation/power/pm_qos_interface.rst), Linux's haltpoll driver polls
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
# The request affects every idle processor, so it is made only where there are few.
_MOST_PROCESSORS = 8


class CpuLatencyRequest:
    """A request to the kernel for zero wake-up latency, made by `start` and withdrawn by `stop`.

    Each costs one system call, and none when it changes nothing. Where the request would not help, or this
    process may not make it, both do nothing.
    """

    __slots__ = ("_active", "_fd")

    def __init__(self, fd: int = -1) -> None:
        """Take over `fd`, an open /dev/cpu_dma_latency; -1: do nothing."""
        self._fd = fd
        self._active = False

    @classmethod
    def from_option(cls, choice: str) -> "CpuLatencyRequest":
        """Make it as the option ``awake=`` says. Raises nothing: a device that is not available is logged."""
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
        """Whether `start` has an effect."""
        return self._fd >= 0

    @property
    def active(self) -> bool:
        """Whether the request is in force."""
        return self._active

    def start(self) -> None:
        """Request zero latency: from now on a client wakes quickly."""
        if not self._active and self._fd >= 0:
            self._active = True
            self._ask(_AT_ONCE)

    def stop(self) -> None:
        """Withdraw the request: processors may halt again."""
        if self._active:
            self._active = False
            self._ask(_WHENEVER)

    def close(self) -> None:
        """Close the device, which withdraws the request; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._active = False

    def _ask(self, latency: bytes) -> None:
        try:
            os.write(self._fd, latency)
        except OSError as error:
            log.warning("awake is off from now on: %s", error)
            self.close()


def _pays() -> bool:
    """Whether haltpoll, the driver of virtual machines, manages halting, and on few enough processors."""
    try:
        with open(_DRIVER, encoding="ascii") as driver:
            return driver.read().strip() == "haltpoll" and (os.cpu_count() or 0) <= _MOST_PROCESSORS
    except OSError:
        return False
