"""Linux system calls that the standard library lacks; the only package that uses ctypes.

Every function raises ``OSError(errno)``, releases the GIL while it blocks, keeps no state and may be called
from any thread. All assume a 64-bit Linux (5.6 or later) with glibc.
"""
