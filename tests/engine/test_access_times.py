"""Reading moves access times where the kernel overlay does: never in a lower, in the upper as mounted."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import rawcalls
from tests.mounts import KernelMount, Layers, OverlayMount, flavours, make_layers, status
from tests.service.starts import overlayfs_py

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.engine]

Mounter = Callable[..., OverlayMount]
Kernel = Callable[..., KernelMount]
LONG_AGO = 10**18
MS_RDONLY, MS_REMOUNT, MS_NOATIME = 1, 32, 1024


@pytest.fixture(params=flavours())
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine, and each way of the data."""
    return str(request.param)


def furnish(top: Path) -> None:
    """A file, a directory and a symlink that nobody has read for long, younger in everything else."""
    (top / "directory").mkdir()
    (top / "directory/inside").touch()
    (top / "file").write_text("content")
    (top / "link").symlink_to("file")
    forget_reading(top)


def forget_reading(top: Path) -> None:
    for name in ("directory", "file", "link"):
        os.utime(top / name, ns=(LONG_AGO, LONG_AGO + 1), follow_symlinks=False)


def read(root: Path) -> None:
    (root / "file").read_text()
    os.listdir(root / "directory")
    os.readlink(root / "link")
    rawcalls.remount(os.fsencode(root))


def moved(top: Path) -> list[str]:
    names = [name for name in ("directory", "file", "link", "new") if os.path.lexists(top / name)]
    return [name for name in names if (top / name).lstat().st_atime_ns != LONG_AGO]


def test_a_lower_is_left_alone(layers: Layers, mount: Mounter) -> None:
    """With and without an upper: the kernel's private mounts of the layers are MNT_NOATIME."""
    furnish(layers.lowers[0])
    mount(layers)
    read(layers.merged)
    assert moved(layers.lowers[0]) == []


@pytest.mark.parametrize("option", ["atime", "noatime", "ro"])
def test_the_upper_is_as_the_mount_says(
    where: Path, engine: str, mount: Mounter, kernel_overlay: Kernel, option: str
) -> None:
    """Its files and directories. A symlink cannot be read without it, nor by the kernel itself what it passes
    through.
    """
    beyond_us = {"link", "file", "new"} if engine == "passthrough" and option != "atime" else {"link"}
    found = []
    for name in ("ours", "kernel"):
        (where / name).mkdir()
        layers = make_layers(where / name)
        furnish(layers.upper)
        if name == "ours":
            mount(layers, {option: ""})
        else:
            kernel_overlay(layers)
            flags = MS_REMOUNT | {"atime": 0, "noatime": MS_NOATIME, "ro": MS_RDONLY}[option]
            rawcalls.mount(b"none", os.fsencode(layers.merged), b"none", flags, b"")
        if option == "noatime":  # what the mount itself has made
            (layers.merged / "new").write_text("new")
            os.utime(layers.merged / "new", ns=(LONG_AGO, LONG_AGO + 1))
            (layers.merged / "new").read_text()
        read(layers.merged)
        found.append(set(moved(layers.upper)) - beyond_us)
    assert found[0] == found[1] == ({"file", "directory"} if option == "atime" else set())


def test_a_remount_changes_it(layers: Layers, engine: str, mount: Mounter) -> None:
    if engine == "passthrough":
        pytest.skip("the kernel reads the upper's files itself")
    furnish(layers.upper)
    mount(layers, {"noatime": ""})
    read(layers.merged)
    assert moved(layers.upper) in ([], ["link"])
    overlayfs_py("-o", "remount,atime", str(layers.merged))
    read(layers.merged)
    assert "file" in moved(layers.upper)
    forget_reading(layers.upper)
    overlayfs_py("-o", "remount,ro", str(layers.merged))
    read(layers.merged)
    assert moved(layers.upper) in ([], ["link"])


def test_what_the_kernel_has_cached_is_read_from_no_layer(layers: Layers, mount: Mounter) -> None:
    """Reading what was just written moves its time where opens are told, else once its pages are gone."""
    mounted = mount(layers)
    with (layers.merged / "file").open("wb") as file:
        file.write(bytes(8192))
        file.flush()
        os.fsync(file.fileno())
        os.utime(layers.upper / "file", ns=(LONG_AGO, LONG_AGO + 1))
        if status(mounted)["engine"]["no_open"]:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    (layers.merged / "file").read_bytes()
    rawcalls.remount(os.fsencode(layers.merged))
    assert moved(layers.upper) == ["file"]
