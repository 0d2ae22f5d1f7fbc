"""The work directory: nothing of it shows, nothing is left in it, and one mount has it."""

import os
from collections.abc import Callable

import pytest

from overlayfs_py.errors import LayerError, OverlayError
from overlayfs_py.union import workdir
from tests import trees
from tests.trees import Dir, File
from tests.union.conftest import Opener, Union

pytestmark = [pytest.mark.root]


DEFAULT = trees.acl(("u", 7), ("user", 1000, 7), ("g", 5), ("m", 7), ("o", 0))


def test_the_work_directorys_acl_does_not_leak(open_union: Opener) -> None:
    """CVE-2016-1575: a default ACL or set-gid bit on the work directory reaches nothing."""
    union = open_union({"f": File(b"f", mode=0o640, gid=5), "d": Dir(mode=0o700, gid=5)})
    for directory in (union.work, union.upper, union.work / "work"):
        os.setxattr(directory, trees.ACL_DEFAULT, DEFAULT)
        os.chown(directory, 0, 2000)
        directory.chmod(0o2755)
    union.close_all_layers()
    os.removexattr(union.upper, trees.ACL_DEFAULT)
    union.upper.chmod(0o755)
    union.reopen()
    union.touch(b"f")
    union.touch(b"d")
    union.mkdir(b"new", 0o700)
    for name, gid, mode in ((b"f", 5, 0o640), (b"d", 5, 0o700), (b"new", 0, 0o700)):
        status = union.lstat(name)
        assert (status.gid, status.mode & 0o7777) == (gid, mode)
        assert union.listxattr(name) == []


def test_leftovers_of_a_crash_are_cleaned(open_union: Opener) -> None:
    """Whatever lies in work/work at the start is gone: directories with content, whiteouts, files."""
    union = open_union()
    union.close_all_layers()
    trees.build(
        union.work / "work", {"#1": Dir(mode=0), "#1/x": File(), "#2": File(), "#3": trees.Whiteout()}
    )
    assert union.reopen().leftovers() == []


def test_a_work_directory_in_use_is_refused(open_union: Opener) -> None:
    """Two live unions on one work directory would destroy each other's files."""
    union = open_union()
    with pytest.raises(OverlayError, match="in use"):
        Union(union.layers, {})
    assert union.reopen().names() == []


def test_nothing_of_it_shows_in_the_upper(open_union: Opener) -> None:
    """Temporary names are where nobody looks, and gone once an operation has ended."""
    union = open_union({"d/f": File(b"f")})
    union.chmod(b"d/f", 0o600)
    union.unlink(b"d/f")
    union.rename(b"d", b"d", 0)
    assert union.leftovers() == []
    assert os.listdir(union.upper) == ["d"]


def test_volatile_is_marked_for_as_long_as_data_may_be_lost(open_union: Opener) -> None:
    """The kernel's mark: it refuses such a work directory, as we do unless this boot lost nothing."""
    union = open_union({"f": File()}, volatile="on")
    mark = union.work / "work/incompat/volatile"
    assert mark.is_dir()
    union.reopen()
    (mark / "boot_id").write_text("another boot")
    union.close_all_layers()
    with pytest.raises(LayerError, match=r"workdir .*: a volatile mount was not synced"):
        Union(union.layers, {})
    assert mark.is_dir()


def test_a_volatile_mount_of_this_boot_has_lost_nothing(open_union: Opener) -> None:
    """What it wrote is in the page cache: a durable mount may follow, and takes the mark away."""
    union = open_union({"f": File()}, volatile="on")
    union.write_file(b"f", b"new")
    union.options.pop("volatile")
    assert union.reopen().content(b"f") == b"new"
    assert not (union.work / "work/incompat").exists()


def test_temporary_names_are_never_used_twice(open_union: Opener) -> None:
    """So what could not be removed is never taken for something new."""
    work = open_union().overlay._stack.work
    names = {work.temp_name() for _ in range(1000)}
    assert len(names) == 1000
    assert all(b"/" not in name for name in names)


def test_a_large_directory_is_discarded_by_whoever_has_time(
    open_union: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory of whiteouts that takes long to remove is handed on; until then it lies in the work
    directory, and the next mount would remove it.
    """
    monkeypatch.setattr(workdir, "_LARGE", 0)
    union = open_union({f"d/{number}": File() for number in range(20)})
    for number in range(20):
        union.unlink(b"d/%d" % number)
    later: list[Callable[[], None]] = []
    union.overlay.remove_large_with(later.append)
    union.rmdir(b"d")
    assert union.names() == []
    assert len(union.leftovers()) == 1
    for remove in later:
        remove()
    assert union.leftovers() == []
