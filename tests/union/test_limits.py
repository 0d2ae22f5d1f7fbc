"""Long names, deep paths, many layers, read-only unions, and layers that cannot be."""

import errno
import os
from collections.abc import Callable

import pytest

from overlayfs_py.errors import OverlayError
from overlayfs_py.options import UnionOptions
from overlayfs_py.union.overlay import Overlay
from tests import trees
from tests.mounts import Layers, LowerLayers
from tests.oracle.overlay_vfs import OverlayVfs
from tests.trees import Dir, File
from tests.union.conftest import Opener, Union, fails

pytestmark = [pytest.mark.root]


def test_a_thousand_lowers_with_long_paths(open_union: Opener) -> None:
    """1,000 lowers of 100-byte paths open; a name in the last is found, one in all is the first's."""
    union = open_union()
    top = union.layers.merged
    lowers = []
    for number in range(1000):
        lower = top / f"{number:04}{'l' * 90}"
        lower.mkdir()
        (lower / "all").write_bytes(b"%d" % number)
        (lower / f"own{number}").write_bytes(b"x")
        lowers.append(lower)
    assert len(str(lowers[0])) >= 100
    layers = Layers(lowers=tuple(lowers), upper=union.upper, work=union.work, merged=top)
    union.close_all_layers()
    deep = Union(layers, {"index": "off"})
    try:
        assert deep.content(b"all") == b"0"
        assert deep.content(b"own999") == b"x"
        assert len(deep.names()) == 1001
        deep.write_file(b"own500", b"new")
        assert deep.content(b"own500") == b"new"
    finally:
        deep.close_all_layers()


def test_names_of_256_bytes(open_union: Opener) -> None:
    """ENAMETOOLONG, from lookup as from creation."""
    union = open_union()
    name = b"n" * 256
    for operation in (
        lambda: union.lstat(name),
        lambda: union.mkdir(name, 0o755),
        lambda: union.open(name, os.O_CREAT | os.O_RDWR, 0o644),
        lambda: union.symlink(b"x", name),
    ):
        with fails(errno.ENAMETOOLONG):
            operation()


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


def _everything_that_writes(union: OverlayVfs) -> list[Callable[[], object]]:
    return [
        lambda: union.open(b"f", os.O_WRONLY, 0),
        lambda: union.open(b"new", os.O_CREAT | os.O_RDWR, 0o644),
        lambda: union.mkdir(b"new", 0o755),
        lambda: union.mknod(b"new", 0o100644, 0),
        lambda: union.symlink(b"x", b"new"),
        lambda: union.link(b"f", b"new"),
        lambda: union.unlink(b"f"),
        lambda: union.rmdir(b"d"),
        lambda: union.rename(b"f", b"new", 0),
        lambda: union.chmod(b"f", 0o600),
        lambda: union.chown(b"f", 1, 1),
        lambda: union.truncate(b"f", 0),
        lambda: union.touch(b"f"),
        lambda: union.setxattr(b"f", b"user.x", b"", 0),
        lambda: union.removexattr(b"f", b"user.k"),
    ]


def test_without_an_upper_everything_is_erofs(open_union: Opener) -> None:
    """A union of lowers alone reads, and answers EROFS to all that writes."""
    layers = open_union({"f": File(b"f", xattrs={b"user.k": b"v"}), "d": Dir()}).layers
    only = LowerLayers(lowers=layers.lowers, merged=layers.merged)
    union = Union(only, {})
    try:
        assert union.overlay.read_only
        assert union.content(b"f") == b"f"
        for operation in _everything_that_writes(union):
            with fails(errno.EROFS):
                operation()
        assert union.names() == [b"d", b"f"]
    finally:
        union.close_all_layers()


def test_statfs_is_the_uppers(open_union: Opener) -> None:
    """Free space is what can be written; the longest name is 255."""
    union = open_union({"f": File()})
    ours, upper = union.overlay.statfs(), os.statvfs(union.upper)
    assert (ours.f_bsize, ours.f_blocks, ours.f_files, ours.f_namemax) == (
        upper.f_bsize,
        upper.f_blocks,
        upper.f_files,
        255,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"lower": (b"/nonexistent/lower",)},
        {"upper": b"/nonexistent/upper"},
        {"work": b"/nonexistent/work"},
        {"work": None},
        {"lower": ()},
        {"work": b"/proc/self"},
    ],
    ids=lambda change: "-".join(f"{key}={value}" for key, value in change.items()),
)
def test_layers_that_cannot_be(open_union: Opener, change: dict[str, object]) -> None:
    """One of the package's own errors that names the directory or the option; never a bare OSError."""
    union = open_union()
    options = {
        "lower": tuple(os.fsencode(path) for path in union.layers.lowers),
        "upper": os.fsencode(union.upper),
        "work": os.fsencode(union.layers.merged),
        **change,
    }
    with pytest.raises(OverlayError, match=r"."):
        Overlay.open(UnionOptions(**options)).close()  # type: ignore[arg-type]


def test_a_work_directory_in_use_is_refused(open_union: Opener) -> None:
    """Two live unions on one work directory would destroy each other's files."""
    union = open_union()
    with pytest.raises(OverlayError, match="in use"):
        Union(union.layers, {})
    assert union.reopen().names() == []


def test_an_upper_in_use_is_refused(open_union: Opener) -> None:
    """With another work directory too: neither would see what the other changes."""
    union = open_union()
    here = union.layers
    other = Layers(lowers=here.lowers, upper=union.upper, work=here.merged, merged=here.merged)
    with pytest.raises(OverlayError, match=r"upperdir .* in use"):
        Union(other, {})
    assert union.reopen().names() == []


def test_upper_inside_a_lower_is_refused(open_union: Opener) -> None:
    """The kernel refuses overlapping layers; so does the union, naming one."""
    layers = open_union({"up": Dir()}).layers
    inside = Layers(
        lowers=layers.lowers, upper=layers.lowers[0] / "up", work=layers.merged, merged=layers.merged
    )
    with pytest.raises(OverlayError, match="up"):
        Union(inside, {})


def test_close_is_idempotent_and_lets_go(open_union: Opener) -> None:
    """No descriptor is left open."""
    before = set(os.listdir("/proc/self/fd"))
    union = open_union({"d/f": File(b"f")}, {"d/g": File()})
    union.snapshot()
    union.write_file(b"d/f", b"new")
    fd = union.open(b"d/f", os.O_RDONLY, 0)
    union.close(fd)
    union.overlay.close()
    union.overlay.close()
    assert len(set(os.listdir("/proc/self/fd"))) == len(before)


def test_leftovers_of_a_crash_are_cleaned(open_union: Opener) -> None:
    """Whatever lies in work/work at the start is gone: directories with content, whiteouts, files."""
    union = open_union()
    union.close_all_layers()
    trees.build(
        union.work / "work", {"#1": Dir(mode=0), "#1/x": File(), "#2": File(), "#3": trees.Whiteout()}
    )
    assert union.reopen().leftovers() == []
