"""What a layer takes unpacked, which is what docker calls its size: the bytes of all files in its tar.

No document says it, so the layer is read once, and the figure stays with the blob as an extended attribute:
it goes when the blob goes, and cannot be another blob's.
"""

import os
from contextlib import suppress

from layerstore import limits
from layerstore.errors import LayerstoreError
from layerstore.image.image import Image
from layerstore.model import Descriptor
from layerstore.store import blobs, durable
from layerstore.store.store import Store

_MARK = b"user.layerstore.unpacked"


def of_image(store: Store, image: Image) -> int:
    """What the image's layers take unpacked, together."""
    return sum(of_layer(store, layer) for layer in image.manifest.layers)


def of_layer(store: Store, layer: Descriptor) -> int:
    """What one layer takes unpacked; as it lies in the store when it is not whole or no tar."""
    try:
        fd = durable.open_regular(blobs.path_of(store, layer.digest))
    except FileNotFoundError:
        return layer.size
    try:
        with suppress(OSError, ValueError):
            return int(os.getxattr(fd, _MARK))
        size = _measured(store, layer)
        with suppress(OSError):  # a store that may only be read, or a file system without attributes
            os.setxattr(fd, _MARK, b"%d" % size)
        return size
    except LayerstoreError:
        return layer.size
    finally:
        os.close(fd)


def _measured(store: Store, layer: Descriptor) -> int:
    from layerstore.layer.tar.decode import TarReader  # rarely needed: it is measured once
    from layerstore.layer.tar.decompress import LayerReader
    from layerstore.layer.tar.readahead import TarStream

    allowed = limits.current()
    with blobs.open_blob(store, layer) as stream:
        with TarStream(LayerReader(stream, allowed)) as tar:
            size = sum(entry.size for entry in TarReader(tar, allowed))
            tar.drain()
        stream.verify()
    return size
