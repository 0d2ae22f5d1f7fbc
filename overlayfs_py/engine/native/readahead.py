"""Readahead: the kernel's default of 128 KiB makes eight requests where one suffices (benchmarks: sequential
read, cold).

INIT can only lower the limit of a mount; raising it takes a write to sysfs, which needs root.
"""

import logging
import re

from overlayfs_py.engine.native.pipes import LONGEST

log = logging.getLogger("overlayfs_py.engine.native")

READAHEAD = LONGEST


def raise_readahead(fuse_fd: int, size: int = READAHEAD) -> bool:
    """Let the kernel read `size` bytes ahead on the mount of `fuse_fd`; False when that is not possible.

    The mount's device number is 0:N, where N is the connection in the descriptor's fdinfo (Linux 6.18).
    """
    try:
        with open(f"/proc/self/fdinfo/{fuse_fd}", encoding="ascii") as info:
            found = re.search(r"^fuse_connection:\s*(\d+)$", info.read(), re.MULTILINE)
        if found is None:
            return False
        with open(f"/sys/class/bdi/0:{found[1]}/read_ahead_kb", "w", encoding="ascii") as limit:
            limit.write(str(size >> 10))
    except OSError as error:
        log.debug("readahead stays as it is: %s", error)
        return False
    return True
