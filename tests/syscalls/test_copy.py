import errno
import fcntl
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from overlayfs_py.syscalls import copy
from tests.syscalls.conftest import MountType

MIB = 1 << 20


def extents(path: Path) -> list[tuple[int, int]]:
    with open(path, "rb") as file:
        return list(copy.data_extents(file.fileno(), path.stat().st_size))


def write_sparse(path: Path, size: int, *data: tuple[int, int]) -> None:
    """A file of `size` with random bytes at each (offset, length) of `data`."""
    source = random.Random(1)
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, length in data:
            file.seek(offset)
            file.write(source.randbytes(length))


def copied(source: Path, target: Path, size: int | None = None) -> Path:
    with open(source, "rb") as src, open(target, "xb") as dst:
        copy.copy_data(src.fileno(), dst.fileno(), source.stat().st_size if size is None else size)
    return target


# Its size, then the (offset, length) of each piece of data.
SHAPES: dict[str, tuple[int, list[tuple[int, int]]]] = {
    "empty": (0, []),
    "byte": (1, [(0, 1)]),
    "small": (65_536, [(0, 65_536)]),
    "small with a hole": (60_000, [(50_000, 10_000)]),
    "odd": (3 * MIB + 17, [(0, 3 * MIB + 17)]),
    "all hole": (64 * MIB, []),
    "holes around": (16 * MIB, [(4 * MIB, MIB), (12 * MIB, 4096)]),
    "data at both ends": (16 * MIB, [(0, 4096), (16 * MIB - 4096, 4096)]),
    "hole at the end": (9 * MIB + 1, [(0, 5000)]),
    "far": ((1 << 40) + 3, [(1 << 40, 3)]),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", ["here", "on tmpfs", "to tmpfs", "from tmpfs"])
def test_content_and_holes_are_kept(tmp_path: Path, tmpfs: MountType, shape: str, way: str) -> None:
    other = tmpfs()
    source = (other if way in ("on tmpfs", "from tmpfs") else tmp_path) / "source"
    target = (other if way in ("on tmpfs", "to tmpfs") else tmp_path) / "target"
    size, data = SHAPES[shape]
    write_sparse(source, size, *data)
    copied(source, target)
    assert target.stat().st_size == size
    assert extents(target) == extents(source)
    assert target.stat().st_blocks <= source.stat().st_blocks + 16
    with open(source, "rb") as one, open(target, "rb") as two:
        for offset, length in data:
            assert os.pread(one.fileno(), length, offset) == os.pread(two.fileno(), length, offset)


@pytest.mark.parametrize("mkfs", [("mkfs.xfs", "-q", "-m", "reflink=1"), ("mkfs.btrfs", "-q")])
def test_clones_where_the_file_system_can(image: MountType, mkfs: tuple[str, ...]) -> None:
    where = image(*mkfs, size=400 * MIB)
    write_sparse(where / "source", 64 * MIB, (0, 48 * MIB))
    os.sync()
    before = os.statvfs(where).f_bfree * os.statvfs(where).f_frsize
    copied(where / "source", where / "target")
    os.sync()
    used = before - os.statvfs(where).f_bfree * os.statvfs(where).f_frsize
    assert used < 4 * MIB
    assert (where / "source").read_bytes() == (where / "target").read_bytes()
    part = copied(where / "source", where / "part", 5 * MIB + 3)
    assert part.read_bytes() == (where / "source").read_bytes()[: 5 * MIB + 3]


@pytest.mark.parametrize(
    ("said", "again"),
    [(errno.EXDEV, False), (errno.EOPNOTSUPP, False), (errno.ENOTTY, False), (errno.EINVAL, True)],
)
@pytest.mark.parametrize("size", [10, 100_000])
def test_tells_whether_cloning_is_worth_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: int, again: bool, size: int
) -> None:
    """Two file systems, or one without reflinks, will never do it; one file may be at fault for the rest."""

    def refuse(*_: object) -> None:
        raise OSError(said, os.strerror(said))

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    (tmp_path / "source").write_bytes(b"x" * size)
    with open(tmp_path / "source", "rb") as src:
        for clone, expected in ((True, again), (False, False)):
            with open(tmp_path / "target", "w+b") as dst:
                assert copy.copy_data(src.fileno(), dst.fileno(), size, clone=clone) is expected
            assert (tmp_path / "target").read_bytes() == b"x" * size


@pytest.mark.parametrize("refused", [errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM])
def test_reads_and_writes_where_the_kernel_cannot_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(refused, os.strerror(refused))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    write_sparse(tmp_path / "source", 9 * MIB, (0, 3 * MIB + 5), (8 * MIB, 4096))
    copied(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "source").read_bytes() == (tmp_path / "target").read_bytes()
    assert extents(tmp_path / "target") == extents(tmp_path / "source")


def test_goes_on_after_short_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, write = os.copy_file_range, os.pwrite
    calls = iter([1, 4096, 100, 777])

    def short(src: int, dst: int, size: int, src_offset: int, dst_offset: int) -> int:
        limit = next(calls, None)
        if limit is None:
            raise OSError(errno.EINVAL, "no more")
        return whole(src, dst, min(size, limit), src_offset, dst_offset)

    monkeypatch.setattr(os, "copy_file_range", short)
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: write(fd, data[:300_000], offset))
    write_sparse(tmp_path / "source", 3 * MIB, (0, 3 * MIB))
    copied(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "source").read_bytes() == (tmp_path / "target").read_bytes()


def test_virtual_files_that_know_neither_holes_nor_copies(tmp_path: Path) -> None:
    source = Path("/sys/kernel/notes")
    if not source.exists():
        pytest.skip("no /sys/kernel/notes")
    assert copied(source, tmp_path / "target").read_bytes() == source.read_bytes()


def test_size_limits_the_copy(tmp_path: Path) -> None:
    write_sparse(tmp_path / "source", MIB, (0, MIB))
    copied(tmp_path / "source", tmp_path / "target", 1000)
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()[:1000]


@pytest.mark.parametrize("shape", ["odd", "all hole", "hole at the end", "empty"])
def test_a_source_that_shrank_is_an_error(tmp_path: Path, shape: str) -> None:
    size, data = SHAPES[shape]
    write_sparse(tmp_path / "source", size, *data)
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the errno is checked below
        copied(tmp_path / "source", tmp_path / "target", size + 1)
    assert raised.value.errno == errno.EIO


@pytest.mark.parametrize("kind", ["copy_file_range", "read and write"])
def test_a_full_file_system_is_an_error(
    tmp_path: Path, tmpfs: MountType, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    where = tmpfs("1m")
    source = (where if kind == "copy_file_range" else tmp_path) / "source"
    write_sparse(source, 700_000, (0, 700_000))
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the errno is checked below
        copied(source, where / "target") and copied(source, where / "second")
    assert raised.value.errno == errno.ENOSPC


def test_a_full_disk_is_an_error(image: MountType) -> None:
    where = image("mkfs.ext4", "-q", "-m", "0", size=8 * MIB)
    write_sparse(where / "source", 4 * MIB, (0, 4 * MIB))
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the errno is checked below
        copied(where / "source", where / "target")
    assert raised.value.errno == errno.ENOSPC


def test_a_read_only_descriptor_is_an_error(tmp_path: Path) -> None:
    write_sparse(tmp_path / "source", 10, (0, 10))
    (tmp_path / "target").touch()
    with open(tmp_path / "source", "rb") as src, open(tmp_path / "target", "rb") as dst:
        with pytest.raises(OSError) as raised:  # noqa: PT011 - the errno is checked below
            copy.copy_data(src.fileno(), dst.fileno(), 10)
    assert raised.value.errno == errno.EBADF


def test_copies_of_one_descriptor_in_many_threads(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_sparse(source, 24 * MIB, *((offset * MIB, 5000) for offset in range(0, 24, 2)))
    content = source.read_bytes()
    with open(source, "rb") as src, ThreadPoolExecutor(4) as pool:

        def one(number: int) -> bool:
            target = tmp_path / str(number)
            with open(target, "xb") as dst:
                copy.copy_data(src.fileno(), dst.fileno(), 24 * MIB)
            return target.read_bytes() == content and extents(target) == extents(source)

        assert all(pool.map(one, range(12)))


def test_copy_range(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"0123456789")
    with open(tmp_path / "source", "rb") as src, open(tmp_path / "target", "xb") as dst:
        assert copy.copy_range(src.fileno(), 2, dst.fileno(), 1, 5) == 5
        assert copy.copy_range(src.fileno(), 8, dst.fileno(), 0, 5) == 2
        assert copy.copy_range(src.fileno(), 10, dst.fileno(), 0, 5) == 0
        with pytest.raises(OSError) as raised:  # noqa: PT011 - the errno is checked below
            copy.copy_range(dst.fileno(), 0, src.fileno(), 0, 1)
    assert raised.value.errno == errno.EBADF
    assert (tmp_path / "target").read_bytes() == b"893456"


def _full_disk(taken: list[int]) -> Callable[[int, bytes, int], int]:
    """A pwrite(2) that takes so many bytes each time, and then says that the disk is full."""

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data[: taken.pop(0)], offset)

    real = os.pwrite
    return pwrite


def test_write_at_goes_on_until_all_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    monkeypatch.setattr(os, "pwrite", _full_disk([2, 3, 9]))
    assert copy.write_at(fd, b"contents", 4) == 8
    assert os.pread(fd, 100, 0) == b"\0\0\0\0contents"
    os.close(fd)


def test_write_at_tells_how_far_it_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As write(2) does; the error is for the next one."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    monkeypatch.setattr(os, "pwrite", _full_disk([2, 3]))
    assert copy.write_at(fd, memoryview(b"contents"), 0) == 5
    assert os.pread(fd, 100, 0) == b"conte"
    with pytest.raises(OSError, match="No space"):
        copy.write_at(fd, b"nts", 5)
    os.close(fd)
