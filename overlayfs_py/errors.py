"""The package's own exceptions: what is wrong before there is a mount.

Filesystem results are plain ``OSError(errno)`` everywhere; these types are for the
command line and the service, whose users want one line: what, where, what to do.
"""

import sys


class OverlayError(Exception):
    """Base of the package's errors; ``str()`` of one is a complete sentence for the user."""


class ConfigError(OverlayError):
    """An option or a configuration file is wrong: the user can mend it by editing it."""


class LayerError(OverlayError):
    """A layer, upper or work directory cannot be used: it names the directory."""


class MountError(OverlayError):
    """Mounting or unmounting failed: it names the mount point."""


class EngineUnavailable(OverlayError):
    """The wanted engine cannot run on this machine: it says what is missing."""


def shown(path: bytes) -> str:
    """`path` in a message: names may be any bytes, and a message is one line of text."""
    return path.decode(errors="backslashreplace").replace("\n", "\\n")


def say(program: str, message: str) -> None:
    """One line on stderr, as every program of ours says what is wrong."""
    print(f"{program}: {' '.join(message.splitlines())}", file=sys.stderr, flush=True)
