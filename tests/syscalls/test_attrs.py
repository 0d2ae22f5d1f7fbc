import errno
import os
import stat
import uuid
from pathlib import Path

import pytest

from overlayfs_py.syscalls import attrs
from tests.syscalls.conftest import MountType


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    os.utime(path, ns=(1_000_000_001, 2_000_000_002))
    return path


def times(path: Path) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_atime_ns, found.st_mtime_ns


@pytest.mark.parametrize(
    ("atime", "mtime", "expected"),
    [
        (5, 6_000_000_007, (5, 6_000_000_007)),
        (None, 6, (1_000_000_001, 6)),
        (5, None, (5, 2_000_000_002)),
        (None, None, (1_000_000_001, 2_000_000_002)),
        (-1, -1_500_000_000, (-1, -1_500_000_000)),
        (4_102_444_800_123_456_789, 0, (4_102_444_800_123_456_789, 0)),
    ],
)
def test_times(
    file: Path, dir_fd: int, atime: int | None, mtime: int | None, expected: tuple[int, int]
) -> None:
    attrs.set_times(dir_fd, b"file", atime, mtime)
    assert times(file) == expected


def test_times_of_a_symbolic_link_itself(tmp_path: Path, file: Path, dir_fd: int) -> None:
    (tmp_path / "link").symlink_to("file")
    attrs.set_times(dir_fd, b"link", 11, 12)
    assert times(tmp_path / "link") == (11, 12)
    assert times(file) == (1_000_000_001, 2_000_000_002)


@pytest.mark.parametrize("name", ["file", "link", "fifo", "dir"])
def test_times_and_mode_by_descriptor(tmp_path: Path, file: Path, name: str) -> None:
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dir").mkdir()
    fd = os.open(tmp_path / name, os.O_PATH | os.O_NOFOLLOW)
    try:
        attrs.set_times(fd, b"", 21, 22)
        assert times(tmp_path / name) == (21, 22)
        if name == "link":
            with pytest.raises(OSError, match="not supported"):
                attrs.set_mode(fd, b"", 0o600)
        else:
            attrs.set_mode(fd, b"", 0o4710)
            assert stat.S_IMODE(os.lstat(tmp_path / name).st_mode) == 0o4710
    finally:
        os.close(fd)


def test_by_an_ordinary_descriptor(file: Path) -> None:
    with open(file, "rb") as opened:
        attrs.set_times(opened.fileno(), b"", 31, None)
        attrs.set_mode(opened.fileno(), b"", 0o600)
    assert times(file) == (31, 2_000_000_002)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("missing_call", [None, errno.ENOSYS, errno.EPERM])
def test_mode_never_follows(
    tmp_path: Path, file: Path, dir_fd: int, monkeypatch: pytest.MonkeyPatch, missing_call: int | None
) -> None:
    if missing_call:  # an older kernel, an older seccomp filter
        monkeypatch.setattr(attrs, "_fchmodat2", lambda *arguments: -1)
        monkeypatch.setattr(attrs, "last_error", lambda: OSError(missing_call, ""))
    (tmp_path / "link").symlink_to("file")
    before = stat.S_IMODE(file.stat().st_mode)
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the errno is checked below
        attrs.set_mode(dir_fd, b"link", 0o777)
    assert raised.value.errno == errno.EOPNOTSUPP
    assert stat.S_IMODE(file.stat().st_mode) == before
    attrs.set_mode(dir_fd, b"file", stat.S_IFREG | 0o2751)
    assert stat.S_IMODE(file.stat().st_mode) == 0o2751
    fd = os.open(file, os.O_PATH)
    attrs.set_mode(fd, b"", 0o1)
    os.close(fd)
    assert stat.S_IMODE(file.stat().st_mode) == 0o1
    with pytest.raises(FileNotFoundError):
        attrs.set_mode(dir_fd, b"missing", 0o777)


def test_missing_name(dir_fd: int) -> None:
    with pytest.raises(FileNotFoundError):
        attrs.set_times(dir_fd, b"missing", 1, 1)


def test_fallocate(tmp_path: Path, tmpfs: MountType) -> None:
    with open(tmp_path / "file", "w+b") as file:
        fd = file.fileno()
        attrs.fallocate(fd, 0, 0, 1 << 20)
        assert os.fstat(fd).st_size == 1 << 20
        assert os.fstat(fd).st_blocks * 512 >= 1 << 20
        attrs.fallocate(fd, attrs.FALLOC_FL_PUNCH_HOLE | attrs.FALLOC_FL_KEEP_SIZE, 0, 1 << 20)
        assert os.fstat(fd).st_size == 1 << 20
        assert os.fstat(fd).st_blocks < 100
        attrs.fallocate(fd, attrs.FALLOC_FL_KEEP_SIZE, 1 << 33, 4096)  # an offset of more than 32 bits
        with pytest.raises(OSError, match="Invalid argument"):
            attrs.fallocate(fd, 0, -1, 10)
    with open(tmpfs("1m") / "file", "w+b") as file:
        with pytest.raises(OSError) as raised:  # noqa: PT011 - the errno is checked below
            attrs.fallocate(file.fileno(), 0, 0, 2 << 20)
        assert raised.value.errno == errno.ENOSPC
        with pytest.raises(OSError) as raised:  # noqa: PT011 - the errno is checked below
            attrs.fallocate(file.fileno(), attrs.FALLOC_FL_COLLAPSE_RANGE, 0, 4096)
        assert raised.value.errno == errno.EOPNOTSUPP


def test_syncfs(dir_fd: int) -> None:
    attrs.syncfs(dir_fd)
    fd = os.open("/", os.O_PATH)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            attrs.syncfs(fd)
    finally:
        os.close(fd)


def test_filesystem_uuid(image: MountType, root: None) -> None:
    wanted = uuid.uuid4()
    where = image("mkfs.ext4", "-q", "-U", str(wanted))
    fd = os.open(where, os.O_RDONLY)
    try:
        assert attrs.filesystem_uuid(fd) in (wanted.bytes, None)  # None: Linux before 6.9
    finally:
        os.close(fd)


def test_no_filesystem_uuid() -> None:
    fd = os.open("/proc", os.O_RDONLY)
    try:
        assert attrs.filesystem_uuid(fd) is None
    finally:
        os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        attrs.filesystem_uuid(fd)
