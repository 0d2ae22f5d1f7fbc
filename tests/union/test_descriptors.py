"""Descriptors are bounded whatever is done, and what was closed meanwhile is found again."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayfs_py.union import descriptors
from tests.trees import Dir, File, Tree
from tests.union.conftest import Opener, Union, fails

pytestmark = [pytest.mark.root]

_SHARE = 4
_MANY = 60
# Two kinds of cached ones with what one operation may add to them, and the held ones.
_BOUND = 4 * _SHARE + 8


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "share", lambda: _SHARE)


def _count() -> int:
    return len(os.listdir("/proc/self/fd"))


class _Watch:
    """How many more descriptors there are than when the union was opened."""

    def __init__(self) -> None:
        self._before = _count()

    def check(self) -> None:
        assert _count() - self._before <= _BOUND


def _names(prefix: str = "f") -> Iterator[bytes]:
    return (b"%s%d" % (prefix.encode(), number) for number in range(_MANY))


def _lower(mode: int = 0o644) -> Tree:
    return {os.fsdecode(name): File(b"lower " + name, mode=mode) for name in _names()}


def test_creating_keeps_no_more_open_than_its_share(open_union: Opener) -> None:
    union = open_union()
    watch = _Watch()
    for name in _names():
        union.write_file(name, b"of " + name)
        watch.check()
    for name in _names():
        assert union.content(name) == b"of " + name


@pytest.mark.parametrize("metacopy", ["off", "on"])
def test_copying_up_keeps_no_more_open_than_its_share(open_union: Opener, metacopy: str) -> None:
    """Appends, chmod, truncation, a copied range: each found by what the writer left alone."""
    union = open_union(_lower(), metacopy=metacopy)
    watch = _Watch()
    for number, name in enumerate(_names()):
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
    for number, name in enumerate(_names()):
        expected = [b"lower %s more", b"lower %s", b"lower%.0s", b"lower %s"][number % 4] % name
        assert union.content(name) == expected
        assert (union.lstat(name).mode & 0o777) == (0o600 if number % 4 == 1 else 0o644)


def test_files_that_are_open_are_bounded_too(open_union: Opener) -> None:
    """A hundred handles need no hundred descriptors; each still writes into its own file."""
    union = open_union(_lower())
    watch = _Watch()
    handles = {name: union.open(name, os.O_RDWR, 0) for name in _names()}
    watch.check()
    for fd in handles.values():
        assert union.pwrite(fd, b"LOWER", 0) == 5
    watch.check()
    for name, fd in handles.items():
        assert union.pread(fd, 100, 0) == b"LOWER " + name
        union.close(fd)


@pytest.mark.parametrize("of", ["upper", "lower"])
@pytest.mark.parametrize("by", ["unlink", "rename"])
def test_removed_files_stay_open_however_many(open_union: Opener, of: str, by: str) -> None:
    """Beyond what is held by descriptor they have a name in the work directory, which nobody sees: no link
    is counted, no further name can be made, and it goes with the last user.
    """
    union = open_union(_lower()) if of == "lower" else open_union(upper=_lower())
    watch = _Watch()
    handles = {}
    for name in _names():
        handles[name] = union.open(name, os.O_RDWR, 0)
        union.pwrite(handles[name], b"L", 0)  # a lower's is copied up
        if by == "unlink":
            union.unlink(name)
        else:
            union.write_file(b"new", b"new")
            union.rename(b"new", name, 0)
        watch.check()
    assert len(union.leftovers()) >= _MANY - 2 * _SHARE
    for name, fd in handles.items():
        assert union.fstatus(fd).nlink == 0
        assert union.pread(fd, 100, 0) == b"Lower " + name
        union.fchmod(fd, 0o640)
        union.pwrite(fd, b"!", 0)
        assert union.pread(fd, 1, 0) == b"!"
    watch.check()
    for fd in handles.values():
        union.close(fd)
    union.forget()
    assert union.leftovers() == []
    assert union.names() == ([] if by == "unlink" else sorted(_names()))


def test_a_lower_file_removed_while_open_is_copied_up_beyond_its_share(open_union: Opener) -> None:
    union = open_union(_lower())
    watch = _Watch()
    handles = {name: union.open(name, os.O_RDONLY, 0) for name in _names()}
    for name in _names():
        union.unlink(name)
    for name, fd in handles.items():
        union.fchmod(fd, 0o611)
        watch.check()
        assert union.fstatus(fd).mode & 0o777 == 0o611
        assert union.fstatus(fd).nlink == 0
        assert union.pread(fd, 100, 0) == b"lower " + name
        union.close(fd)
    union.forget()
    assert union.leftovers() == []


def test_hard_links_count_right_beside_a_hidden_name(open_union: Opener) -> None:
    """One of two names of an open file goes, then the other; the other was never looked up before."""
    union = open_union(upper={"keep": File(b"x")})
    for name in _names():
        union.write_file(name, b"of " + name)
        union.link(name, b"other-" + name)
    union.reopen()
    handles = {name: union.open(name, os.O_RDWR, 0) for name in _names()}
    for name, fd in handles.items():
        union.unlink(name)
        assert union.fstatus(fd).nlink == 1
    for name, fd in handles.items():
        assert union.lstat(b"other-" + name).nlink == 1
        union.unlink(b"other-" + name)
        assert union.fstatus(fd).nlink == 0
        assert union.pread(fd, 100, 0) == b"of " + name
        union.close(fd)
    union.forget()
    assert union.leftovers() == []


def test_nameless_files_beyond_their_share_can_get_a_name(open_union: Opener) -> None:
    union = open_union({"d": Dir()})
    watch = _Watch()
    parent = union.overlay.root
    made = [union.overlay.tmpfile(parent, os.O_RDWR, 0o644, union.caller) for _ in range(_MANY)]
    watch.check()
    for number, (node, handle) in enumerate(made):
        union.overlay.write(node, 0, b"%d" % number)
        assert union.overlay.getattr(node).nlink == 0
        if number % 2:
            union.overlay.link(node, parent, b"named%d" % number)
            assert union.overlay.getattr(node).nlink == 1
        union.overlay.release(handle)
        union.overlay.forget(node)
    assert union.leftovers() == []
    assert union.content(b"named%d" % (_MANY - 1)) == b"%d" % (_MANY - 1)
    watch.check()


@pytest.mark.parametrize("of", ["upper", "lower"])
def test_removed_directories_stay_usable_however_many(open_union: Opener, of: str) -> None:
    tree = {os.fsdecode(name): Dir(mode=0o750) for name in _names()}
    union = open_union(tree) if of == "lower" else open_union(upper=tree)
    watch = _Watch()
    handles = {name: union.open(name, os.O_RDONLY | os.O_DIRECTORY, 0) for name in _names()}
    for name, fd in handles.items():
        union.fchmod(fd, 0o710)
        union.rmdir(name)
        watch.check()
    for fd in handles.values():
        status = union.fstatus(fd)
        assert (status.mode & 0o777, status.nlink) == (0o710, 0)
        union.fchmod(fd, 0o700)
        union.close(fd)
    union.forget()
    assert union.leftovers() == []


def test_a_deep_path_needs_one_descriptor(open_union: Opener) -> None:
    """Whoever reaches a directory 100 levels down opens it, not all above it."""
    path = b"/".join([b"d"] * 100)
    union = open_union({path.decode() + "/f": File(b"deep")})
    watch = _Watch()
    assert union.content(path + b"/f") == b"deep"
    union.write_file(path + b"/g", b"new")
    union.rename(path + b"/f", b"f", 0)
    assert union.overlay.spare_descriptors()
    union.chmod(path, 0o711)
    assert union.content(path + b"/g") == b"new"
    watch.check()


def test_many_directories(open_union: Opener) -> None:
    union = open_union({os.fsdecode(name) + "/f": File(name) for name in _names()})
    watch = _Watch()
    for name in _names():
        assert union.names(name) == [b"f"]
        union.mkdir(name + b"/new", 0o755)
        watch.check()
    for name in _names():
        union.rename(name + b"/f", name + b"/new/g", 0)
        watch.check()
    for name in _names():
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


def test_nothing_is_open_for_writing_after_a_rest(open_union: Opener) -> None:
    """So that the file system of the upper can be remounted read-only; what follows opens it again."""
    union = open_union({"f": File(b"lower")})
    fd = union.open(b"f", os.O_RDWR, 0)
    union.pwrite(fd, b"L", 0)
    union.write_file(b"new", b"new")
    union.overlay.rest()
    assert not [path for path in _open_for_writing() if path.startswith(str(union.upper))]
    union.pwrite(fd, b"!", 5)
    assert union.pread(fd, 100, 0) == b"Lower!"
    union.close(fd)


def _open_for_writing() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            flags = Path(f"/proc/self/fdinfo/{fd}").read_text().split("flags:")[1].split()[0]
            path = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        if int(flags, 8) & (os.O_WRONLY | os.O_RDWR):
            found.append(path)
    return found


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
    for name in _names():
        union.link(b"f", b"d/" + name)
    assert union.lstat(b"f").nlink == _MANY + 1
    union.unlink(b"f")
    for name in list(_names())[::2]:
        union.unlink(b"d/" + name)
    left = list(_names())[1::2]
    assert union.names(b"d") == sorted(left)
    for name in left:
        assert union.lstat(b"d/" + name).nlink == len(left)
        assert union.content(b"d/" + name) == b"x"
    with fails(errno.ENOENT):
        union.lstat(b"f")
