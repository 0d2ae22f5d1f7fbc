import errno
import os
import stat
from pathlib import Path

import pytest

from overlayfs_py.syscalls.rename import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, renameat2
from tests.syscalls.conftest import MountType


def test_renames_and_replaces(tmp_path: Path, dir_fd: int) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    renameat2(dir_fd, b"a", dir_fd, b"b")
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    assert (tmp_path / "b").read_bytes() == b"a"


def test_noreplace(tmp_path: Path, dir_fd: int) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    with pytest.raises(FileExistsError):
        renameat2(dir_fd, b"a", dir_fd, b"b", RENAME_NOREPLACE)
    renameat2(dir_fd, b"a", dir_fd, b"c", RENAME_NOREPLACE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "c"]


def test_exchange(tmp_path: Path, dir_fd: int) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "dir").mkdir()
    renameat2(dir_fd, b"file", dir_fd, b"dir", RENAME_EXCHANGE)
    assert (tmp_path / "file").is_dir()
    assert (tmp_path / "dir").read_bytes() == b"x"


def test_whiteout_is_left_behind(tmp_path: Path, dir_fd: int) -> None:
    (tmp_path / "a").write_bytes(b"x")
    renameat2(dir_fd, b"a", dir_fd, b"b", RENAME_WHITEOUT)
    left = (tmp_path / "a").lstat()
    assert stat.S_ISCHR(left.st_mode)
    assert left.st_rdev == 0


@pytest.mark.parametrize(
    ("src", "dst", "flags", "code"),
    [
        (b"missing", b"x", 0, errno.ENOENT),
        (b"file", b"full", 0, errno.EISDIR),
        (b"empty", b"full", 0, errno.ENOTEMPTY),
        (b"empty", b"file", 0, errno.ENOTDIR),
        (b"file", b"x", RENAME_NOREPLACE | RENAME_EXCHANGE, errno.EINVAL),
        (b"file", b"missing", RENAME_EXCHANGE, errno.ENOENT),
        (b"file", b"n" * 256, 0, errno.ENAMETOOLONG),
    ],
)
def test_errors(tmp_path: Path, dir_fd: int, src: bytes, dst: bytes, flags: int, code: int) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "full" / "x").mkdir(parents=True)
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the errno is checked below
        renameat2(dir_fd, src, dir_fd, dst, flags)
    assert raised.value.errno == code


def test_across_file_systems(tmp_path: Path, dir_fd: int, tmpfs: MountType) -> None:
    (tmp_path / "a").touch()
    other = os.open(tmpfs(), os.O_RDONLY)
    try:
        with pytest.raises(OSError) as raised:  # noqa: PT011 - the errno is checked below
            renameat2(dir_fd, b"a", other, b"a")
        assert raised.value.errno == errno.EXDEV
    finally:
        os.close(other)
