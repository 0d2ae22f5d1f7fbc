"""`mount -o remount,...` of a live mount: what it changes and refuses, beside the kernel's overlayfs."""

import contextlib
import errno
import json
import mmap
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import rawcalls
from tests.mounts import COMMAND, KernelMount, Layers, OverlayMount, make_layers
from tests.service.starts import cleared, found_by_mount_8, one_line, options, overlayfs_py, pyctl

pytestmark = [pytest.mark.fuse, pytest.mark.root]
RDONLY, REMOUNT = rawcalls.MS_RDONLY, rawcalls.MS_REMOUNT

Mounter = Callable[..., OverlayMount]
Kernel = Callable[..., KernelMount]


@pytest.fixture
def twins(where: Path, mount: Mounter, kernel_overlay: Kernel) -> tuple[Path, Path]:
    """The same few files under ours and under the kernel's overlayfs."""
    roots = []
    for name, start in (("ours", mount), ("kernel", kernel_overlay)):
        (where / name).mkdir()
        layers = make_layers(where / name)
        furnish(layers.lowers[0])
        start(layers)
        roots.append(layers.merged)
    return roots[0], roots[1]


def furnish(lower: Path) -> None:
    (lower / "file").write_text("#!/bin/sh\nexit 7\n")
    (lower / "file").chmod(0o755)
    (lower / "directory").mkdir()
    (lower / "link").symlink_to("file")
    os.mknod(lower / "null", 0o020666, os.makedev(1, 3))


def change_flags(root: Path, flags: int) -> str:
    return rawcalls.outcome(lambda: rawcalls.mount(b"none", os.fsencode(root), b"none", REMOUNT | flags, b""))


# What generic/294, 306 and 452 of xfstests look at, and some more.
READ_ONLY: dict[str, Callable[[Path], object]] = {
    "read": lambda root: (root / "file").read_bytes(),
    "run": lambda root: subprocess.run([root / "file"], check=False, timeout=30),
    "open to write": lambda root: os.close(os.open(root / "file", os.O_WRONLY)),
    "truncate": lambda root: os.truncate(root / "file", 0),
    "write to a device": lambda root: (root / "null").write_bytes(b"x"),
    "create": lambda root: os.close(os.open(root / "new", os.O_CREAT | os.O_WRONLY)),
    "create what is there": lambda root: os.close(os.open(root / "file", os.O_CREAT | os.O_EXCL)),
    "mkdir": lambda root: (root / "new").mkdir(),
    "mkdir what is there": lambda root: (root / "directory").mkdir(),
    "mknod what is there": lambda root: os.mknod(root / "null", 0o020666, os.makedev(1, 3)),
    "symlink what is there": lambda root: (root / "link").symlink_to("file"),
    "link": lambda root: (root / "new").hardlink_to(root / "file"),
    "unlink": lambda root: (root / "file").unlink(),
    "unlink what is not there": lambda root: (root / "new").unlink(),
    "rmdir": lambda root: (root / "directory").rmdir(),
    "rename": lambda root: (root / "file").rename(root / "new"),
    "chmod": lambda root: (root / "file").chmod(0o600),
    "utime": lambda root: os.utime(root / "file"),
    "setxattr": lambda root: os.setxattr(root / "file", "user.x", b"1"),
    "access": lambda root: os.access(root / "file", os.W_OK) and root.absolute(),
}


def test_read_only_and_back_as_with_the_kernel(twins: tuple[Path, Path]) -> None:
    """After ``ro`` every operation ends as on the kernel's overlayfs; after ``rw`` writing goes on."""
    for root in twins:
        (root / "before").write_text("x")
        assert change_flags(root, RDONLY) == "done"
    found = [{name: rawcalls.outcome(lambda: act(root)) for name, act in READ_ONLY.items()} for root in twins]  # noqa: B023
    assert found[0] == found[1]
    assert found[0]["create"] == found[0]["unlink"] == "EROFS"
    assert found[0]["mkdir what is there"] == "EEXIST"
    for root in twins:
        assert change_flags(root, 0) == "done"
        (root / "file").write_text("after")
        assert (root / "file").read_text() == "after"


@contextlib.contextmanager
def opened_to_write(root: Path) -> Iterator[None]:
    with (root / "file").open("r+"):
        yield


@contextlib.contextmanager
def mapped(root: Path) -> Iterator[None]:
    with (root / "file").open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0)
    with mapping:
        mapping[0] = 33
        yield


@contextlib.contextmanager
def unlinked_and_open(root: Path) -> Iterator[None]:
    with (root / "file").open():
        (root / "file").unlink()
        yield


@contextlib.contextmanager
def opened_to_read(root: Path) -> Iterator[None]:
    with (root / "file").open():
        yield


@pytest.mark.parametrize("use", [opened_to_write, mapped, unlinked_and_open, opened_to_read])
def test_a_mount_in_use_as_with_the_kernel(
    twins: tuple[Path, Path], use: Callable[[Path], contextlib.AbstractContextManager[None]]
) -> None:
    """It becomes read-only, or does not, for the same uses."""
    found = []
    for root in twins:
        with use(root):
            found.append(change_flags(root, RDONLY))
    assert found[0] == found[1]


@pytest.fixture
def helper() -> Iterator[None]:
    with found_by_mount_8():
        yield


def mount_8(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *map(str, words)], capture_output=True, text=True, timeout=60)


def flags_of(root: Path) -> tuple[set[str], bool]:
    """This mount's flags, and whether its file system is read-only."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if words[4] == str(root):
            return set(words[5].split(",")), "ro" in words[-1].split(",")
    raise AssertionError(f"{root} is not mounted")


# Each is a sequence of remounts of one mount.
REMOUNTS = [
    ("ro", "rw"),
    ("ro,nosuid", "nodev", "rw"),
    ("nosuid,nodev,noexec", "suid,exec", "defaults"),
    ("noatime", "atime", "relatime", "rw"),
    ("relatime,noatime", "ro,noexec"),
]


@pytest.mark.usefixtures("helper")
@pytest.mark.parametrize("sequence", REMOUNTS, ids="; ".join)
def test_mount_8_as_with_the_kernel(twins: tuple[Path, Path], sequence: tuple[str, ...]) -> None:
    """The same command lines give the mounts the same flags, and `status` tells them."""
    for given in sequence:
        for root in twins:
            done = mount_8("-o", f"remount,{given}", root)
            assert (done.returncode, done.stderr) == (0, "")
        flags, read_only = flags_of(twins[0])
        assert (flags, read_only) == flags_of(twins[1])
        status = json.loads(pyctl("status", "--json", twins[0]).stdout)
        assert status["read_only"] == read_only == ("ro" in flags)
        assert flags <= set(status["flags"].split(","))


@pytest.mark.usefixtures("helper")
def test_source_and_all_flags(layers: Layers, mounted: OverlayMount) -> None:
    """With a source mount(8) merges nothing: what is not named is off. Without one, by hand, it stays."""
    assert overlayfs_py("-o", "remount,nosuid,noexec,noatime", layers.merged).returncode == 0
    assert overlayfs_py("-o", "remount,nodev,suid", layers.merged).returncode == 0
    assert flags_of(layers.merged)[0] == {"rw", "nodev", "noexec", "noatime"}
    assert overlayfs_py("-o", "remount,atime", layers.merged).returncode == 0
    assert flags_of(layers.merged)[0] == {"rw", "nodev", "noexec", "relatime"}
    assert mount_8("-t", "fuse.overlayfs-py", "-o", "remount,ro", "any", layers.merged).returncode == 0
    assert flags_of(layers.merged)[0] == {"ro", "relatime"}


@pytest.mark.usefixtures("helper")
def test_fstab(layers: Layers, where: Path) -> None:
    """mount(8) repeats fstab's options, which the mount has already."""
    fstab = where / "fstab"
    given = layers.options({"noauto": "", "nodev": "", "timeout": "5", "x-systemd.automount": ""})
    fstab.write_text(f"any {layers.merged} fuse.overlayfs-py {given} 0 0\n")
    with cleared(layers.merged):
        assert mount_8("-T", fstab, layers.merged).returncode == 0
        done = mount_8("-T", fstab, "-o", "remount,ro", layers.merged)
        assert (done.returncode, done.stderr) == (0, "")
        assert flags_of(layers.merged) == ({"ro", "nodev", "relatime"}, True)
        fstab.write_text(fstab.read_text().replace("timeout=5", "timeout=6"))
        refused = mount_8("-T", fstab, "-o", "remount,rw", layers.merged)
        assert "option timeout is 5.0 and cannot change" in refused.stderr
        assert flags_of(layers.merged)[1]
        assert pyctl("umount", layers.merged).returncode == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("lowerdir=/", "option lowerdir is"),
        ("volatile", "option volatile is off"),
        ("squash_to_uid=3", "option squash_to_uid is not given"),
        ("metacopy=maybe", "option metacopy=maybe"),
        ("plugins=x", "option plugins is not available"),
        ("nonsense", "unknown option nonsense"),
    ],
)
def test_what_cannot_change(layers: Layers, mounted: OverlayMount, given: str, says: str) -> None:
    """One line names the option, and nothing was changed."""
    one_line(overlayfs_py("-o", f"remount,ro,{given}", layers.merged), says)
    assert flags_of(layers.merged) == ({"rw", "relatime"}, False)


def test_without_an_upper(layers: Layers) -> None:
    """It stays read-only, as the kernel's: EROFS. Also if somebody asks the kernel directly."""
    with cleared(layers.merged):
        assert overlayfs_py("-o", f"lowerdir={layers.lowers[0]}", layers.merged).returncode == 0
        assert overlayfs_py("-o", "remount,noexec", layers.merged).returncode == 0
        one_line(overlayfs_py("-o", "remount,rw", layers.merged), os.strerror(errno.EROFS), "no upperdir")
        assert change_flags(layers.merged, 0) == "done"
        assert rawcalls.outcome(lambda: (layers.merged / "new").touch()) == "EROFS"
        assert json.loads(pyctl("status", "--json", layers.merged).stdout)["read_only"] is True
        assert pyctl("umount", layers.merged).returncode == 0


def test_a_mount_that_began_read_only(layers: Layers) -> None:
    """With an upper it becomes writable, and what was written is there after the unmount."""
    with cleared(layers.merged):
        assert overlayfs_py(*options(layers, "ro"), layers.merged).returncode == 0
        assert rawcalls.outcome(lambda: (layers.merged / "new").touch()) == "EROFS"
        assert overlayfs_py("-o", "remount,rw", layers.merged).returncode == 0
        (layers.merged / "new").write_text("x")
        assert pyctl("umount", layers.merged).returncode == 0
    assert (layers.upper / "new").read_text() == "x"


def test_bind_mount(layers: Layers, mounted: OverlayMount, where: Path) -> None:
    """Asked for through another place of the same file system, its daemon is found."""
    other = where / "other"
    other.mkdir()
    subprocess.run(["mount", "--bind", layers.merged, other], check=True, timeout=60)
    try:
        one_line(overlayfs_py("-o", "remount,ro,lowerdir=/", other), "option lowerdir")
        assert overlayfs_py("-o", "remount,ro", other).returncode == 0
        assert flags_of(other) == ({"ro", "relatime"}, True)
        assert flags_of(layers.merged) == ({"rw", "relatime"}, True)
        assert json.loads(pyctl("status", "--json", layers.merged).stdout)["read_only"] is True
        assert overlayfs_py("-o", "remount,rw", other).returncode == 0
    finally:
        subprocess.run(["umount", other], check=True, timeout=60)


def test_flags_are_those_of_the_mount_itself(layers: Layers, mounted: OverlayMount) -> None:
    """Not those of what somebody mounted over it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,nodev", "none", layers.merged], check=True, timeout=60)
    try:
        status = json.loads(pyctl("status", "--json", layers.merged).stdout)
    finally:
        subprocess.run(["umount", layers.merged], check=True, timeout=60)
    assert (status["read_only"], "nodev" in status["flags"]) == (False, False)


def test_in_use_frozen_or_not_ours(layers: Layers, mounted: OverlayMount, where: Path) -> None:
    """One line says why not."""
    with (layers.merged / "file").open("w"):
        one_line(overlayfs_py("-o", "remount,ro", layers.merged), "open for writing", str(layers.merged))
    words = ["overlayfs-py", "-o", "remount,ro", str(layers.merged)]
    frozen = pyctl("freeze", layers.merged, "--", str(COMMAND), *words[1:])
    assert frozen.returncode == 1
    assert "the mount is frozen; thaw it first" in frozen.stderr
    one_line(overlayfs_py("-o", "remount,ro", where), "nothing is mounted there")
    one_line(overlayfs_py("-o", "remount,ro", "/proc"), "no overlayfs-py daemon of yours serves it")
    assert flags_of(layers.merged) == ({"rw", "relatime"}, False)


def test_mapped_pages_are_written_first(layers: Layers, mounted: OverlayMount) -> None:
    """What was changed through a mapping is in the upper once the mount is read-only."""
    file = layers.merged / "file"
    file.write_bytes(b"a" * 8192)
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapping:
        mapping[5000] = ord("b")
    assert overlayfs_py("-o", "remount,ro", layers.merged).returncode == 0
    assert (layers.upper / "file").read_bytes()[5000] == ord("b")
