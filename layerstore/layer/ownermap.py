"""Translate owners on disk to owners in an image and back: for user namespaces, or all to one user."""

from __future__ import annotations

from typing import NamedTuple

OwnerRange = tuple[int, int, int]  # (first id in the image, first id on disk, how many)


class OwnerMap(NamedTuple):
    """Ranges as in uid_map and gid_map, or `squash`: the (uid, gid) in the image of every owner on disk.

    Without ranges an id stays as it is.
    """

    uids: tuple[OwnerRange, ...] = ()
    gids: tuple[OwnerRange, ...] = ()
    squash: tuple[int, int] | None = None

    def to_image(self, uid: int, gid: int) -> tuple[int, int] | None:
        """Return the owner in the image; None when the ranges lack an id."""
        if self.squash is not None:
            return self.squash
        found = _to_image(self.uids, uid), _to_image(self.gids, gid)
        return None if found[0] is None or found[1] is None else (found[0], found[1])

    def to_disk(self, uid: int, gid: int) -> tuple[int, int] | None:
        """Return the owner on disk; None when the ranges lack an id, and for a map that squashes."""
        if self.squash is not None:
            return None
        found = _to_disk(self.uids, uid), _to_disk(self.gids, gid)
        return None if found[0] is None or found[1] is None else (found[0], found[1])


def _to_image(ranges: tuple[OwnerRange, ...], ident: int) -> int | None:
    for image, disk, count in ranges:
        if disk <= ident < disk + count:
            return image + ident - disk
    return None if ranges else ident


def _to_disk(ranges: tuple[OwnerRange, ...], ident: int) -> int | None:
    for image, disk, count in ranges:
        if image <= ident < image + count:
            return disk + ident - image
    return None if ranges else ident
