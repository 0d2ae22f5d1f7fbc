"""How long the kernel may keep what it was told.

Layers change only through the mount, so the answers stay right until a request changes them, and the
kernel's FUSE client itself drops what its own requests change. `timeout=0` is for layers that others change.
"""

from typing import NamedTuple


class CachePolicy(NamedTuple):
    """Seconds for names, attributes and missing names; whether pages outlive the close of a file."""

    entry: float
    attr: float
    negative: float
    keep_pages: bool


def cache_policy(timeout: float) -> CachePolicy:
    """The policy for the option ``timeout=``."""
    return CachePolicy(timeout, timeout, timeout, timeout > 0)
