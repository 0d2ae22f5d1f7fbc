"""Files with holes: layers are written in full, refused when absurd, and unpacked with holes again."""

import hashlib
import io
import json
import os
import subprocess
import time
from pathlib import Path

import pytest
import zstandard

from layerstore.errors import LimitExceeded
from layerstore.layer.compare import same_bytes
from layerstore.layer.stack import StackPaths
from layerstore.layer.tar.decode import TarReader
from layerstore.layer.tar.decompress import LayerReader
from layerstore.layer.tar.readahead import TarStream
from layerstore.layer.write.commit import export_tree, write_layer
from layerstore.layer.write.compress import BLOCK_SIZE
from layerstore.limits import DEFAULT_LIMITS, Limits
from layerstore.media import Compression
from layerstore.store.treecheck import first_difference
from overlayfs_py.syscalls.copy import data_extents
from tests.layerstore.commands import Cli
from tests.layerstore.layer.tars import END, block, member, pax, unpack

KIB, MIB = 1 << 10, 1 << 20
CODECS: tuple[Compression, ...] = ("none", "gzip", "zstd")


def holed(path: Path, size: int, *data: tuple[int, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, content in data:
            os.pwrite(file.fileno(), content, offset)
    os.utime(path, (1, 1))
    return path


def extents(path: Path) -> list[tuple[int, int]]:
    with open(path, "rb") as file:
        return list(data_extents(file.fileno(), os.fstat(file.fileno()).st_size))


def layer(upper: Path, compression: Compression = "none", **options: object) -> bytes:
    os.utime(upper, (1, 1))
    out = io.BytesIO()
    write_layer(StackPaths(os.fsencode(upper)), out, compression=compression, **options)  # type: ignore[arg-type]
    return out.getvalue()


@pytest.mark.parametrize("compression", CODECS)
def test_a_hole_is_written_as_the_zeros_it_is(where: Path, compression: Compression) -> None:
    """Not one bit tells the two apart, wherever the holes and the blocks of the compressor begin and end."""
    data = [(0, b"first"), (3 * MIB + 100 * KIB, os.urandom(2 * MIB)), (11 * MIB - 4, b"last")]
    sparse = holed(where / "sparse/file", 12 * MIB + 5, *data)
    (where / "dense").mkdir()
    (where / "dense/file").write_bytes(sparse.read_bytes())
    os.utime(where / "dense/file", (1, 1))
    assert len(extents(sparse)) == 3
    assert layer(where / "sparse", compression) == layer(where / "dense", compression)


def test_the_sparse_form_is_for_whoever_asks(where: Path) -> None:
    holed(where / "upper/file", 8 * MIB, (4 * MIB, b"x"))
    assert len(layer(where / "upper")) > 8 * MIB
    assert len(layer(where / "upper", sparse=True)) < 16 * KIB
    for sparse in (False, True):
        out = io.BytesIO()
        export_tree(StackPaths(os.fsencode(where / "upper")), out, sparse=sparse)
        assert (len(out.getvalue()) < 16 * KIB) is sparse
        unpack(out.getvalue(), where / f"o{sparse}")
        assert (where / f"o{sparse}/file").stat().st_blocks * 512 <= 64 * KIB


@pytest.mark.parametrize("compression", CODECS)
def test_we_read_what_we_write(where: Path, compression: Compression) -> None:
    """Zeros compress so well that a reader with a limit may take them for a bomb."""
    holed(where / "upper/file", 600 * MIB, (5, b"x"))
    with open(where / "layer", "w+b") as file:
        result = write_layer(StackPaths(os.fsencode(where / "upper")), file, compression=compression)
        file.seek(0)
        if compression != "none":
            assert result.size < 2 * MIB
        reader = LayerReader(file, DEFAULT_LIMITS)
        digest = hashlib.sha256()
        for piece in reader.pieces():
            digest.update(piece)
        assert result.diff_id == f"sha256:{digest.hexdigest()}"


def test_other_programs_read_our_zstd_zeros(where: Path) -> None:
    holed(where / "upper/file", 9 * MIB, (5 * MIB, os.urandom(99)))
    blob = layer(where / "upper", "zstd")
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(blob), read_across_frames=True) as stream:
        assert stream.read() == layer(where / "upper")
    done = subprocess.run(["zstd", "-d", "-c"], input=blob, capture_output=True, check=True)
    assert done.stdout == layer(where / "upper")


@pytest.mark.parametrize("compression", CODECS)
def test_every_number_of_zero_blocks(where: Path, compression: Compression) -> None:
    for count in range(4):
        for beside in (0, 1, 511):
            content = b"a" * beside + bytes(count * BLOCK_SIZE) + b"b" * beside
            holed(where / "upper/file", len(content), (0, content))
            reader = LayerReader(io.BytesIO(layer(where / "upper", compression)), DEFAULT_LIMITS)
            with TarStream(reader) as tar:
                members = TarReader(tar, DEFAULT_LIMITS)
                found = {one.name: b"".join(members.data(one)) for one in members}
            assert found[b"file"] == content


def test_what_would_be_refused_is_not_written(where: Path) -> None:
    """15 TiB of zeros would take hours, and nobody could unpack them by default."""
    holed(where / "upper/disk.img", 15 << 40)
    with pytest.raises(LimitExceeded, match=r"/disk\.img .*--sparse leaves the holes out \(--limit bytes=N"):
        layer(where / "upper")
    assert len(layer(where / "upper", sparse=True)) < 16 * KIB
    with pytest.raises(LimitExceeded, match=r"/disk\.img has 16492674416640 bytes.*file-size"):
        layer(where / "upper", sparse=True, limits=Limits(max_file_size=1 << 40))


def test_holes_are_made_again(where: Path) -> None:
    """Runs of 64 KiB or more, wherever they begin; smaller ones are data, as in the sparse form."""
    content = bytearray(os.urandom(4 * MIB))
    for start, size in ((4, 64), (132, 60), (300, 68), (500, 512), (2000, 4096 - 2000)):
        content[start * KIB : (start + size) * KIB] = bytes(size * KIB)
    unpack(member(b"file", bytes(content)) + END, where / "o")
    assert (where / "o/file").read_bytes() == content
    found = [(start // KIB, end // KIB) for start, end in extents(where / "o/file")]
    assert found == [(0, 4), (68, 300), (368, 500), (1012, 2000)]


def test_equal_with_other_holes(where: Path) -> None:
    one = holed(where / "a/file", 40 * MIB, (9 * MIB, b"x"))
    other = where / "b/file"
    other.parent.mkdir()
    other.write_bytes(one.read_bytes())
    os.utime(other, (1, 1))
    third = holed(where / "c/file", 40 * MIB, (9 * MIB, b"x"), (39 * MIB, b"y"))
    fds = [os.open(path, os.O_RDONLY) for path in (one, other, third, where / "a", where / "b", where / "c")]
    try:
        assert same_bytes(fds[0], fds[1])
        assert not same_bytes(fds[0], fds[2])
        assert not same_bytes(fds[1], fds[2])
        assert first_difference(fds[3], fds[4]) is None
        assert first_difference(fds[3], fds[5]) == b"file"
    finally:
        for fd in fds:
            os.close(fd)


@pytest.mark.fuse
@pytest.mark.root
def test_no_verb_reads_a_hole(where: Path) -> None:
    """A tar of a few KiB may say 15 TiB: every verb goes by where the data is."""
    size = 15 << 40
    sparse_map = b"2\n1099511627776\n1\n%d\n0\n" % size
    records = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": b"huge",
        b"GNU.sparse.realsize": b"%d" % size,
    }
    stored = sparse_map.ljust(512, b"\0") + b"x"
    tar = pax(records) + block(b"GNUSparseFile.0/huge", size=len(stored)) + stored.ljust(1024, b"\0") + END
    cli = Cli(where / "store")
    began = time.monotonic()
    cli.run("import", "-", "a:1", stdin=tar)
    cli.run("create", "--name", "w", "a:1")
    place = Path(cli.run("mount", "w"))
    try:
        cli.run("cp", "w:/huge", where / "copy")
        assert (where / "copy").stat().st_blocks < 1000
        cli.run("cp", "-", "w:/", stdin=cli.call("cp", "w:/huge", "-").stdout)
        os.truncate(place / "huge", size - MIB)
    finally:
        cli.run("umount", "w")
    assert cli.run("diff", "w") == "C /huge"
    assert "--sparse leaves the holes out" in cli.fail("commit", "w", "b:1")
    cli.run("commit", "--sparse", "w", "b:1")
    cli.run("commit", "--sparse", "--squash-unchanged", "w", "b:2")
    assert cli.run("diff", "a:1", "b:1") == "C /huge"
    assert "no problems" in cli.run("fsck")
    assert len(cli.call("export", "--sparse", "b:1").stdout) < 64 * KIB
    assert time.monotonic() - began < 60
    assert json.loads(cli.run("inspect", "b:1"))[0]["RootFS"]["Layers"][1:]
