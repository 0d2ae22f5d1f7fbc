"""Entry points of the two commands; they import almost nothing before they handle Ctrl-C."""

from __future__ import annotations

from overlayfs_py.interrupts import end_quietly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``overlayfs-py``; return the exit status."""
    _prepare()
    from overlayfs_py.cli import mount

    return mount.run(argv)


def control(argv: Sequence[str] | None = None) -> int:
    """Run ``overlayfs-pyctl``; return the exit status."""
    _prepare()
    from overlayfs_py.cli import ctl

    return ctl.run(argv)


def _prepare() -> None:
    end_quietly()
    from overlayfs_py import streams

    streams.prepare()
