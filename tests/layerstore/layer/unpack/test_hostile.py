"""Tars that attack: each historical hole, with a canary outside the root that must not change.

The names refer to the advisories and bugs in which another unpacker fell for it.
"""

import io
import os
import stat
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from layerstore.errors import InvalidLayer, LayerstoreError, LimitExceeded, Unrepresentable
from layerstore.layer.stack import StackPaths
from layerstore.layer.unpack.apply import apply_layer
from layerstore.layer.write.commit import write_layer
from layerstore.limits import Limits
from tests.layerstore.layer.tars import (
    END,
    block,
    directory,
    hard_link,
    member,
    padded,
    paths,
    pax,
    symlink,
    unpack,
)

pytestmark = pytest.mark.root


@pytest.fixture
def canary(where: Path) -> Iterator[Path]:
    """A directory beside the root, and what must still be true of it afterwards."""
    outside = where / "outside"
    outside.mkdir(mode=0o750)
    (outside / "canary").write_bytes(b"alive")
    os.chmod(outside / "canary", 0o640)
    before = state(outside)
    siblings = sorted(os.listdir(where))
    yield outside
    assert state(outside) == before
    assert sorted(set(os.listdir(where)) - {"root", "root2"}) == siblings


def state(where: Path) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for name in ["", *paths(where)]:
        st = os.lstat(where / name)
        found.append(
            (name, st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns, st.st_ctime_ns, st.st_nlink, st.st_size)
        )
    return found


REFUSED_NAMES = [
    b"..",
    b"../x",
    b"a/../../x",
    b"a/..",
    b"/../x",
    b"./../x",
    b"x" * 256,
    b"d/" + b"x" * 256 + b"/y",
    b"/".join([b"d" * 200] * 21),  # longer than PATH_MAX
    b"",
]


@pytest.mark.parametrize("kind", [b"0", b"1", b"2", b"5", b"6"])
@pytest.mark.parametrize("name", REFUSED_NAMES, ids=lambda name: repr(name[:12]))
def test_names_that_lead_out(where: Path, canary: Path, name: bytes, kind: bytes) -> None:
    """CVE-2007-4559 and its kin."""
    tar = pax({b"path": name}) if name else b""
    with pytest.raises(InvalidLayer):
        unpack(tar + member(b"" if not name else b"x", kind=kind, link=b"t") + END, where / "root")
    assert paths(where / "root") == []


def test_names_with_nul(where: Path, canary: Path) -> None:
    for header in (
        pax({b"path": b"a\0b"}),
        pax({b"linkpath": b"a\0b"}),
        pax({b"SCHILY.xattr.user.a\0b": b"x"}),
    ):
        with pytest.raises(InvalidLayer):
            unpack(header + symlink(b"s", b"t") + END, where / "root")


def test_harmless_odd_names(where: Path, canary: Path) -> None:
    """Absolute names are below the root, a backslash is a letter, dots inside names are dots."""
    tar = member(b"/abs") + member(b"//a//b/./c") + member(b"..\\x") + member(b"...") + member(b"a/..b") + END
    unpack(tar, where / "root")
    assert paths(where / "root") == ["...", "..\\x", "a", "a/..b", "a/b", "a/b/c", "abs"]


@pytest.mark.parametrize("name", [b".", b"./", b"/", b"./.", b"//"])
@pytest.mark.parametrize("kind", [b"0", b"1", b"2", b"3", b"4", b"6"])
def test_root_that_is_no_directory(where: Path, canary: Path, name: bytes, kind: bytes) -> None:
    """CVE-2021-29136: a root entry that is a symlink sends later layers to the host."""
    with pytest.raises(InvalidLayer, match="root is not a directory"):
        unpack(member(name, kind=kind, link=b"../outside", device=(1, 3)) + END, where / "root")


@pytest.mark.parametrize("target", [b"../outside", b"/outside", b"../../../../../../outside", b"."])
def test_symlinks_are_followed_inside_only(where: Path, canary: Path, target: bytes) -> None:
    """CVE-2014-9356: a symlink, then a name through it. The name lands inside, at what the target means
    there.
    """
    absolute = os.fsencode(canary) if target == b"/outside" else target
    tar = (
        symlink(b"s", absolute)
        + member(b"s/canary", b"dead")
        + directory(b"s/new/")
        + hard_link(b"h", b"s/canary")
    )
    unpack(tar + END, where / "root")
    assert os.lstat(where / "root/h").st_nlink == 2


def test_mode_and_times_do_not_follow(where: Path, canary: Path) -> None:
    """CVE-2021-32760: chmod, chown, utime and xattrs of a symlink entry, and of one that replaces a
    file or directory.
    """
    outside = os.fsencode(canary)
    tar = (
        pax({b"SCHILY.xattr.trusted.x": b"1"})
        + member(b"s", kind=b"2", link=outside, mode=0o777, uid=7, gid=8, mtime=9)
        + member(b"f", b"file", mode=0o777)
        + symlink(b"f", outside + b"/canary")
        + directory(b"d/", 0o777, uid=5)
        + symlink(b"d", outside)
        + member(b"e", kind=b"2", link=outside)
        + directory(b"e/", 0o700)
        + END
    )
    unpack(tar, where / "root")
    assert stat.S_ISDIR(os.lstat(where / "root/e").st_mode)


def test_hard_links_do_not_leave(where: Path, canary: Path) -> None:
    """python/cpython#157190: a target outside, above, absolute, or a symlink that would be followed."""
    outside = os.fsencode(canary)
    for target in (b"../outside/canary", outside + b"/canary", b"..", b"", b".", b"missing", b"d"):
        with pytest.raises(InvalidLayer):
            unpack(directory(b"d/") + hard_link(b"h", target) + END, where / "root")
    tar = symlink(b"s", outside + b"/canary") + hard_link(b"h", b"s") + member(b"h", b"dead") + END
    unpack(tar, where / "root2")
    assert os.lstat(where / "root2/s").st_nlink == 1
    assert (where / "root2/h").read_bytes() == b"dead"


def test_hard_link_through_a_symlinked_parent(where: Path, canary: Path) -> None:
    tar = symlink(b"s", os.fsencode(canary)) + hard_link(b"h", b"s/canary") + END
    with pytest.raises(InvalidLayer, match="does not exist"):
        unpack(tar, where / "root")


def test_hard_link_that_replaces_its_target(where: Path, canary: Path) -> None:
    tar = directory(b"d/") + member(b"d/f", b"x") + hard_link(b"d", b"d/f") + END
    with pytest.raises(InvalidLayer, match="own target"):
        unpack(tar, where / "root")
    unpack(member(b"f", b"x") + hard_link(b"f", b"./f") + END, where / "root2")
    assert (where / "root2/f").read_bytes() == b"x"


def test_path_max_chain(where: Path, canary: Path) -> None:
    """CVE-2025-4517: symlinks that make a path longer than realpath() can take, then ``..`` from there."""
    steps, tar, prefix = b"abcdefghijklmnop", b"", b""
    for step in (steps[i : i + 1] for i in range(len(steps))):
        tar += pax({b"path": prefix + step * 247}) + directory(b"x/")
        tar += pax({b"path": prefix + step, b"linkpath": step * 247}) + symlink(b"x", b"y")
        prefix += step + b"/"
    chain = prefix + b"l" * 254
    tar += pax({b"path": chain, b"linkpath": b"../" * len(steps)}) + symlink(b"x", b"y")
    tar += pax({b"path": b"escape", b"linkpath": chain + b"/../../outside"}) + symlink(b"x", b"y")
    with pytest.raises(InvalidLayer):
        unpack(tar + hard_link(b"flag", b"escape/canary") + END, where / "root")
    unpack(tar + member(b"escape/canary", b"dead") + END, where / "root2")
    assert (where / "root2/outside/canary").read_bytes() == b"dead"


def test_symlink_loops(where: Path, canary: Path) -> None:
    tar = symlink(b"a", b"b") + symlink(b"b", b"a") + member(b"a/x") + END
    with pytest.raises(InvalidLayer, match="too many symlinks"):
        unpack(tar, where / "root")


def test_second_layer_into_the_same_root(where: Path, canary: Path) -> None:
    """GNU tar CVE-2025-45582: a symlink left by the first extraction."""
    unpack(symlink(b"s", os.fsencode(canary)) + END, where / "root")
    unpack(member(b"s/canary", b"dead") + directory(b"s/", 0o777) + END, where / "root")
    assert stat.S_ISDIR(os.lstat(where / "root/s").st_mode)


def test_whiteouts_do_not_leave(where: Path, canary: Path) -> None:
    outside = os.fsencode(canary)
    tar = symlink(b"s", outside) + member(b"s/.wh.canary") + member(b"s/.wh..wh..opq") + END
    unpack(tar, where / "root")
    for name in (b"../outside/.wh.canary", b"../outside/.wh..wh..opq", b".wh...", b"d/.wh..", b".wh./x"):
        with pytest.raises(InvalidLayer):
            unpack(member(name) + END, where / "root2")


def test_devices_and_names_that_would_be_marks(where: Path, canary: Path) -> None:
    """A 0:0 device or a file below a .wh. name would change what other layers show."""
    with pytest.raises(InvalidLayer, match="null: a character device 0:0"):
        unpack(member(b"null", kind=b"3") + END, where / "root")
    with pytest.raises(InvalidLayer, match="below a whiteout"):
        unpack(member(b".wh.x/y") + END, where / "root")
    for device in ((5000, 0), (0o7777777, 1), (1, 0o7777777)):
        with pytest.raises(InvalidLayer, match="device number"):
            unpack(member(b"d", kind=b"4", device=device) + END, where / "root")


@pytest.mark.parametrize(
    "tar",
    [
        block(b"f", size_field=b"\xff" * 12),  # -1
        block(b"f", size_field=b"\x80" + b"\xff" * 11),
        block(b"f", size=0o77777777777),
        member(b"f", uid=b"\xff" * 8),
        member(b"f", uid=b"\x80\xff\xff\xff\xff\xff\xff\xff"),
        member(b"f", mtime=b"\x80" + b"\xff" * 11),
        member(b"f", mtime=b"99999999999\0"),
        pax({b"size": b"-5"}) + member(b"f"),
        pax({b"size": b"9" * 30}) + member(b"f"),
        pax({b"uid": b"-1"}) + member(b"f"),
        pax({b"mtime": b"nan"}) + member(b"f"),
        pax({b"mtime": b"1e9"}) + member(b"f"),
        pax({b"mtime": b"9" * 18}) + member(b"f"),
        member(b"x", b"5 a\n", kind=b"x") + member(b"f"),
        member(b"x", b"9999 a=b\n", kind=b"x") + member(b"f"),
        member(b"x", b"6 a=bc", kind=b"x") + member(b"f"),
        member(b"x", b"-6 a=b\n", kind=b"x") + member(b"f"),
        member(b"x", b"5 =b\n", kind=b"x") + member(b"f"),
        pax({b"a": b"b"}),
    ],
)
def test_impossible_numbers_and_records(where: Path, canary: Path, tar: bytes) -> None:
    with pytest.raises((InvalidLayer, LimitExceeded)):
        unpack(tar + END, where / "root")


SPARSE_ONE = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0"}


@pytest.mark.parametrize(
    ("records", "data"),
    [
        ({**SPARSE_ONE, b"GNU.sparse.realsize": b"%d" % (1 << 63)}, padded(b"0\n")),  # 8 EiB of nothing
        ({**SPARSE_ONE, b"GNU.sparse.realsize": b"10"}, padded(b"1\n100\n5\n") + b"hello"),
        ({**SPARSE_ONE, b"GNU.sparse.realsize": b"100"}, padded(b"2\n50\n2\n10\n3\n") + b"hello"),
        ({**SPARSE_ONE, b"GNU.sparse.realsize": b"100"}, padded(b"1\n0\n3\n") + b"hello"),
        ({**SPARSE_ONE, b"GNU.sparse.realsize": b"100"}, padded(b"1\n0\n9\n") + b"hello"),
        ({**SPARSE_ONE, b"GNU.sparse.realsize": b"100"}, padded(b"99999999999\n")),
        ({**SPARSE_ONE, b"GNU.sparse.realsize": b"100"}, padded(b"1\n-5\n5\n") + b"hello"),
        ({**SPARSE_ONE, b"GNU.sparse.realsize": b"100"}, b"1" * 2048),
        ({**SPARSE_ONE, b"GNU.sparse.realsize": b"100"}, b""),
        ({**SPARSE_ONE}, padded(b"0\n")),
        ({b"GNU.sparse.major": b"7"}, b""),
        ({b"GNU.sparse.map": b"1,2,3", b"GNU.sparse.size": b"9"}, b"x"),
        ({b"GNU.sparse.map": b"0,5", b"GNU.sparse.size": b"99999999999999999999"}, b"hello"),
        (
            {b"GNU.sparse.name": b"../../outside/canary", b"GNU.sparse.map": b"", b"GNU.sparse.size": b"0"},
            b"",
        ),
    ],
)
def test_sparse_lies(where: Path, canary: Path, records: dict[bytes, bytes], data: bytes) -> None:
    with pytest.raises((InvalidLayer, LimitExceeded)):
        unpack(pax(records) + member(b"f", data) + END, where / "root")


def test_limits_each(where: Path, canary: Path) -> None:
    tar = member(b"a", b"x" * 5000) + member(b"b") + END
    for limits, what in (
        (Limits(max_bytes=1000), "larger than 1000 bytes"),
        (Limits(max_entries=1), "more than 1 entries"),
        (Limits(max_file_size=4999), "a: a file of 5000 bytes"),
    ):
        with pytest.raises(LimitExceeded, match=what):
            unpack(tar, where / "root", limits=limits)
    with pytest.raises(LimitExceeded, match="extended header"):
        unpack(pax({b"comment": b"x" * 5000}) + tar, where / "root", limits=Limits(max_pax=4096))
    huge = block(b"x", kind=b"x", size=1 << 32) + bytes(512)
    with pytest.raises(LimitExceeded, match="extended header"):
        unpack(huge, where / "root")


def bomb(kind: str, size: int) -> Iterator[bytes]:
    """A compressed member of `size` zeros, piece by piece."""
    head = block(b"bomb", size=size)
    stream: zlib._Compress | zstandard.ZstdCompressionObj
    if kind == "gzip":
        stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    else:
        stream = zstandard.ZstdCompressor(level=19).compressobj()
    yield stream.compress(head)
    zeros = bytes(1 << 20)
    for _ in range(size >> 20):
        yield stream.compress(zeros)
    yield stream.flush()


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_decompression_bombs(where: Path, canary: Path, kind: str) -> None:
    """The ratio counts beyond a floor; memory stays small in any case."""
    data = b"".join(bomb(kind, 64 << 20))
    limits = Limits(max_ratio=500, ratio_floor=8 << 20)
    with pytest.raises(LimitExceeded, match="bomb"):
        unpack(data, where / "root", limits=limits)


def test_zstd_window_bomb(where: Path, canary: Path) -> None:
    """A frame may ask for gigabytes of memory before it gives a byte."""
    frame = b"\x28\xb5\x2f\xfd" + bytes((0x00, 0xB8)) + b"\x01\x00\x00"
    with pytest.raises(LimitExceeded, match="memory"):
        unpack(frame, where / "root")


def test_truncated_at_every_block(where: Path, canary: Path) -> None:
    """Cut anywhere, the layer is refused, or whole members were cut off: only the digest can tell that."""
    members = [
        directory(b"d/"),
        member(b"d/f", b"x" * 1300),
        pax({b"path": b"d/g", b"SCHILY.xattr.user.a": b"b" * 600}) + member(b"g", b"y" * 10),
        member(b"L", b"d/h\0", kind=b"L", magic=b"ustar  \0") + member(b"h", magic=b"ustar  \0"),
    ]
    whole = b"".join(members)
    ends = {len(b"".join(members[:count])) for count in range(len(members) + 1)}
    for cut in range(0, len(whole) + 1, 512):
        if cut in ends:
            unpack(whole[:cut], where / "root")
        else:
            with pytest.raises(InvalidLayer, match="ends"):
                unpack(whole[:cut], where / "root2")


def test_truncated_at_every_byte_of_a_gzip(where: Path, canary: Path) -> None:
    blob = zlib.compress(member(b"f", os.urandom(300)) + END, 6, 31)
    for cut in range(3, len(blob)):
        with pytest.raises(InvalidLayer):
            unpack(blob[:cut], where / "root")


def test_deep_trees_are_removed_and_dressed(where: Path, canary: Path) -> None:
    """Neither recursion nor one descriptor a level: 2,000 levels, then a file in their place."""
    deep = b"/".join([b"d"] * 2000)
    tar = (
        pax({b"path": deep + b"/f"}) + member(b"x", b"deep") + pax({b"path": deep}) + directory(b"x/", 0o500)
    )
    unpack(tar + member(b"d", b"file") + END, where / "root")
    assert (where / "root/d").read_bytes() == b"file"


def test_a_thread_swaps_directories_for_symlinks(where: Path, canary: Path) -> None:
    """CVE-2018-15664, CVE-2025-47290: whoever wins the race, nothing is written outside."""
    root = where / "root"
    root.mkdir()
    count = 1500
    tar = b"".join(
        directory(b"d/") + member(b"d/canary", b"dead") + member(b"d/%d/x" % n, b"y") for n in range(count)
    )
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            try:
                os.rename(root / "d", root / "real")
                os.symlink(canary, root / "d")
                time.sleep(0)
                os.unlink(root / "d")
                os.rename(root / "real", root / "d")
            except OSError:
                pass

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            fd = os.open(root, os.O_RDONLY)
            try:
                apply_layer(io.BytesIO(tar + END), fd)
            except (LayerstoreError, OSError):
                pass
            finally:
                os.close(fd)
    finally:
        stop.set()
        thread.join()


def test_time_grows_with_the_input(where: Path, canary: Path) -> None:
    """Ten times the entries, at most some twelve times the time (CVE-2023-25153 and its kin)."""

    def taken(count: int, root: Path) -> float:
        tar = b"".join(directory(b"a/" * 20 + b"%d/" % n) for n in range(count)) + END
        start = time.process_time()
        unpack(tar, root)
        return time.process_time() - start

    small = taken(300, where / "root")
    assert taken(3000, where / "root2") < 14 * max(small, 0.02)


def test_old_gnu_sparse_chain_that_does_not_end(where: Path, canary: Path) -> None:
    header = bytearray(block(b"f", kind=b"S", magic=b"ustar  \0"))
    header[482] = 1
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    extension = struct.pack("504sB7s", b"", 1, b"")
    with pytest.raises(InvalidLayer):
        unpack(bytes(header) + extension * 50, where / "root")


def test_xattrs_that_the_kernel_refuses(where: Path, canary: Path) -> None:
    """A damaged ACL or capability, a default ACL on a file: the layer's fault, told by name."""
    for key in (b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"):
        for what in (member(b"f"), directory(b"d/")):
            with pytest.raises(InvalidLayer, match="that the kernel refuses"):
                unpack(pax({b"SCHILY.xattr." + key: b"nonsense"}) + what + END, where / "root")
            with pytest.raises(InvalidLayer, match="an empty xattr"):
                unpack(pax({b"SCHILY.xattr." + key: b""}) + what + END, where / "root")
    default = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, 7, 0xFFFFFFFF) for tag in (1, 4, 32))
    with pytest.raises(InvalidLayer, match="that the kernel refuses"):
        unpack(pax({b"SCHILY.xattr.system.posix_acl_default": default}) + member(b"f") + END, where / "root")


def test_xattr_names_that_are_not_utf8(where: Path, canary: Path) -> None:
    header = pax({b"SCHILY.xattr.user.\xff": b"v"})
    unpack(header + directory(b"d/") + header + member(b"f") + END, where / "root")
    for name in ("d", "f"):
        assert os.getxattr(where / "root" / name, b"user.\xff") == b"v"


def test_global_pax_records_do_not_pile_up(where: Path, canary: Path) -> None:
    """Each header is small, and all of them would be kept and copied for every member."""
    tar = b"".join(pax({b"k%d" % n: b"v" * 4000}, kind=b"g") for n in range(20))
    with pytest.raises(LimitExceeded, match="global PAX"):
        unpack(tar + member(b"f") + END, where / "root")


def test_a_damaged_capability_fails_the_commit_by_name(where: Path, canary: Path) -> None:
    """An empty one can be set, and then cannot be read."""
    (where / "root").mkdir()
    (where / "root/program").touch()
    os.setxattr(where / "root/program", "security.capability", b"")
    with pytest.raises(Unrepresentable, match=r"/program: its xattr security\.capability is damaged"):
        write_layer(StackPaths(os.fsencode(where / "root")), io.BytesIO())
