"""Find files and directories of an upper that were touched but not changed, so that a layer can omit them.

An entry is unchanged when the layers below show the same type, mode, owner, device, xattrs, target and
content under its name; its times may differ. When it is left out, it shows through from below. Hard links, in
the upper or below, always count as changes: leaving out one name could join or separate the others.
"""

from __future__ import annotations

import stat

from layerstore.layer.compare import same_content, same_metadata
from overlayfs_py.union.reading import Node, Reading, Real


class UnchangedFilter:
    """Compares entries of the upper with the layers below, and counts those that may be left out."""

    def __init__(self, reading: Reading) -> None:
        self.count = 0
        self.size = 0
        self._reading = reading

    def is_directory(self, real: Real, below: Node | None) -> bool:
        """Return whether `below` is a directory with the same attributes as the upper's directory `real`.

        Does not compare what they hold.
        """
        return below is not None and same_metadata(self._reading, real, self._reading, below.top)

    def is_other(self, entry: Node, below: Node) -> bool:
        """Return whether `entry`, which is in the upper and no directory, equals `below`; counts it if so."""
        st = entry.top.stat()
        if st.st_nlink > 1 or stat.S_ISSOCK(st.st_mode):
            return False
        lower = below.top.stat()
        if lower.st_nlink > 1 or lower.st_size != st.st_size:
            return False
        if not same_metadata(self._reading, entry.top, self._reading, below.top):
            return False
        if not same_content(entry, below):
            return False
        self.count += 1
        self.size += st.st_size if entry.is_file else 0
        return True
