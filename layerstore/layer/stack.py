"""Where a layer comes from: directories in kernel overlayfs's on-disk form, stacked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stack:
    """Directories of one overlay: the upper (or the topmost layer to read), and the lowers, topmost first.

    `userxattr` tells which namespace the overlay's marks are in: ``user.overlay.`` instead of ``trusted.overlay.``.
    The lowers are opened only where the upper refers to them (redirects, metacopy files, `changes`).
    """

    upper: bytes
    lowers: tuple[bytes, ...] = ()
    userxattr: bool = False
