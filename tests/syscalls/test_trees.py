"""remove_tree: trees that neither recursion nor paths can reach the end of."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from overlayfs_py.syscalls.mount import mount_table
from overlayfs_py.syscalls.trees import remove_file, remove_tree
from tests.nobody import NOBODY, as_nobody
from tests.syscalls.conftest import MountType


def test_a_very_deep_tree_goes(tmp_path: Path) -> None:
    """Three thousand levels, a file and a link out of the tree in each hundredth."""
    (tmp_path / "kept").write_text("kept")
    fd = os.open(tmp_path, os.O_RDONLY)
    for level in range(3000):
        os.mkdir(b"d", dir_fd=fd)
        below = os.open(b"d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        if level % 100 == 0:
            os.close(os.open(b"file", os.O_CREAT, dir_fd=fd))
            os.symlink(tmp_path, b"out", dir_fd=fd)
    os.close(fd)
    remove_tree(os.fsencode(tmp_path / "d"))
    assert os.listdir(tmp_path) == ["kept"]


FLAGS = ["+i", "+a", "+ia"]


def mounted_below(top: Path) -> list[Path]:
    return [
        Path(os.fsdecode(one.mountpoint))
        for one in mount_table()
        if Path(os.fsdecode(one.mountpoint)).is_relative_to(top)
    ]


def _tree(top: Path) -> list[Path]:
    """Directories and files, the innermost last."""
    (top / "d/e/f").mkdir(parents=True)
    for place in (top, top / "d", top / "d/e", top / "d/e/f"):
        (place / "file").write_text("x")
    return sorted(top.rglob("*"))


@pytest.mark.root
@pytest.mark.parametrize("flags", FLAGS)
def test_flags_are_taken_off(tmpfs: MountType, flags: str) -> None:
    """Of files, of directories that are emptied, of such that are moved, of the top itself."""
    top = tmpfs() / "top"
    subprocess.run(["chattr", flags, top, *_tree(top)], check=True, timeout=30)
    remove_tree(os.fsencode(top))
    assert not top.exists()


@pytest.mark.root
def test_an_immutable_file(tmpfs: MountType) -> None:
    path = tmpfs() / "file"
    path.write_text("x")
    subprocess.run(["chattr", "+i", path], check=True, timeout=30)
    remove_file(os.fsencode(path))
    assert not path.exists()


@pytest.mark.root
@pytest.mark.parametrize("place", ["", "d", "d/e", "d/e/f", "d/e/f/file"])
def test_no_mount_is_entered(where: Path, place: str) -> None:
    """What is mounted is as it was, in the directory that it is mounted on."""
    top, other = where / "top", where / "other"
    kept, _ = _tree(other), _tree(top)
    source = other / "file" if place.endswith("file") else other
    subprocess.run(["mount", "--bind", source, top / place], check=True, timeout=30)
    try:
        with pytest.raises(OSError, match=r"mounted|busy"):
            remove_tree(os.fsencode(top))
        assert sorted(other.rglob("*")) == kept
        [mounted] = mounted_below(top)
        assert mounted.samefile(source)
    finally:
        for path in mounted_below(top):
            subprocess.run(["umount", path], check=True, timeout=30)
    remove_tree(os.fsencode(top))
    assert not top.exists()


@pytest.mark.root
def test_whatever_can_go_goes(where: Path) -> None:
    """An ordinary user's tree in which one directory is another's: that stays, and only that."""
    top = where / "top"
    for path in (where, top, *_tree(top)):
        os.chown(path, NOBODY, NOBODY)
    os.chown(top / "d/e", 0, 0)
    assert as_nobody(lambda: remove_tree(os.fsencode(top))) == errno.EPERM
    assert len([path for path in top.rglob("*") if path.is_file()]) == 2  # in it, and below it
