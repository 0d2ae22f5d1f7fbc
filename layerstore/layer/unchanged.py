"""What an upper holds that says nothing new: files and directories that were touched and not changed.

An entry is unchanged when the layers below show the same type, mode, owner, device, xattrs, target and
content under its name; its times may differ. Left out, it shows through from there. Hard links, in the
upper or below, always count as changes: leaving one name out could join or part the others.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence

from layerstore.layer.compare import same_content, same_metadata
from layerstore.layer.merged import Found, Look, Merged, Part


class Unchanged:
    """Compares entries of the upper with what lies below, and counts those that may be left out."""

    def __init__(self, merged: Merged) -> None:
        self.count = 0
        self.size = 0
        self._merged = merged

    def is_directory(self, part: Part, look: Look, lowers: Sequence[Part]) -> bool:
        """Whether the directory at `part` has below it a directory with the same attributes.

        What it holds is not looked at. `lowers` are its parent's.
        """
        below = self._below(part, lowers)
        return below is not None and same_metadata(self._merged, Found((part,), look.st), self._merged, below)

    def is_other(self, part: Part, lowers: Sequence[Part]) -> bool:
        """Whether anything but a directory at `part` is the same below; it is counted then."""
        look = self._merged.look(part)
        if look is None or look.whiteout or look.st.st_nlink > 1 or stat.S_ISSOCK(look.st.st_mode):
            return False
        below = self._below(part, lowers)
        if below is None or below.st.st_nlink > 1 or below.st.st_size != look.st.st_size:
            return False
        found = Found((part,), look.st, self._merged.data(part, look, lowers))
        if not same_metadata(self._merged, found, self._merged, below):
            return False
        if not same_content(self._merged, found, self._merged, below):
            return False
        self.count += 1
        self.size += look.st.st_size if found.data is not None else 0
        return True

    def _below(self, part: Part, lowers: Sequence[Part]) -> Found | None:
        return self._merged.lookup(lowers, part.path.rpartition(b"/")[2])
