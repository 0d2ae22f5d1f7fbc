"""How long the kernel may cache answers.

Layers change only through the mount, so answers stay valid until a request changes something, and then the
kernel's FUSE client drops what its request has changed. `timeout=0` is for layers that change underneath.
"""

from typing import NamedTuple


class CachePolicy(NamedTuple):
    """Seconds for names, attributes and negative entries; whether pages stay cached after a close."""

    entry: float
    attr: float
    negative: float
    keep_pages: bool


def cache_policy(timeout: float) -> CachePolicy:
    """Return the policy for the option ``timeout=``."""
    return CachePolicy(timeout, timeout, timeout, timeout > 0)
