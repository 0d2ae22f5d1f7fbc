"""``pull``: an image from a registry into the store."""

from layerstore import reference
from layerstore.callbacks import Note, note_or_log
from layerstore.image import platforms
from layerstore.store.opening import RootPath, open_store
from layerstore.transport.base import BlobReport, RegistryOptions, ignore
from layerstore.transport.pull import Pulled, pull_image
from layerstore.transport.transfer import TransferBegun, ignore_transfer


def pull(
    ref: str,
    *,
    platform: str | None = None,
    all_platforms: bool = False,
    options: RegistryOptions | None = None,
    root: RootPath = None,
    report: BlobReport = ignore,
    begun: TransferBegun = ignore_transfer,
    note: Note | None = None,
) -> Pulled:
    """Get an image from its registry; what the store has, or an earlier attempt left, is not loaded again.

    Of an image for several platforms the index is kept, and of its images this machine's or, with
    `all_platforms`, every one; with `platform` only that image is taken, without the index. Manifests are
    kept byte for byte. Layers are unpacked when they are first mounted. Calls `begun` with the layers to
    come before the first of them moves.
    """
    target, wanted = reference.parse(ref), platforms.parse_optional(platform)
    return pull_image(
        open_store(root, make=True),
        target,
        wanted,
        all_platforms=all_platforms,
        options=options or RegistryOptions(),
        report=report,
        begun=begun,
        note=note_or_log(note),
    )
