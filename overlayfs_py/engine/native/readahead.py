"""Reading ahead: the kernel's 128 KiB make eight requests of what one request can carry.

INIT can only lower the limit of a mount; raising it takes a write to sysfs, which is root's to do.
"""

import logging
import re

from overlayfs_py.engine.native.pipes import LONGEST

log = logging.getLogger("overlayfs_py.engine.native")

READAHEAD = LONGEST


def raise_readahead(fuse_fd: int, size: int = READAHEAD) -> bool:
    """Let the kernel read `size` bytes ahead on the mount that `fuse_fd` serves; False where it may not be.

    The mount's device number is 0:N, N being the connection that the descriptor's fdinfo tells (Linux 6.18).
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
