"""The package's own exceptions, and how errors are raised and shown.

Filesystem results are plain ``OSError(errno)`` everywhere. The types here are for the command line and the
service, whose users want one line: what failed, where, and what to do.
"""

import errno
import os
import sys

TYPE_CHECKING = False  # as in the package's __init__: typing takes long to load
if TYPE_CHECKING:
    from typing import NoReturn

# What an `OSError` says when the process or the system has no file descriptor left, or the disk no room.
OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


def fail(code: int, path: bytes | str | None = None) -> "NoReturn":
    """Raise ``OSError(code)`` with the system's text, in Python's subclass for it, about the file `path`."""
    raise OSError(code, os.strerror(code), path) from None


class OverlayError(Exception):
    """Base of the package's errors; ``str()`` is a complete message for the user."""


class ConfigError(OverlayError):
    """An option or a configuration file is wrong; the user can correct it."""


class LayerError(OverlayError):
    """A layer, upper or work directory is not usable; the message names the directory."""


class InUse(LayerError):
    """Another mount, or a daemon that is just ending, has locked this upper or work directory.

    `what` names the directory, `identity` is its (st_dev, st_ino).
    """

    def __init__(self, what: str, identity: tuple[int, int]) -> None:
        super().__init__(f"{what}: in use by another live mount; unmount it first")
        self.what = what
        self.identity = identity


class MountError(OverlayError):
    """Mounting or unmounting failed; the message names the mount point."""


class EngineUnavailable(OverlayError):
    """The requested engine does not run on this machine; the message says what is missing."""


def for_people(text: str) -> str:
    """Return `text` as one line that is safe to print on a terminal.

    Escapes control characters (C0, C1, DEL), line and paragraph separators, characters that change the
    writing direction, all other invisible ones, and bytes that are not UTF-8. Not for output that programs
    read (``--json``).
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    """Escape as Python does; a byte that is not UTF-8 (surrogateescape) becomes its own number."""
    number = ord(character)
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else repr(character)[1:-1]


def shown(path: bytes) -> str:
    """Return `path` for a message: names may be any bytes, and a message is one line of text."""
    return for_people(path.decode(errors="surrogateescape"))


def say(program: str, message: str) -> None:
    """Print one line on stderr in the form that all our programs use for errors."""
    mention(f"{program}: {message}")


def mention(line: str) -> None:
    """Print one line on stderr; a failure to write it (full disk, closed pipe) is ignored."""
    try:
        print(for_people(line), file=sys.stderr, flush=True)
    except OSError:
        pass
