"""Make the standard streams usable, whatever the caller (cron, a service manager, ``>&-``) did to them."""

import codecs
import io
import os
import sys

_MODES = {"stdin": "r", "stdout": "w", "stderr": "w"}  # in the order of their descriptors
_TEXT = "overlayfs-py.text"
_closed: set[int] = set()


def prepare() -> None:
    """Connect every closed standard stream to /dev/null, and let none fail on unprintable characters.

    Programs call it before they open any file: otherwise that file gets the number of a closed stream, and
    messages are written into it. Idempotent.
    """
    codecs.register_error(_TEXT, _bytes_or_escapes)
    for fd, (name, mode) in enumerate(_MODES.items()):
        if getattr(sys, name) is None:  # Python found it closed
            _closed.add(fd)
            _open_null(fd)
            stream = open(fd, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - stays open
            setattr(sys, name, stream)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Python uses ASCII for an unknown locale; that says nothing about the reader.
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding="utf-8" if is_ascii else stream.encoding, errors=_TEXT)


def was_closed(fd: int) -> bool:
    """Whether the caller had closed the standard stream `fd`, which is /dev/null now."""
    return fd in _closed


def _open_null(fd: int) -> None:
    null_fd = os.open(os.devnull, os.O_RDWR)
    if null_fd == fd:
        os.set_inheritable(fd, True)
    else:
        os.dup2(null_fd, fd)
        os.close(null_fd)


def _bytes_or_escapes(error: UnicodeError) -> tuple[bytes, int]:
    """Encode surrogates (PEP 383) as the bytes they stand for; escape other characters."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    pieces = (
        bytes([ord(c) - 0xDC00]) if "\udc80" <= c <= "\udcff" else c.encode("ascii", "backslashreplace")
        for c in error.object[error.start : error.end]
    )
    return b"".join(pieces), error.end
