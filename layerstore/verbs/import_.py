"""``import``: a root filesystem tarball as a one-layer image."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import cast

from layerstore import environment, limits, media, reference
from layerstore.callbacks import Note, Progress, note_or_log
from layerstore.digest import Digest, Readable
from layerstore.errors import InvalidLayer, checked_text
from layerstore.image import instructions, platforms, write
from layerstore.layer.tar.decompress import LayerReader
from layerstore.layer.tar.streams import PeekedStream, PieceReader, TeeReader
from layerstore.layer.unpack.apply import ApplyResult
from layerstore.layer.write.compress import codec
from layerstore.layer.write.pipeline import BlockWriter
from layerstore.media import Compression
from layerstore.model import Descriptor
from layerstore.store import blobs, layers
from layerstore.store.blobs import BlobTemp
from layerstore.store.layernames import places_of
from layerstore.store.opening import RootPath, open_store
from layerstore.store.store import Store
from layerstore.transport.input import is_url, open_input


def import_(
    source: str | Readable,
    ref: str | None = None,
    *,
    changes: Sequence[str] = (),
    message: str = "",
    platform: str | None = None,
    root: RootPath = None,
    progress: Progress | None = None,
    note: Note | None = None,
) -> Digest:
    """Make an image of the tarball `source` (a file, a URL or a stream); returns the image ID.

    The image is for `platform` (``OS/ARCH[/VARIANT]``), by default this machine's. A tarball that is plain or
    compressed with gzip or zstd becomes the layer's blob byte for byte; one in bzip2 or xz is compressed
    again with gzip. The tarball is unpacked in the same pass, so what is stored is known to be complete and
    harmless.
    """
    target = reference.parse_tag(ref) if ref else None
    made_for = platforms.host() if platform is None else platforms.parse(platform)
    instructions.apply({}, changes)  # fails early for a wrong one
    step = write.HistoryDetails(
        created=environment.creation_time(), comment=checked_text(message or _comment(source), "the message")
    )
    store = open_store(root, make=True)
    with store.writing(), open_input(source) as stream:
        layer = _store_layer(store, stream, progress, note_or_log(note))
        return write.write_first(store, layer, step, platform=made_for, changes=changes, ref=target)


def _comment(source: str | Readable) -> str:
    """Return docker's comment; without a file's name, which says nothing and would change the digest."""
    return f"Imported from {checked_text(source, 'the URL')}" if is_url(source) else "Imported from -"


def _store_layer(store: Store, stream: Readable, progress: Progress | None, note: Note) -> write.NewLayer:
    """Store the tarball as a blob and as an unpacked layer, or neither."""
    with ExitStack() as held:
        blob = held.enter_context(blobs.new_blob(store))
        temp, temp_fd = held.enter_context(store.temp_dir(store.layers))
        peeked = PeekedStream(stream, progress)
        store_it = _recompress if peeked.must_be_recompressed else _keep
        descriptor, result = store_it(store, peeked, temp_fd, blob)
        if result.uncompressed_size == 0:  # usually a pipe from a failed command
            raise InvalidLayer("the tarball is empty")
        blob.publish(descriptor.digest, descriptor.size)
        (place,) = places_of([result.diff_id])
        layers.publish(store, temp, temp_fd, place, depends=result.depends)
    for line in result.notes:
        note(line)
    return write.NewLayer(descriptor=descriptor, diff_id=result.diff_id)


def _keep(store: Store, stream: PeekedStream, dest_fd: int, blob: BlobTemp) -> tuple[Descriptor, ApplyResult]:
    """Keep the bytes as they are."""
    result = layers.apply(store, TeeReader(stream, blob.write), dest_fd)
    media_type = media.layer_type(cast(Compression, result.compression))
    return Descriptor(media_type=media_type, digest=stream.hasher.digest(), size=stream.hasher.size), result


def _recompress(
    store: Store, stream: PeekedStream, dest_fd: int, blob: BlobTemp
) -> tuple[Descriptor, ApplyResult]:
    """Decompress the tarball and compress it with gzip on its way to the blob."""
    with BlockWriter(blob.file, codec("gzip")) as writer:
        tar = PieceReader(LayerReader(stream, limits.current()).pieces())
        result = layers.apply(store, TeeReader(tar, writer.write), dest_fd)
        writer.finish()
    gzipped = writer.blob
    return Descriptor(media_type=media.OCI_LAYER_GZIP, digest=gzipped.digest(), size=gzipped.size), result
