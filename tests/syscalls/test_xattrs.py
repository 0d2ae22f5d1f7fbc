"""Asking for extended attributes without a path."""

import os
from pathlib import Path

from overlayfs_py.syscalls.xattrs import has_no_xattrs


def test_none_is_told_from_some(dir_fd: int, tmp_path: Path) -> None:
    """Where the kernel cannot tell, everything may have some."""
    (tmp_path / "with").touch()
    (tmp_path / "without").touch()
    os.setxattr(tmp_path / "with", "user.one", b"1")
    (tmp_path / "link").symlink_to("with")
    assert not has_no_xattrs(dir_fd, b"with")
    assert not has_no_xattrs(dir_fd, b"missing")
    without, link = has_no_xattrs(dir_fd, b"without"), has_no_xattrs(dir_fd, b"link")
    assert without == link
