"""Where other file systems begin in a layer: subvolumes, mounts in a lower, an overlay as a lower.

A file is told by its own st_dev and st_ino; the numbers shown are unique in the mount and stay.
"""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from overlayfs_py.syscalls import openat
from tests import images
from tests.mounts import KernelMount, Layers, LowerLayers, make_layers
from tests.union.conftest import Union, fails

pytestmark = [pytest.mark.root]

PLACES = ("s1", "s2")


def _fill(top: Path) -> None:
    """A file with two names and a directory, whose inode numbers are the same wherever this is done first."""
    for name in PLACES:
        place = top / name
        (place / "f").write_text(f"content of {name}")
        os.link(place / "f", place / "g")
        (place / "d").mkdir()
        (place / "d" / "x").write_text(f"x of {name}")


@contextmanager
def _opened(layers: Layers, **options: str) -> Iterator[Union]:
    union = Union(layers, options)
    try:
        yield union
    finally:
        union.close_all_layers()


def _check_numbers(union: Union) -> dict[bytes, int]:
    """d_ino is st_ino everywhere, and only names of one file share one."""
    entries = union.snapshot()
    assert [path for path, entry in entries.items() if not entry.d_ino_right] == []
    files = {path for path in entries if not path.endswith(b"/g")}
    numbers = {path: union.lstat(path).ino for path in entries}
    assert len({numbers[path] for path in files}) == len(files)
    return numbers


def _check_two_files(union: Union) -> None:
    """What is done to the file of one place does not reach the other's."""
    for name in PLACES:
        for link in ("f", "g"):
            assert union.content(f"{name}/{link}".encode()) == f"content of {name}".encode()
    union.write_file(b"s1/f", b"changed")
    assert union.content(b"s2/f") == union.content(b"s2/g") == b"content of s2"
    union.chmod(b"s2/g", 0o600)
    assert union.content(b"s1/f") == b"changed"
    assert union.lstat(b"s1/f").mode & 0o777 == 0o644


@pytest.fixture
def subvolumes(where: Path) -> Iterator[Layers]:
    """A btrfs with all layers; two subvolumes in the lower."""
    with images.btrfs(where) as top:
        layers = make_layers(top)
        for name in PLACES:
            images.subvolume(layers.lowers[0] / name)
        _fill(layers.lowers[0])
        low = layers.lowers[0]
        assert len({os.stat(low / name / "f").st_ino for name in PLACES}) == 1
        yield layers


@pytest.mark.parametrize("index", ["on", "off"])
def test_subvolumes_of_a_lower(subvolumes: Layers, index: str) -> None:
    """The roots of both are inode 256, their files 257."""
    with _opened(subvolumes, index=index) as union:
        before = _check_numbers(union)
        assert _check_numbers(union.reopen()) == before
        _check_two_files(union)
        for view in union.now_and_reopened():
            after = _check_numbers(view)
            kept = {b"s1/d/x", b"s2/d/x", *((b"s1/f", b"s2/f") if index == "on" else ())}
            assert {path: after[path] for path in kept} == {path: before[path] for path in kept}
            assert (view.content(b"s1/g") == b"changed") == (index == "on")
            assert view.content(b"s2/g") == b"content of s2"


def test_subvolumes_of_a_lower_read_only(subvolumes: Layers) -> None:
    """Without an upper all lower hard links are one node."""
    union = Union(LowerLayers(lowers=subvolumes.lowers, merged=subvolumes.merged), {})
    try:
        _check_numbers(union)
        for name in PLACES:
            assert union.content(f"{name}/g".encode()) == f"content of {name}".encode()
    finally:
        union.close_all_layers()


def test_a_copy_up_in_a_subvolume_keeps_its_number(subvolumes: Layers) -> None:
    """The origin is found again, in whichever subvolume."""
    with _opened(subvolumes, index="off") as union:
        before = {path: union.lstat(path).ino for path in (b"s1/d/x", b"s2/d/x")}
        for path in before:
            union.chmod(path, 0o600)
        union.rename(b"s2/d/x", b"moved", 0)
        for view in union.now_and_reopened():
            assert view.lstat(b"s1/d/x").ino == before[b"s1/d/x"]
            assert view.lstat(b"moved").ino == before[b"s2/d/x"]
            _check_numbers(view)


def test_subvolumes_of_the_upper(where: Path) -> None:
    """Made in it, by name and by others than the daemon's user; what only a rename between them could do is
    EXDEV, and changes nothing.
    """
    with images.btrfs(where) as top:
        layers = make_layers(top)
        for name in PLACES:
            images.subvolume(layers.upper / name)
        _fill(layers.upper)
        (layers.lowers[0] / "low").write_text("low")
        (layers.lowers[0] / "s2").mkdir()
        (layers.lowers[0] / "s2" / "low").write_text("low")
        with _opened(layers, index="on") as union:
            _check_numbers(union)
            _check_two_files(union)
            union.write_file(b"s1/new", b"new")
            union.mkdir(b"s2/new", 0o700)
            union.write_file(b"s2/new/x", b"x")
            for act in (union.rename, lambda a, b, _flags: union.link(a, b)):
                for source in (b"s1/new", b"low"):
                    with fails(errno.EXDEV):
                        act(source, b"s2/there", 0)
            assert not (layers.upper / "low").exists()
            with fails(errno.EXDEV):  # it is copied up by a rename from the work directory
                union.chmod(b"s2/low", 0o600)
            for view in union.now_and_reopened():
                assert view.names() == [b"low", b"s1", b"s2"]
                assert view.names(b"s1") == [b"d", b"f", b"g", b"new"]
                assert view.names(b"s2") == [b"d", b"f", b"g", b"low", b"new"]
                assert view.content(b"s1/new") == b"new"
                assert view.leftovers() == []
                _check_numbers(view)
            union.rename(b"s1", b"s0", 0)
            _check_numbers(union)


@pytest.fixture
def submounts(where: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layers]:
    """Two tmpfs mounted in a lower, and no right to a private mount of it, as an ordinary user has none."""

    def refused(path: bytes) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(openat, "clone_tree", refused)
    layers = make_layers(where)
    low = layers.lowers[0]
    with ExitStack() as stack:
        for name in PLACES:
            stack.enter_context(images.tmpfs(low / name))
        _fill(low)
        (low / "own").write_text("own")
        assert len({os.stat(low / name / "f").st_ino for name in PLACES}) == 1
        yield layers


@pytest.mark.parametrize("index", ["on", "off"])
def test_mounts_in_a_lower(submounts: Layers, index: str) -> None:
    """A mount point is listed with the number of what it covers."""
    with _opened(submounts, index=index) as union:
        before = _check_numbers(union)
        assert _check_numbers(union.reopen()) == before
        _check_two_files(union)
        for view in union.now_and_reopened():
            _check_numbers(view)
            assert view.content(b"s1/f") == b"changed"
            assert view.content(b"s2/f") == b"content of s2"
            assert (view.content(b"s1/g") == b"changed") == (index == "on")


def test_what_is_met_later_changes_no_number(submounts: Layers) -> None:
    """A file system is met when the first name in it is."""
    with _opened(submounts) as union:
        own = union.lstat(b"own").ino, union.lstat(b"").ino
        first = union.lstat(b"s1/f").ino
        union.lstat(b"s2/f")
        union.forget()
        assert (union.lstat(b"own").ino, union.lstat(b"").ino) == own
        assert union.lstat(b"s1/f").ino == first


def test_a_file_mounted_over_a_file(submounts: Layers) -> None:
    """It is on another file system than its directory."""
    low = submounts.lowers[0]
    (low / "point").write_text("covered")
    subprocess.run(["mount", "--bind", str(low / "s1" / "f"), str(low / "point")], check=True, timeout=60)
    try:
        with _opened(submounts) as union:
            assert union.content(b"point") == b"content of s1"
            assert union.lstat(b"point").ino == union.lstat(b"s1/f").ino
            assert all(entry.d_ino_right for entry in union.snapshot().values())
    finally:
        subprocess.run(["umount", str(low / "point")], check=True, timeout=60)


@pytest.mark.parametrize("xino", ["off", "on"])
def test_an_overlay_of_two_file_systems_as_lower(where: Path, xino: str) -> None:
    """With xino=off its files have other st_devs than its directories, and both count from one number."""
    (where / "lower").mkdir()
    lower = make_layers(where / "lower")
    with images.tmpfs(where / "t1") as one, images.tmpfs(where / "t2") as two:
        for top, name in ((one, "s1"), (two, "s2")):
            (top / name).mkdir()
            (top / name / "f").write_text(f"content of {name}")
            os.link(top / name / "f", top / name / "g")
        below = Layers(lowers=(one, two), upper=lower.upper, work=lower.work, merged=lower.merged)
        with KernelMount(below, {"xino": xino}):
            (where / "ours").mkdir()
            ours = make_layers(where / "ours")
            layers = Layers(lowers=(lower.merged,), upper=ours.upper, work=ours.work, merged=ours.merged)
            with _opened(layers) as union:
                before = _check_numbers(union)
                assert _check_numbers(union.reopen()) == before
                _check_two_files(union)
                for view in union.now_and_reopened():
                    _check_numbers(view)
