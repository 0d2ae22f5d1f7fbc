import os
import socket
import stat
import time
from pathlib import Path

import pytest

from overlayfs_py.syscalls import dirents
from tests.syscalls.conftest import MountType


def listed(path: Path) -> list[dirents.Dirent]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return dirents.read_dirents(fd)
    finally:
        os.close(fd)


def expected(where: Path) -> list[dirents.Dirent]:
    """The same by lstat."""
    path = os.fsencode(where)
    return sorted(
        (name, found.st_ino, stat.S_IFMT(found.st_mode) >> 12)
        for name in os.listdir(path)
        for found in [os.lstat(os.path.join(path, name))]
    )


def make_one_of_each(where: Path) -> None:
    path = os.fsencode(where)
    os.mkdir(path + b"/dir")
    os.close(os.open(path + b"/file", os.O_CREAT | os.O_WRONLY))
    os.symlink(b"nowhere", path + b"/symlink")
    os.mkfifo(path + b"/fifo")
    os.mknod(path + b"/whiteout", stat.S_IFCHR, 0)
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(path)  # a socket's path is short
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
    for name in (b"n" * 255, b"\xff\xfe bytes", b"new\nline", b".hidden", b"...", "ü".encode() * 100):
        os.close(os.open(path + b"/" + name, os.O_CREAT | os.O_WRONLY))
    for length in range(1, 40):
        os.mkdir(path + b"/" + b"l" * length)


def test_names_inodes_and_types(tmp_path: Path) -> None:
    make_one_of_each(tmp_path)
    assert sorted(listed(tmp_path)) == expected(tmp_path)


def test_names_inodes_and_types_on_tmpfs(tmpfs: MountType) -> None:
    where = tmpfs()
    make_one_of_each(where)
    assert sorted(listed(where)) == expected(where)


def test_types_are_looked_up_where_the_file_system_has_none(image: MountType) -> None:
    where = image("mkfs.ext4", "-q", "-O", "^filetype")
    make_one_of_each(where)
    with os.scandir(where) as entries:
        assert next(entries) is not None
    assert sorted(listed(where)) == expected(where)
    assert dirents.DT_UNKNOWN not in {kind for _, _, kind in listed(where)}


def test_starts_anew_each_time(tmp_path: Path, dir_fd: int) -> None:
    assert dirents.read_dirents(dir_fd) == []
    (tmp_path / "a").touch()
    assert [name for name, _, _ in dirents.read_dirents(dir_fd)] == [b"a"]
    (tmp_path / "a").unlink()
    (tmp_path / "b").mkdir()
    assert [(name, kind) for name, _, kind in dirents.read_dirents(dir_fd)] == [(b"b", dirents.DT_DIR)]


def test_a_removed_directory_is_empty(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    fd = os.open(tmp_path / "gone", os.O_RDONLY)
    (tmp_path / "gone").rmdir()
    try:
        assert dirents.read_dirents(fd) == []
    finally:
        os.close(fd)


def test_errors(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    with pytest.raises(NotADirectoryError):
        dirents.read_dirents(fd)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        dirents.read_dirents(fd)


def test_a_hundred_thousand_entries(tmpfs: MountType) -> None:
    where = tmpfs()
    fd = os.open(where, os.O_RDONLY)
    try:
        for number in range(100_000):
            os.close(os.open(f"entry-{number:06}", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        times = []
        for _ in range(3):
            start = time.perf_counter()
            entries = dirents.read_dirents(fd)
            times.append(time.perf_counter() - start)
    finally:
        os.close(fd)
    assert {name for name, _, _ in entries} == {b"entry-%06d" % number for number in range(100_000)}
    assert min(times) < 0.5  # 0.08 s on an idle machine; the margin is for busy ones
