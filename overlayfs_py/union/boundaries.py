"""Where other file systems begin inside a layer, and so which d_ino of a listing is not the entry's st_ino.

A lower that could be cloned shows no mounts; btrfs subvolumes show in any layer, and an overlay of several
file systems gives files other st_devs than directories. Only entries that may be such are looked at, and
where a file system has none of it, nothing is.
"""

import contextlib
import os
from collections.abc import Iterable

from overlayfs_py.syscalls import as_owner, btrfs
from overlayfs_py.syscalls.attrs import filesystem_type
from overlayfs_py.syscalls.dirents import DT_DIR, Dirent
from overlayfs_py.syscalls.mount import mount_table
from overlayfs_py.union.layer import Layer, Real

_OVERLAYFS = 0x794C7630
_NONE: frozenset[int] = frozenset()

Identity = tuple[int, int]  # st_dev, st_ino


class Boundaries:
    """What is known of the layers' file systems, found out when one is first met."""

    def __init__(self) -> None:
        self._mounts: dict[Layer, dict[bytes, list[bytes]]] = {}
        self._holders: dict[int, frozenset[int]] = {}  # by st_dev: directories that hold subvolumes
        self._mixed: dict[int, bool | None] = {}  # overlays by st_dev; None: not known yet

    def note_mounts(self, layers: list[Layer]) -> None:
        """Take in what is mounted inside layers that are not private mounts."""
        points = [record.mountpoint for record in mount_table()] if layers else []
        for layer in layers:
            top = os.path.realpath(layer.path).rstrip(b"/") + b"/"
            found: dict[bytes, list[bytes]] = {}
            for point in points:
                if point.startswith(top):
                    directory, _, name = point[len(top) :].rpartition(b"/")
                    found.setdefault(b"/" + directory, []).append(name)
            if found:
                self._mounts[layer] = found

    def examine(self, real: Real, fd: int, entries: list[Dirent]) -> tuple[int, dict[bytes, Identity]]:
        """The st_dev of the open directory `real`, and which of its entries have another one or another
        number than listed.
        """
        st = os.fstat(fd)
        dev = st.st_dev
        holders = self._holders.get(dev)
        if holders is None:
            holders = self._meet(dev, fd)
        found: dict[bytes, Identity] = {}
        if st.st_ino in holders:
            _note(fd, dev, ((name, ino) for name, ino, kind in entries if kind == DT_DIR), found)
        if dev in self._mixed and self._mixed[dev] is not False:
            self._examine_all(fd, dev, entries, found)
        if self._mounts and real.layer in self._mounts:
            names = self._mounts[real.layer].get(real.layer_path())
            if names is not None:
                _note(fd, dev, ((name, ino) for name, ino, _ in entries if name in names), found)
        return dev, found

    def _meet(self, dev: int, fd: int) -> frozenset[int]:
        kind = filesystem_type(fd)
        holders = _NONE
        if kind == btrfs.SUPER_MAGIC:
            with contextlib.suppress(OSError):  # Linux before 4.18
                holders = btrfs.directories_with_subvolumes(fd)
        elif kind == _OVERLAYFS:
            self._mixed[dev] = None
        self._holders[dev] = holders
        return holders

    def _examine_all(self, fd: int, dev: int, entries: list[Dirent], found: dict[bytes, Identity]) -> None:
        """An overlay of one file system, or with xino, shows one st_dev: the first file seen tells."""
        for name, ino, kind in entries:
            other = _note(fd, dev, ((name, ino),), found)
            if self._mixed[dev] is None and kind != DT_DIR:
                self._mixed[dev] = other
                if not other:
                    return


def _note(fd: int, dev: int, entries: Iterable[tuple[bytes, int]], found: dict[bytes, Identity]) -> bool:
    """Put entries into `found` that are not what the listing says; whether the last has another st_dev."""
    other = False
    for name, ino in entries:
        try:
            st = as_owner.stat_at(fd, name)
        except OSError:
            continue
        other = st.st_dev != dev
        if other or st.st_ino != ino:
            found[name] = st.st_dev, st.st_ino
    return other
