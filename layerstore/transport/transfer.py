"""What a pull or a push is about to move, told before it begins: progress alone only knows blobs."""

from collections.abc import Callable, Mapping

import msgspec

from layerstore.digest import Digest
from layerstore.reference import Reference


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """The image's layers by the digest of the blob that moves, in docker's order: bottom first when they
    come, top first when they go. `shown` is what docker calls each: its blob when it comes, its diffID when
    it goes. None come when the store has the whole image.
    """

    ref: Reference
    shown: Mapping[Digest, Digest]
    elsewhere: Mapping[Digest, str] = {}  # repositories of the registry that a blob may be mounted from


TransferBegun = Callable[[Transfer], None]


def ignore_transfer(transfer: Transfer) -> None:
    """A `TransferBegun` for when nobody looks."""
