"""Real files beneath a layer's root: by descriptor, whatever the path."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayfs_py.union.descriptors import FdCache, Held
from overlayfs_py.union.layer import O_DIRFD, Layer, Real, is_whiteout_device
from tests.union.conftest import Opener, fails

pytestmark = [pytest.mark.root]


def test_a_path_longer_than_path_max(open_union: Opener) -> None:
    """40 directories of 200 bytes, each reached from its parent: made, listed, renamed, removed."""
    union = open_union(redirect_dir="on")
    name = b"d" * 200
    overlay, here = union.overlay, union.overlay.root
    for _ in range(40):
        here, _ = overlay.mkdir(here, name, 0o755, union.caller)
    overlay.mkdir(here, b"leaf", 0o755, union.caller)
    overlay.rename(here, b"leaf", here, b"renamed", 0)
    assert [entry[0] for entry in overlay.list_dir(here).entries] == [b"renamed"]
    overlay.rmdir(here, b"renamed")
    assert here.parent is not None
    overlay.rmdir(here.parent, name)


@pytest.fixture
def layer(tmp_path: Path) -> Iterator[Layer]:
    fds: FdCache[Real] = FdCache(100)
    made = Layer(os.fsencode(tmp_path), os.open(tmp_path, O_DIRFD), 0, fds, Held(10))
    yield made
    fds.clear()
    made.close()


def test_a_symlink_on_the_way_is_refused(layer: Layer, tmp_path: Path) -> None:
    """A path is walked below the layer's root and nowhere else, whatever a layer holds."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/out").symlink_to("/")
    (tmp_path / "d/in").symlink_to(".")
    for name in (b"out", b"in"):
        real = layer.root.child(b"d").child(name)
        with fails(errno.ENOTDIR):
            real.child(b"etc").stat()
        with fails(errno.ELOOP):
            real.open(os.O_RDONLY)
    assert layer.root.child(b"d").child(b"out").readlink() == b"/"


def test_a_fifo_does_not_block(layer: Layer, tmp_path: Path) -> None:
    """Whatever a layer holds under a name, opening it returns."""
    os.mkfifo(tmp_path / "p")
    os.close(layer.root.child(b"p").open(os.O_RDONLY))


def test_a_detached_inode_outlives_its_name(layer: Layer, tmp_path: Path) -> None:
    """Addressed by descriptor, it counts as held until it is dropped."""
    (tmp_path / "f").write_bytes(b"f")
    real = layer.root.child(b"f")
    real.detach()
    real.detach()
    assert layer.held.count == 1
    os.unlink(tmp_path / "f")
    assert real.stat().st_size == 1
    assert real.stat().st_nlink == 0
    real.drop()
    real.drop()
    assert layer.held.count == 0


def test_a_path_is_for_messages_and_redirects(layer: Layer) -> None:
    assert layer.root.layer_path() == b"/"
    assert layer.root.child(b"a").child(b"b").layer_path() == b"/a/b"


def test_a_closed_descriptor_is_opened_again(layer: Layer, tmp_path: Path) -> None:
    """From the nearest directory above that is open, without the ones between."""
    (tmp_path / "a/b/c").mkdir(parents=True)
    deep = layer.root.child(b"a").child(b"b").child(b"c")
    first = deep.dir_fd()
    assert len(layer.fds) == 1
    layer.fds.clear()
    assert deep.fd == -1
    assert os.fstat(deep.dir_fd()).st_ino == (tmp_path / "a/b/c").stat().st_ino
    assert first >= 0


@pytest.mark.parametrize(
    ("kind", "rdev", "expected"),
    [(stat.S_IFCHR, 0, True), (stat.S_IFCHR, os.makedev(1, 3), False), (stat.S_IFIFO, 0, False)],
)
def test_a_whiteout_is_a_character_device_0_0(
    layer: Layer, tmp_path: Path, kind: int, rdev: int, expected: bool
) -> None:
    os.mknod(tmp_path / "w", kind | 0o600, rdev)
    assert is_whiteout_device(layer.root.child(b"w").stat()) == expected
