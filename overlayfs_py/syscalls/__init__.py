"""Linux system calls that the standard library lacks; the only package that uses ctypes.

Every function raises ``OSError(errno)``, blocks without the GIL, keeps no state and may be called from any
thread. A 64-bit Linux (5.6 or later) with glibc is assumed.
"""
