"""The standard streams, whatever the caller of a program left of them: cron, a service manager, ``>&-``."""

import codecs
import io
import os
import sys

_MODES = {"stdin": "r", "stdout": "w", "stderr": "w"}  # in the order of their descriptors
_TEXT = "overlayfs-py.text"
_closed: set[int] = set()


def prepare() -> None:
    """Give every closed standard stream to /dev/null, and let none fail for the characters it prints.

    For programs, before they open anything: the next file that is opened takes the number of a closed
    stream, and a message goes into it. Idempotent.
    """
    codecs.register_error(_TEXT, _bytes_or_escapes)
    for fd, (name, mode) in enumerate(_MODES.items()):
        if getattr(sys, name) is None:  # as Python found it closed
            _closed.add(fd)
            _open_null(fd)
            stream = open(fd, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as we live
            setattr(sys, name, stream)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # ASCII is what Python makes of an unknown locale: it says nothing about who reads this.
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding="utf-8" if is_ascii else stream.encoding, errors=_TEXT)


def was_closed(fd: int) -> bool:
    """Whether a standard stream is /dev/null only because the caller gave us none."""
    return fd in _closed


def _open_null(fd: int) -> None:
    null_fd = os.open(os.devnull, os.O_RDWR)
    if null_fd == fd:
        os.set_inheritable(fd, True)
    else:
        os.dup2(null_fd, fd)
        os.close(null_fd)


def _bytes_or_escapes(error: UnicodeError) -> tuple[bytes, int]:
    """Bytes that came as surrogates (PEP 383) go out as they were; what else has no form is escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    pieces = (
        bytes([ord(c) - 0xDC00]) if "\udc80" <= c <= "\udcff" else c.encode("ascii", "backslashreplace")
        for c in error.object[error.start : error.end]
    )
    return b"".join(pieces), error.end
