"""The layers of a pull or a push, for progress: `BlobReport` only knows blobs."""

from collections.abc import Callable, Mapping

import msgspec

from layerstore.digest import Digest
from layerstore.reference import Reference


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """The image's layers by the digest of the blob, in docker's order.

    A pull lists them bottom first, a push top first. `shown` is the digest that docker prints for each: the
    blob's in a pull, the diffID in a push. A pull of an image that the store has completely lists none.
    """

    ref: Reference
    shown: Mapping[Digest, Digest]
    elsewhere: Mapping[Digest, str] = {}  # repositories of the registry from which a blob may be mounted


TransferBegun = Callable[[Transfer], None]


def ignore_transfer(transfer: Transfer) -> None:
    """A `TransferBegun` that does nothing."""
