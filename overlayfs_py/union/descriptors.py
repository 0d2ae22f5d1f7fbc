"""Which descriptors a mount keeps, so that it never uses up what its process may open.

Two kinds. *Cached* ones (`FdCache`) are opened again when needed: directories of the layers, and the data of
files, whatever they were opened for. They are bounded, and the oldest go first. *Held* ones (`Held`) are the
only way to an inode that has lost its name. They are counted, and beyond their share a removed inode keeps a
name in the work directory instead (`stash.hold`). The rest of the limit is for what comes and goes: copies,
the control socket, the log.
"""

import itertools
import resource
from typing import Generic, Protocol, TypeVar

_MOST = 2048  # of each kind: more gain nothing that can be measured, and each costs the kernel memory
_LEAST = 4
_ENDLESS = 1 << 30
_EVERYTHING_ELSE = 44  # than layers: what an idle mount has open (25), and some of each kind to work with


class Owner(Protocol):
    """Who has a descriptor that can be opened again."""

    def close_fd(self) -> None:
        """Close it; called with an open one only."""


Kept = TypeVar("Kept", bound=Owner)


class FdCache(Generic[Kept]):
    """A bounded set of owners of open descriptors. Only `trim`, `close` and `clear` close any of them.

    Nothing is closed while an operation runs: what it opened or was handed stays valid until the next `trim`.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.owners: dict[Kept, None] = {}

    def __len__(self) -> int:
        return len(self.owners)

    def add(self, owner: Kept) -> None:
        """`owner` has opened its descriptor, which a later `trim` may close. Idempotent."""
        self.owners[owner] = None

    def remove(self, owner: Kept) -> None:
        """`owner` looks after its descriptor itself from now on."""
        self.owners.pop(owner, None)

    def close(self, owner: Kept) -> None:
        """Close `owner`'s descriptor if it is one of these."""
        if owner in self.owners:
            del self.owners[owner]
            owner.close_fd()

    def trim(self) -> None:
        """Close the oldest above the limit, an eighth of it at once; call between operations only."""
        excess = len(self.owners) - self.limit
        if excess > 0:
            for owner in list(itertools.islice(self.owners, excess + self.limit // 8)):
                self.close(owner)

    def clear(self) -> bool:
        """Close all; between operations only. False when there was none."""
        found = bool(self.owners)
        for owner in list(self.owners):
            self.close(owner)
        return found


class Held:
    """How many inodes without a name are held by descriptor, and how many may be."""

    __slots__ = ("count", "most")

    def __init__(self, most: int) -> None:
        self.count = 0
        self.most = most

    @property
    def full(self) -> bool:
        return self.count >= self.most


def limit() -> int:
    """How many files this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENDLESS if soft == resource.RLIM_INFINITY else soft


def room_for(layers: int) -> bool:
    """Whether this process may open what so many layers take, and still work."""
    return layers + _EVERYTHING_ELSE <= limit()


def share() -> int:
    """How many of one kind to keep: an eighth of what this process may open, in bounds. Two kinds of cached
    ones and the held ones leave more than half for everything else.
    """
    return max(_LEAST, min(_MOST, limit() // 8))
