"""remove_tree: trees that neither recursion nor paths can reach the end of."""

import os
from pathlib import Path

from overlayfs_py.syscalls.trees import remove_tree


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
