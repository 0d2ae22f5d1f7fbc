"""What a copy wears: all that its source does, and never more."""

import os
import stat
import subprocess
from collections.abc import Callable

import pytest

from overlayfs_py.syscalls.copy import copy_data
from overlayfs_py.union import copyup
from tests import trees
from tests.trees import Dir, Entry, File, Symlink, char_device, fifo, socket
from tests.union.conftest import Opener

pytestmark = [pytest.mark.root]


ACL = trees.acl(("u", 6), ("user", 1000, 6), ("g", 4), ("m", 6), ("o", 0))


EVERYTHING = {b"user.k": b"v", b"trusted.t": b"", trees.CAPABILITY: trees.NET_RAW, trees.ACL_ACCESS: ACL}


def test_a_files_data_and_metadata_come_along(open_union: Opener) -> None:
    """Owner, mode with set-id bits, xattrs, capability, ACL and nanosecond time are the lower's."""
    lower = File(
        b"data" * 5000, mode=0o6751, uid=1000, gid=2000, xattrs=EVERYTHING, mtime_ns=123_456_789_987_654_321
    )
    union = open_union({"d/f": lower})
    before = union.snapshot()[b"d/f"]
    union.setxattr(b"d/f", b"user.new", b"", 0)
    union.removexattr(b"d/f", b"user.new")
    assert (union.upper / "d/f").exists()
    assert union.snapshot()[b"d/f"] == before
    assert union.reopen().snapshot()[b"d/f"] == before


@pytest.mark.parametrize(
    "entry",
    [Symlink("to"), fifo(0o620), socket(0o751), char_device(1, 3, 0o640)],
    ids=["symlink", "fifo", "socket", "device"],
)
def test_special_files_come_along(open_union: Opener, entry: trees.Entry) -> None:
    """Kind, mode and device number stay when the owner changes."""
    union = open_union({"n": entry})
    before = union.lstat(b"n")
    union.chown(b"n", 1000, 2000)
    after = union.lstat(b"n")
    assert after == before._replace(uid=1000, gid=2000)
    assert union.target(b"n") == b"to" if stat.S_ISLNK(after.mode) else True


@pytest.mark.parametrize("kind", ["file", "directory", "fifo", "socket"])
def test_all_4096_modes_are_kept(open_union: Opener, kind: str) -> None:
    """Every mode of every kind survives a copy-up by a change of time, exactly."""
    makers: dict[str, Callable[[int], Entry]] = {
        "file": lambda mode: File(b"x", mode=mode),
        "directory": lambda mode: Dir(mode=mode),
        "fifo": fifo,
        "socket": socket,
    }
    union = open_union({f"{mode:04o}": makers[kind](mode) for mode in range(0o10000)})
    for mode in range(0o10000):
        union.utimens(b"%04o" % mode, 1, 2, False)
    for mode in range(0o10000):
        assert stat.S_IMODE((union.upper / f"{mode:04o}").lstat().st_mode) == mode
        assert stat.S_IMODE(union.lstat(b"%04o" % mode).mode) == mode


def test_a_nosuid_layer_hands_on_no_rights(open_union: Opener) -> None:
    """What the lower's mount does not grant its copy does not grant either (CVE-2023-0386)."""
    rights = {trees.CAPABILITY: trees.NET_RAW}
    union = open_union({"suid": File(b"x", mode=0o6755), "capable": File(b"x", xattrs=rights)})
    lower = union.layers.lowers[0]
    subprocess.run(["mount", "--bind", "-o", "nosuid", lower, lower], check=True, timeout=30)
    try:
        union.reopen()
    finally:
        subprocess.run(["umount", lower], check=True, timeout=30)
    for name in (b"suid", b"capable"):
        union.utimens(name, 1, 2, False)
    assert stat.S_IMODE((union.upper / "suid").lstat().st_mode) == 0o755
    assert os.listxattr(union.upper / "suid") == os.listxattr(union.upper / "capable")
    assert os.fsdecode(trees.CAPABILITY) not in os.listxattr(union.upper / "capable")


def test_the_temporary_file_is_never_wider(open_union: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """While data is copied nobody could open the copy who cannot open the file."""
    acl = {trees.ACL_ACCESS: ACL}
    files = {
        "f": File(b"secret", mode=0o600),
        "g": File(b"secret", mode=0o000),
        "ours": File(b"ours", mode=0o644),
        "other": File(b"another's", mode=0o666, uid=5),
        "acl": File(b"some people's", mode=0o660, xattrs=acl),
        "suid": File(b"suid", mode=0o4755),
    }
    union = open_union(files)
    seen: dict[str, int] = {}

    def watch(src_fd: int, dst_fd: int, size: int, **hints: bool) -> bool:
        seen[name] = stat.S_IMODE(os.fstat(dst_fd).st_mode)
        return copy_data(src_fd, dst_fd, size, **hints)

    monkeypatch.setattr(copyup, "copy_data", watch)
    for name in files:
        union.touch(os.fsencode(name))
    assert seen.pop("ours") == 0o644
    assert len(seen) == len(files) - 1
    assert all(not mode & 0o7077 or name == "acl" for name, mode in seen.items())
    assert not seen["acl"] & 0o007
