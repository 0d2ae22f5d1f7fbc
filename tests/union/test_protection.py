"""chattr +i and +a: what they refuse is the kernel's, and a copy keeps them as a mark."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overlayfs_py.syscalls import attrs
from overlayfs_py.union.attr import NOW, AttrChanges
from overlayfs_py.union.node import Node
from tests.mounts import KernelMount, Layers, loop_filesystem, make_layers
from tests.union.conftest import Union, fails

pytestmark = [pytest.mark.root]


@pytest.fixture
def protected(ground: Path) -> Iterator[Union]:
    """A lower with immutable and append-only files and directories, on a file system that has such flags."""
    with loop_filesystem(ground, 16 << 20) as disk:
        layers = make_layers(disk)
        low = layers.lowers[0]
        for flag in "ia":
            (low / f"{flag}d").mkdir()
            (low / f"{flag}d/in").write_text("in")
            (low / f"{flag}").write_text("text")
            subprocess.run(["chattr", f"+{flag}", low / flag, low / f"{flag}d"], check=True, timeout=30)
        union = Union(layers, {"redirect_dir": "on"})
        try:
            yield union
        finally:
            union.close_all_layers()
            subprocess.run(["chattr", "-R", "-ia", low], check=True, timeout=30)


REFUSED: dict[str, Callable[[Union], object]] = {
    "write to an immutable file": lambda union: union.open(b"i", os.O_WRONLY, 0),
    "append to an immutable file": lambda union: union.open(b"i", os.O_WRONLY | os.O_APPEND, 0),
    "write to an append-only file": lambda union: union.open(b"a", os.O_WRONLY, 0),
    "truncate an append-only file": lambda union: union.open(b"a", os.O_WRONLY | os.O_APPEND | os.O_TRUNC, 0),
    "chmod of an immutable file": lambda union: union.chmod(b"i", 0o600),
    "chmod of an append-only file": lambda union: union.chmod(b"a", 0o600),
    "touch of an immutable file": lambda union: union.touch(b"i"),
    "setxattr": lambda union: union.setxattr(b"i", b"user.x", b"", 0),
    "link of an immutable file": lambda union: union.link(b"i", b"l"),
    "unlink of an immutable file": lambda union: union.unlink(b"i"),
    "unlink of an append-only file": lambda union: union.unlink(b"a"),
    "rename of an immutable file": lambda union: union.rename(b"i", b"j", 0),
    "rename of an append-only directory": lambda union: union.rename(b"ad", b"j", 0),
    "create in an immutable directory": lambda union: union.mkdir(b"id/new", 0o755),
    "unlink in an immutable directory": lambda union: union.unlink(b"id/in"),
    "unlink in an append-only directory": lambda union: union.unlink(b"ad/in"),
}


def _touch_now(union: Union, path: bytes) -> Node:
    """touch(1) of an append-only file: times of now are allowed, and copy it up."""
    node = union.overlay.lookup(union.overlay.root, path)
    assert node is not None
    union.overlay.setattr(node, AttrChanges(atime_ns=NOW, mtime_ns=NOW))
    return node


@pytest.mark.parametrize("name", REFUSED)
def test_refused(protected: Union, name: str) -> None:
    """EPERM, and nothing is copied up before."""
    with fails(errno.EPERM):
        REFUSED[name](protected)
    assert os.listdir(protected.upper) == []


def test_appending_is_allowed(protected: Union) -> None:
    """To an append-only file, and in an append-only directory; both stay append-only in the upper."""
    fd = protected.open(b"a", os.O_WRONLY | os.O_APPEND, 0)
    protected.write(fd, b" more")
    protected.close(fd)
    protected.write_file(b"ad/new", b"new")
    for view in protected.now_and_reopened():
        assert view.content(b"a") == b"text more"
        assert view.names(b"ad") == [b"in", b"new"]
        with fails(errno.EPERM):
            view.open(b"a", os.O_WRONLY, 0)
        with fails(errno.EPERM):
            view.unlink(b"ad/new")
    assert protected.upper_xattrs("a")["trusted.overlay.protattr"] == b"a"
    _touch_now(protected, b"a")


def test_the_mark_goes_with_the_flag(protected: Union) -> None:
    """chattr -a through the mount: the file is like any other, in the next mount too."""
    node = _touch_now(protected, b"a")
    flags = protected.overlay.query_flags(node, attrs.FS_IOC_GETFLAGS, b"")
    assert int.from_bytes(flags[:4], "little") & attrs.FS_APPEND_FL
    protected.overlay.change_flags(node, attrs.FS_IOC_SETFLAGS, bytes(4))
    assert "trusted.overlay.protattr" not in protected.upper_xattrs("a")
    protected.reopen().write_file(b"a", b"new")


def test_the_kernel_refuses_the_same(protected: Union) -> None:
    """Our mark is the kernel's: a mount of its own over our upper keeps the copy append-only."""
    _touch_now(protected, b"a")
    assert isinstance(protected.layers, Layers)
    assert protected.kernel_snapshot().keys() >= {b"a", b"i", b"ad/in"}
    with KernelMount(protected.layers, {}), pytest.raises(PermissionError):
        os.open(protected.layers.merged / "a", os.O_WRONLY)
