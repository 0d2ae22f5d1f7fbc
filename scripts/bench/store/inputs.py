"""What is committed, unpacked and sent: trees and layers of the same bytes in every run."""

import hashlib
import io
import json
import os
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import scale
from isal import isal_zlib
from stage import sh

from store.measure import ROOT, said_by

MIB = 1 << 20
_PIECE = 4096


@dataclass(frozen=True)
class Sizes:
    """How much of everything; `quick` is for trying the scripts out."""

    files: int = scale.files(50_000)
    big_mib: int = 2048
    many: int = scale.files(100_000)
    layer_mib: int = 128
    layers: int = 8

    @classmethod
    def quick(cls) -> "Sizes":
        return cls(files=5_000, big_mib=200, many=10_000, layer_mib=16)


def pieces() -> list[bytes]:
    """4 KiB each: half like text, a quarter like tables, a quarter incompressible."""
    rng = random.Random(4)
    words = [rng.randbytes(rng.randrange(2, 9)).hex() for _ in range(4000)]
    text = " ".join(rng.choices(words, k=2_000_000)).encode()
    table = rng.randbytes(8 * MIB).translate(bytes(byte % 16 * 7 for byte in range(256)))
    noise = rng.randbytes(8 * MIB)
    made = [text[at : at + _PIECE] for at in range(0, 16 * MIB, _PIECE)]
    for more in (table, noise):
        made += [more[at : at + _PIECE] for at in range(0, len(more), _PIECE)]
    return made


def small_files(top: Path, count: int, content: list[bytes]) -> None:
    """`count` files of 4 KiB on average, 100 to a directory."""
    rng = random.Random(5)
    for number in range(count):
        directory = top / f"{number // 1000:03d}" / f"{number // 100 % 10}"
        if number % 100 == 0:
            directory.mkdir(parents=True)
        size = min(int(rng.expovariate(1 / 4000)), 16 * _PIECE)
        data = b"".join(rng.choices(content, k=size // _PIECE + 1))[:size]
        with open(directory / f"file-{number}", "wb", buffering=0) as file:
            file.write(data)


def big_file(top: Path, mib: int, content: list[bytes]) -> None:
    rng = random.Random(6)
    top.mkdir(parents=True)
    with open(top / "big", "wb", buffering=0) as file:
        for _ in range(mib):
            file.write(b"".join(rng.choices(content, k=MIB // _PIECE)))


TINY_MTIME = 1_700_000_000


def tiny_content(number: int) -> bytes:
    return b"%d\n" % number * 10


def tiny_files(archive: Path, count: int) -> None:
    """A layer with a great many names in it and little else, 1000 to a directory."""
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(count):
            if number % 1000 == 0:
                directory = tarfile.TarInfo(f"{number // 1000:03d}")
                directory.type, directory.mode, directory.mtime = tarfile.DIRTYPE, 0o755, TINY_MTIME
                tar.addfile(directory)
            data = tiny_content(number)
            info = tarfile.TarInfo(f"{number // 1000:03d}/file-{number}")
            info.size, info.mtime = len(data), TINY_MTIME
            tar.addfile(info, io.BytesIO(data))


def debian(top: Path) -> None:
    """A Debian minbase, or where debootstrap cannot make one, what `scripts/rootfs busybox` makes."""
    top.mkdir()
    sh("tar", "-C", top, "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xf", debian_tar())


def debian_tar() -> Path:
    return Path(said_by(ROOT / "scripts/rootfs", "debian"))


def layout(top: Path, sizes: Sizes) -> None:
    """An OCI image layout with one image, ``x``, of incompressible gzip layers."""
    blobs = top / "blobs/sha256"
    blobs.mkdir(parents=True)
    rng = random.Random(7)
    layers, diff_ids = [], []
    for number in range(sizes.layers):
        digest, size, diff_id = _layer(blobs, rng, number, sizes.layer_mib)
        layers.append({"mediaType": _TYPE + "layer.v1.tar+gzip", "digest": digest, "size": size})
        diff_ids.append(diff_id)
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    config = _put(blobs, "config.v1+json", {"architecture": "amd64", "os": "linux", "rootfs": rootfs})
    manifest = {
        "schemaVersion": 2,
        "mediaType": _TYPE + "manifest.v1+json",
        "config": config,
        "layers": layers,
    }
    entry = _put(blobs, "manifest.v1+json", manifest)
    entry["annotations"] = {"org.opencontainers.image.ref.name": "x"}
    (top / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (top / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


_TYPE = "application/vnd.oci.image."


def _put(blobs: Path, kind: str, document: object) -> dict[str, object]:
    data = json.dumps(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": _TYPE + kind, "digest": f"sha256:{digest}", "size": len(data)}


def _layer(blobs: Path, rng: random.Random, number: int, mib: int) -> tuple[str, int, str]:
    """Digest, size and diffID of a layer of one file."""
    info = tarfile.TarInfo(f"layer-{number}")
    info.size = mib * MIB
    blob_sum, tar_sum, size = hashlib.sha256(), hashlib.sha256(), 0
    stream = isal_zlib.compressobj(0, wbits=31)
    with open(blobs / "new", "wb") as out:
        for piece in _tar(info, rng):
            tar_sum.update(piece)
            size += _written(out.fileno(), stream.compress(piece), blob_sum)
        size += _written(out.fileno(), stream.flush(), blob_sum)
    os.rename(blobs / "new", blobs / blob_sum.hexdigest())
    return f"sha256:{blob_sum.hexdigest()}", size, f"sha256:{tar_sum.hexdigest()}"


def _tar(info: tarfile.TarInfo, rng: random.Random) -> Iterator[bytes]:
    yield info.tobuf()
    for _ in range(info.size // MIB):
        yield rng.randbytes(MIB)
    yield bytes(1024)


def _written(fd: int, data: bytes, digest: "hashlib._Hash") -> int:
    digest.update(data)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return len(data)
