"""``overlayfs-pyctl``: its entry, which loads next to nothing before it has cared for Ctrl-C."""

from __future__ import annotations

from overlayfs_py.interrupts import end_quietly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    end_quietly()
    from overlayfs_py import streams

    streams.prepare()
    from overlayfs_py.ctl import program

    return program.run(argv)
