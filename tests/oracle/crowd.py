"""With FILES=N in the environment both sides of a comparison know N files more.

What a daemon keeps in bounded numbers (descriptors, what it remembers of names) is full then, and changes
hands all the time. They lie in a lowest layer of their own, in a directory that no operation is drawn from
and no snapshot looks into; some thousands of them have been copied up.
"""

import os
from pathlib import Path

from tests.snapshots import Dirent, DirReader

FILES = int(os.environ.get("FILES", "0"))
NAME = b".crowd"
_DIRECTORIES = 300
_CHANGED = 6000  # more than any cache of descriptors holds


def _paths(top: bytes) -> list[bytes]:
    return [b"%s/%s/%03d/%06d" % (top, NAME, number % _DIRECTORIES, number) for number in range(FILES)]


def lower(ground: Path) -> Path:
    """The layer, made on first use, for all stacks on this ground."""
    made = ground / "crowd"
    if not made.exists():
        for number in range(_DIRECTORIES):
            os.makedirs(b"%s/%s/%03d" % (os.fsencode(made), NAME, number))
        for path in _paths(os.fsencode(made)):
            with open(path, "wb", buffering=0) as file:
                file.write(path[-6:])
        made.chmod(0o755)
    return made


def meet(root: bytes) -> None:
    """Have the mount at `root` look at each of them, and change many."""
    for path in _paths(root):
        os.lstat(path)
    for path in _paths(root)[:_CHANGED]:
        os.chmod(path, 0o600)


class WithoutCrowd(DirReader):
    """A reader that does not see them."""

    def scan(self, path: bytes) -> list[Dirent]:
        return [entry for entry in super().scan(path) if path or entry.name != NAME]
