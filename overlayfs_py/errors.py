"""The package's own exceptions: what is wrong before there is a mount.

Filesystem results are plain ``OSError(errno)`` everywhere; these types are for the
command line and the service, whose users want one line: what, where, what to do.
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
    """Base of the package's errors; ``str()`` of one is a complete sentence for the user."""


class ConfigError(OverlayError):
    """An option or a configuration file is wrong: the user can mend it by editing it."""


class LayerError(OverlayError):
    """A layer, upper or work directory cannot be used: it names the directory."""


class InUse(LayerError):
    """Somebody has locked this upper or work directory: another mount, or a daemon that is just ending.

    `what` names the directory, `identity` is its (st_dev, st_ino).
    """

    def __init__(self, what: str, identity: tuple[int, int]) -> None:
        super().__init__(f"{what}: in use by another live mount; unmount it first")
        self.what = what
        self.identity = identity


class MountError(OverlayError):
    """Mounting or unmounting failed: it names the mount point."""


class EngineUnavailable(OverlayError):
    """The wanted engine cannot run on this machine: it says what is missing."""


def for_people(text: str) -> str:
    """`text` as one line that cannot act on the terminal that shows it.

    Control characters (C0, C1, DEL), line and paragraph separators, those that turn the direction of
    writing, whatever else nobody can see, and bytes that are not UTF-8 are escaped. What programs read
    (``--json``) is not given to this.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    """As Python writes it; a byte that is not UTF-8 (surrogateescape) by its own number."""
    number = ord(character)
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else repr(character)[1:-1]


def shown(path: bytes) -> str:
    """`path` in a message: names may be any bytes, and a message is one line of text."""
    return for_people(path.decode(errors="surrogateescape"))


def say(program: str, message: str) -> None:
    """One line on stderr, as every program of ours says what is wrong."""
    mention(f"{program}: {message}")


def mention(line: str) -> None:
    """One line on stderr. That nobody can read it (a full disk, a reader that went) ends nothing else."""
    try:
        print(for_people(line), file=sys.stderr, flush=True)
    except OSError:
        pass
