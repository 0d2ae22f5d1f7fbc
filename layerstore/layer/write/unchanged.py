"""What an upper holds that says nothing new: files and directories that were touched and not changed.

An entry is unchanged when the layers below show the same type, mode, owner, device, xattrs, target and
content under its name; its times may differ. Left out, it shows through from there. Hard links, in the
upper or below, always count as changes: leaving one name out could join or part the others.
"""

from __future__ import annotations

import stat

from layerstore.layer.compare import same_content, same_metadata
from overlayfs_py.union.reading import Node, Reading, Real


class UnchangedFilter:
    """Compares entries of the upper with what lies below, and counts those that may be left out."""

    def __init__(self, reading: Reading) -> None:
        self.count = 0
        self.size = 0
        self._reading = reading

    def is_directory(self, real: Real, below: Node | None) -> bool:
        """Whether the upper's directory `real` has `below` it a directory with the same attributes.

        What it holds is not looked at.
        """
        return below is not None and same_metadata(self._reading, real, self._reading, below.top)

    def is_other(self, entry: Node, below: Node) -> bool:
        """Whether `entry`, which is in the upper and no directory, is the same `below`. Counts it then."""
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
