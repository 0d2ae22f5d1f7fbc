"""Descriptors are bounded whatever is done, and what was closed meanwhile is found again."""

import errno
import os

import pytest

from overlayfs_py.union import descriptors
from tests.trees import File
from tests.union.conftest import Opener, Union, fails
from tests.union.crowds import MANY, Watch, many_files, many_names

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("few_descriptors")]


def test_creating_keeps_no_more_open_than_its_share(open_union: Opener) -> None:
    union = open_union()
    watch = Watch()
    for name in many_names():
        union.write_file(name, b"of " + name)
        watch.check()
    for name in many_names():
        assert union.content(name) == b"of " + name


@pytest.mark.parametrize("metacopy", ["off", "on"])
def test_copying_up_keeps_no_more_open_than_its_share(open_union: Opener, metacopy: str) -> None:
    """Appends, chmod, truncation, a copied range: each found by what the writer left alone."""
    union = open_union(many_files(), metacopy=metacopy)
    watch = Watch()
    for number, name in enumerate(many_names()):
        if number % 4 == 0:
            fd = union.open(name, os.O_WRONLY | os.O_APPEND, 0)
            union.write(fd, b" more")
            union.close(fd)
        elif number % 4 == 1:
            union.chmod(name, 0o600)
        elif number % 4 == 2:
            union.truncate(name, 5)
        else:
            union.utimens(name, 10**18, 10**18, True)
        watch.check()
    for number, name in enumerate(many_names()):
        expected = [b"lower %s more", b"lower %s", b"lower%.0s", b"lower %s"][number % 4] % name
        assert union.content(name) == expected
        assert (union.lstat(name).mode & 0o777) == (0o600 if number % 4 == 1 else 0o644)


def test_a_deep_path_needs_one_descriptor(open_union: Opener) -> None:
    """Whoever reaches a directory 100 levels down opens it, not all above it."""
    path = b"/".join([b"d"] * 100)
    union = open_union({path.decode() + "/f": File(b"deep")})
    watch = Watch()
    assert union.content(path + b"/f") == b"deep"
    union.write_file(path + b"/g", b"new")
    union.rename(path + b"/f", b"f", 0)
    assert union.overlay.spare_descriptors()
    union.chmod(path, 0o711)
    assert union.content(path + b"/g") == b"new"
    watch.check()


def test_many_directories(open_union: Opener) -> None:
    union = open_union({os.fsdecode(name) + "/f": File(name) for name in many_names()})
    watch = Watch()
    for name in many_names():
        assert union.names(name) == [b"f"]
        union.mkdir(name + b"/new", 0o755)
        watch.check()
    for name in many_names():
        union.rename(name + b"/f", name + b"/new/g", 0)
        watch.check()
    for name in many_names():
        assert union.content(name + b"/new/g") == name


def test_descriptors_spared_in_between_change_nothing(open_union: Opener) -> None:
    """All caches emptied after each step of a file's life."""
    union = open_union({"d/f": File(b"lower")}, index="on")
    union.write_file(b"d/new", b"new")
    union.overlay.spare_descriptors()
    union.link(b"d/f", b"d/g")
    union.overlay.spare_descriptors()
    union.rename(b"d/new", b"d/f", 0)
    union.overlay.spare_descriptors()
    union.unlink(b"d/f")
    union.overlay.spare_descriptors()
    assert union.names(b"d") == [b"g"]
    assert union.content(b"d/g") == b"lower"
    assert union.overlay.spare_descriptors()
    assert not union.overlay.spare_descriptors()


def test_more_layers_than_descriptors(open_union: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said at once, in a line that names the remedy."""
    union = open_union()
    monkeypatch.setattr(descriptors, "limit", lambda: 46)
    union.close_all_layers()
    with pytest.raises(Exception, match=r"3 layers .* only 46 files: raise its hard limit"):
        Union(union.layers, union.options)
    monkeypatch.undo()
    union.reopen()


def test_a_name_of_many_links_is_one_of_a_set(open_union: Opener) -> None:
    """Names of one inode, in any order of coming and going."""
    union = open_union({"f": File(b"x")}, index="on")
    union.mkdir(b"d", 0o755)
    for name in many_names():
        union.link(b"f", b"d/" + name)
    assert union.lstat(b"f").nlink == MANY + 1
    union.unlink(b"f")
    for name in list(many_names())[::2]:
        union.unlink(b"d/" + name)
    left = list(many_names())[1::2]
    assert union.names(b"d") == sorted(left)
    for name in left:
        assert union.lstat(b"d/" + name).nlink == len(left)
        assert union.content(b"d/" + name) == b"x"
    with fails(errno.ENOENT):
        union.lstat(b"f")
