"""An upper on a file system that can do less, as sshfs, NFS, CIFS or gocryptfs: bindfs takes no flag of
renameat2, makes no nameless files, and keeps files that are removed while open under names of its own.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace

from tests.mounts import Layers, unmount
from tests.oracle.operations import Outcome
from tests.oracle.sides import Side
from tests.snapshots import Reader, Status

# What bindfs does not pass on.
CANNOT = frozenset({"tmpfile", "fallocate", "seek"})
# Its inodes are names: what the kernel remembers of one does not change with another of the same file.
_FORGETFUL = "attr_timeout=0,entry_timeout=0,negative_timeout=0,ac_attr_timeout=0"


def why_not() -> str | None:
    """What keeps this machine from having one, if anything."""
    return None if shutil.which("bindfs") else "needs bindfs"


@contextlib.contextmanager
def bound(layers: Layers) -> Iterator[Layers]:
    """The same layers, upper and work directory through bindfs; they have one parent directory."""
    where = layers.upper.parent / "bound"
    where.mkdir(exist_ok=True)
    subprocess.run(["bindfs", "-o", _FORGETFUL, layers.upper.parent, where], check=True, timeout=30)
    try:
        yield replace(layers, upper=where / layers.upper.name, work=where / layers.work.name)
    finally:
        unmount(os.fsencode(where))


class BoundSide:
    """Another side on layers of which the upper is bound."""

    # A file removed while it was open is really removed when it is closed: its directory's time moves then.
    moves_times = True

    def __init__(self, side: Side) -> None:
        self._side = side
        self.name = f"bound {side.name}"
        self._cleanup = contextlib.ExitStack()

    def start(self, layers: Layers, options: Mapping[str, str]) -> None:
        self._side.start(self._cleanup.enter_context(bound(layers)), options)

    def stop(self) -> None:
        with self._cleanup:
            self._side.stop()

    def run(self, user: int, name: str, arguments: tuple[object, ...]) -> Outcome:
        return self._side.run(user, name, arguments)

    def forget(self) -> None:
        self._side.forget()

    def reader(self) -> Reader:
        return self._side.reader()

    def probe(self, path: bytes) -> Status | str:
        return self._side.probe(path)

    def explain(self) -> str:
        return self._side.explain()

    def end_workers(self) -> None:
        self._side.end_workers()
