"""What the layers' file systems allow, tried once on throw-away files."""

import os
import subprocess
from pathlib import Path

import pytest

from overlayfs_py.union import probe
from overlayfs_py.union.descriptors import FdCache, Held
from overlayfs_py.union.layer import O_DIRFD, Real
from overlayfs_py.union.workdir import WorkDir
from tests.mounts import Layers, LowerLayers
from tests.trees import File
from tests.union.conftest import Opener, Union

pytestmark = [pytest.mark.root]


def test_a_plain_file_system_allows_everything(open_union: Opener) -> None:
    """Root on a local file system: every ability, and nothing is left of the trying."""
    union = open_union()
    found = union.overlay.capabilities
    assert all(getattr(found, name) for name in probe.Capabilities.__slots__)
    assert union.leftovers() == []
    assert os.listdir(union.upper) == []


def test_without_an_upper_nothing_is_tried(open_union: Opener) -> None:
    layers = open_union({"f": File()}).layers
    union = Union(LowerLayers(lowers=layers.lowers, merged=layers.merged), {})
    assert union.overlay.capabilities == probe.Capabilities()
    union.close_all_layers()


def test_a_file_system_without_user_xattrs_has_the_trusted_ones(open_union: Opener, where: Path) -> None:
    """ramfs takes no xattr at all: such an upper is refused, and the line names it."""
    union = open_union({"f": File()})
    place = where / "ramfs"
    place.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "none", place], check=True, timeout=30)
    try:
        for name in ("upper", "work"):
            (place / name).mkdir()
        layers = Layers(
            lowers=union.layers.lowers, upper=place / "upper", work=place / "work", merged=union.layers.merged
        )
        with pytest.raises(Exception, match=r"upperdir .*ramfs/upper: .*extended attributes"):
            Union(layers, {})
    finally:
        subprocess.run(["umount", place], check=True, timeout=30)


def test_userxattr_leaves_the_trusted_ones_alone(open_union: Opener) -> None:
    """Whatever we may do, the option says which marks a mount writes."""
    union = open_union(userxattr="")
    found = union.overlay.capabilities
    assert found.xattrs
    assert not found.trusted_xattrs


def test_a_local_file_system_hides_nothing(tmp_path: Path) -> None:
    """Removed while open a file is gone; FUSE and NFS rename it, and say so by the name that is left."""
    (tmp_path / "work").mkdir()
    fds: FdCache[Real] = FdCache(10)
    work = WorkDir(os.fsencode(tmp_path), os.open(tmp_path, O_DIRFD), fds, Held(1))
    try:
        work.prepare(volatile=False)
        assert probe.silly_rename_prefix(work) == b""
        assert os.listdir(tmp_path / "work") == []
    finally:
        fds.clear()
        work.close()
