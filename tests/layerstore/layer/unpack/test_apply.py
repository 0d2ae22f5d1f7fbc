"""Unpacking: what real writers put into layers becomes an overlay layer on disk."""

import gzip
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from layerstore.digest import Digest, VerifyingReader
from layerstore.errors import DigestMismatch, InvalidLayer, UnsupportedMedia
from layerstore.layer.ownermap import OwnerMap
from tests import trees
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
from tests.trees import Dir, File, Symlink

pytestmark = pytest.mark.root


def is_whiteout(path: Path) -> bool:
    st = os.lstat(path)
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return (
        "trusted.overlay.opaque" in os.listxattr(path) and os.getxattr(path, "trusted.overlay.opaque") == b"y"
    )


def test_every_kind_of_member(where: Path) -> None:
    tar = (
        directory(b"./", 0o1777, mtime=5)
        + directory(b"dir/", 0o2755, uid=3, gid=4, mtime=7)
        + member(b"dir/file", b"content", mode=0o104755, uid=1000, gid=1000, mtime=1_600_000_000)
        + hard_link(b"again", b"dir/file")
        + symlink(b"dir/link", b"../nowhere")
        + member(b"fifo", kind=b"6", mode=0o600)
        + member(b"char", kind=b"3", device=(1, 3), mode=0o666)
        + member(b"block", kind=b"4", device=(259, 300000))
        + END
    )
    result = unpack(tar, where / "o")
    root = where / "o"
    assert (result.diff_id, result.uncompressed_size) == (Digest.of(tar), len(tar))
    assert (result.compression, result.entries, result.notes) == ("none", 8, ())
    st = os.stat(root / "dir/file")
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_nlink) == (0o4755, 1000, 1000, 2)
    assert st.st_mtime_ns == 1_600_000_000 * 10**9
    assert (root / "again").read_bytes() == b"content"
    assert os.readlink(root / "dir/link") == "../nowhere"
    assert stat.S_ISFIFO(os.stat(root / "fifo").st_mode)
    assert os.stat(root / "char").st_rdev == os.makedev(1, 3)
    assert os.stat(root / "block").st_rdev == os.makedev(259, 300000)
    assert stat.S_IMODE(os.stat(root / "dir").st_mode) == 0o2755
    assert (os.stat(root).st_mtime, os.stat(root / "dir").st_mtime) == (5, 7)


@pytest.mark.parametrize(
    "tar",
    [
        b"",
        END,
        bytes(512),
        bytes(10240),
        block(b"x", size=3) + b"abc",  # umoci insert: neither padding nor an end
        member(b"x", b"abc") + END + b"whatever follows",
    ],
    ids=["empty", "end only", "lone zero block", "blocking factor", "unpadded", "trailing"],
)
def test_ends_of_archives(where: Path, tar: bytes) -> None:
    result = unpack(tar, where / "o")
    assert result.diff_id == Digest.of(tar)
    assert paths(where / "o") in ([], ["x"])


def test_pax_and_gnu_extensions(where: Path) -> None:
    long = b"d/" * 60 + b"n" * 120
    tar = (
        pax({b"mtime": b"1.5", b"comment": b"global"}, kind=b"g")
        + member(b"g")
        + pax({b"mtime": b""}, kind=b"g")
        + pax({b"mtime": b"-1.25", b"uid": b"3000000", b"gid": b"4000000", b"path": b"p\xff\xc3\xa4"})
        + member(b"ignored")
        + pax({b"SCHILY.xattr.user.x": b"\0=\n", b"LIBARCHIVE.xattr.user.%41": b"aGk"})
        + member(b"xattrs")
        + member(b"././@LongLink", long + b"\0", kind=b"L", magic=b"ustar  \0")
        + member(long[:100], b"long", magic=b"ustar  \0")
        + member(b"././@LongLink", b"t" * 200 + b"\0", kind=b"K", magic=b"ustar  \0")
        + symlink(b"s", b"t" * 100)
        + member(b"base256", uid=b"\x80\0\0\0\0\x2d\xc6\xc0", mtime=b"\xff" * 11 + b"\xfe")
        + member(b"prefixed", prefix=b"a/b")
        + member(b"v7dir/", kind=b"\0", magic=b"")
        + member(b"contiguous", b"7", kind=b"7")
        + END
    )
    unpack(tar, where / "o")
    root = os.fsencode(where / "o")
    assert os.stat(root + b"/g").st_mtime_ns == 1_500_000_000
    st = os.stat(root + b"/p\xff\xc3\xa4")
    assert (st.st_mtime_ns, st.st_uid, st.st_gid) == (-1_250_000_000, 3000000, 4000000)
    assert os.getxattr(root + b"/xattrs", "user.x") == b"\0=\n"
    assert os.getxattr(root + b"/xattrs", "user.A") == b"hi"
    assert Path(os.fsdecode(root + b"/" + long)).read_bytes() == b"long"
    assert os.readlink(root + b"/s") == b"t" * 200
    st = os.stat(root + b"/base256")
    assert (st.st_uid, st.st_mtime) == (3000000, -2)
    assert os.path.exists(root + b"/a/b/prefixed")
    assert os.path.isdir(root + b"/v7dir")


def test_checksum_of_signed_bytes(where: Path) -> None:
    unpack(member(b"\xff\xfe", signed=True) + END, where / "o")
    assert os.listdir(os.fsencode(where / "o")) == [b"\xff\xfe"]


WHITEOUT_CASES = {
    "whiteout then nothing": (member(b"d/.wh.x"), "w"),
    "with a linkname and mode, as docker": (member(b"d/.wh.x", link=b"d/.wh.y", mode=0o600), "w"),
    "whiteout then file": (member(b"d/.wh.x") + member(b"d/x", b"new"), "f"),
    "file then whiteout": (member(b"d/x", b"new") + member(b"d/.wh.x"), "f"),
    "whiteout then directory": (member(b"d/.wh.x") + directory(b"d/x/"), "o"),
    "directory then whiteout": (directory(b"d/x/") + member(b"d/x/y") + member(b"d/.wh.x"), "o"),
    "whiteout then implied directory": (member(b"d/.wh.x") + member(b"d/x/y"), "o"),
    "opaque first": (directory(b"d/x/") + member(b"d/x/.wh..wh..opq") + member(b"d/x/y"), "o"),
    "opaque last": (directory(b"d/x/") + member(b"d/x/y") + member(b"d/x/.wh..wh..opq"), "o"),
    "opaque without the directory's entry": (member(b"d/x/.wh..wh..opq"), "o"),
    "whiteout below a file, as umoci": (member(b"d/x", b"new") + member(b"d/x/.wh.z"), "f"),
    "opaque below a file": (member(b"d/x", b"new") + member(b"d/x/.wh..wh..opq"), "f"),
    "whiteout below a whiteout": (member(b"d/.wh.x") + member(b"d/x/.wh.y"), "w"),
    "whiteout below a missing directory below a whiteout": (
        member(b"d/.wh.x") + member(b"d/x/a/b/.wh.y"),
        "w",
    ),
}


@pytest.mark.parametrize("case", WHITEOUT_CASES)
def test_whiteouts(where: Path, case: str) -> None:
    """Whiteouts hide what lies below, whatever their place in the tar; they never hide the layer's own."""
    tar, wanted = WHITEOUT_CASES[case]
    unpack(directory(b"d/") + tar + END, where / "o")
    x = where / "o/d/x"
    if wanted == "w":
        assert is_whiteout(x)
    elif wanted == "f":
        assert x.read_bytes() == b"new"
    else:
        assert is_opaque(x)
    assert not [path for path in paths(where / "o") if ".wh." in path]


def test_umocis_recreated_directory(where: Path) -> None:
    """Never opaque: the directory, its new children, then a whiteout for each old one."""
    unpack(directory(b"d/") + member(b"d/new") + member(b"d/.wh.old") + END, where / "o")
    assert is_whiteout(where / "o/d/old")
    assert not is_opaque(where / "o/d")


@pytest.mark.parametrize("name", [b".wh.", b"d/.wh.", b".wh..", b"d/.wh...", b"d/.wh./"])
def test_whiteouts_without_a_name(where: Path, name: bytes) -> None:
    with pytest.raises(InvalidLayer, match="without a name"):
        unpack(member(name) + END, where / "o")


def test_aufs_files_are_left_out_with_a_note(where: Path) -> None:
    tar = directory(b".wh..wh.plnk/") + member(b".wh..wh.plnk/12.3", b"x") + member(b".wh..wh.aufs") + END
    result = unpack(tar, where / "o")
    assert paths(where / "o") == []
    assert len(result.notes) == 3


def test_opaque_root_hides_every_name_below(where: Path) -> None:
    """An overlay ignores the mark on a root, so each name gets its own."""
    lower = where / "lower"
    lower.mkdir()
    trees.build(lower, {"a": File(b"a"), "d/x": File(b"x"), "kept": File(b"old")})
    tar = member(b".wh..wh..opq") + directory(b"d/") + member(b"kept", b"new") + END
    unpack(tar, where / "o", lowers=[os.fsencode(lower)])
    assert is_whiteout(where / "o/a")
    assert is_opaque(where / "o/d")
    assert (where / "o/kept").read_bytes() == b"new"


def test_later_members_win(where: Path) -> None:
    tar = (
        member(b"a", b"first")
        + member(b"a", b"second", mode=0o600)
        + directory(b"b/", 0o700)
        + member(b"b/kept", b"k")
        + pax({b"SCHILY.xattr.user.old": b"1"})
        + directory(b"b/", 0o711, mtime=3)
        + directory(b"b", 0o750, mtime=9)
        + directory(b"c/")
        + directory(b"c/d/")
        + member(b"c/d/e", b"e")
        + member(b"c", b"file now")
        + member(b"f", b"x")
        + directory(b"f/", 0o755)
        + symlink(b"g", b"a")
        + member(b"g", b"not through the link")
        + END
    )
    unpack(tar, where / "o")
    root = where / "o"
    assert (root / "a").read_bytes() == b"second"
    assert (root / "b/kept").read_bytes() == b"k"
    st = os.stat(root / "b")
    assert (stat.S_IMODE(st.st_mode), st.st_mtime, os.listxattr(root / "b")) == (0o750, 9, [])
    assert (root / "c").read_bytes() == b"file now"
    assert (root / "f").is_dir()
    assert (root / "g").read_bytes() == b"not through the link"


def test_symlinked_parents_stay_inside(where: Path) -> None:
    """As in a chroot: a merged-/usr tree made of packages puts files below a symlink of its own."""
    tar = (
        directory(b"usr/")
        + directory(b"usr/bin/")
        + symlink(b"bin", b"usr/bin")
        + member(b"bin/sh", b"sh")
        + symlink(b"abs", b"/usr/../../../usr/bin")
        + member(b"abs/ls", b"ls")
        + symlink(b"dangling", b"/made/up")
        + member(b"dangling/file", b"x")
        + member(b"bin/.wh.gone")
        + hard_link(b"link", b"bin/sh")
        + END
    )
    unpack(tar, where / "o")
    root = where / "o"
    assert (root / "usr/bin/sh").read_bytes() == b"sh"
    assert (root / "usr/bin/ls").read_bytes() == b"ls"
    assert (root / "made/up/file").read_bytes() == b"x"
    assert is_whiteout(root / "usr/bin/gone")
    assert os.stat(root / "link").st_nlink == 2


def test_implied_parents_are_those_of_the_layers_below(where: Path) -> None:
    lower = where / "lower"
    lower.mkdir()
    trees.build(lower, {"private": Dir(mode=0o700, uid=5, gid=6, xattrs={b"user.a": b"1"}, mtime_ns=10**18)})
    unpack(member(b"private/new/x", mtime=77) + END, where / "o", lowers=[os.fsencode(lower)])
    st = os.stat(where / "o/private")
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns) == (0o700, 5, 6, 10**18)
    assert os.getxattr(where / "o/private", "user.a") == b"1"
    st = os.stat(where / "o/private/new")
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_mtime) == (0o755, 0, 77)


def test_hard_link_into_a_lower_layer(where: Path) -> None:
    """The file is copied up whole, as a write through the mount would."""
    lower = where / "lower"
    lower.mkdir()
    trees.build(
        lower, {"d/f": File(b"lower", mode=0o4750, uid=3, gid=4, xattrs={b"user.a": b"1"}, holes=1 << 20)}
    )
    unpack(hard_link(b"new", b"d/f") + END, where / "o", lowers=[os.fsencode(lower)])
    a, b, old = os.stat(where / "o/new"), os.stat(where / "o/d/f"), os.stat(lower / "d/f")
    assert (a.st_ino, a.st_nlink) == (b.st_ino, 2)
    assert (a.st_mode, a.st_uid, a.st_gid, a.st_mtime_ns) == (old.st_mode, 3, 4, old.st_mtime_ns)
    assert (where / "o/new").read_bytes() == (lower / "d/f").read_bytes()
    with pytest.raises(InvalidLayer, match="new: a hard link to /d/f, which does not exist"):
        unpack(hard_link(b"new", b"d/f") + END, where / "o2")


def test_hard_link_to_what_is_no_file_of_a_lower_layer(where: Path) -> None:
    """A symlink, a fifo, a device: each comes up with its owner and time, and has two names then."""
    lower = where / "lower"
    lower.mkdir()
    trees.build(lower, {"s": Symlink("to"), "d/p": trees.fifo(), "b": trees.block_device(7, 300)})
    for name in ("s", "d/p", "b"):
        os.chown(lower / name, 3, 4, follow_symlinks=False)
        os.utime(lower / name, ns=(10**18, 10**18), follow_symlinks=False)
    tar = hard_link(b"s2", b"s") + hard_link(b"p2", b"d/p") + hard_link(b"b2", b"b") + END
    unpack(tar, where / "o", lowers=[os.fsencode(lower)])
    for new, name in (("s2", "s"), ("p2", "d/p"), ("b2", "b")):
        a, b, old = (os.lstat(path) for path in (where / "o" / new, where / "o" / name, lower / name))
        assert (a.st_ino, a.st_nlink) == (b.st_ino, 2)
        assert (a.st_mode, a.st_uid, a.st_gid, a.st_rdev, a.st_mtime_ns) == (
            *(old.st_mode, 3, 4, old.st_rdev, 10**18),
        )
    assert os.readlink(where / "o/s2") == "to"


def test_attributes_of_directories_do_not_act_on_their_children(where: Path) -> None:
    """A default ACL or setgid bit of a directory is not inherited by what is unpacked into it."""
    acl = trees.acl(("u", 7), ("user", 1000, 7), ("g", 5), ("m", 7), ("o", 5))
    tar = (
        pax({b"SCHILY.xattr.system.posix_acl_default": acl})
        + directory(b"d/", 0o2500, gid=50)
        + member(b"d/f", b"f", mode=0o644)
        + directory(b"d/e/")
        + END
    )
    unpack(tar, where / "o")
    root = where / "o"
    assert os.getxattr(root / "d", "system.posix_acl_default") == acl
    assert (os.listxattr(root / "d/f"), os.listxattr(root / "d/e")) == ([], [])
    assert (os.stat(root / "d/f").st_gid, stat.S_IMODE(os.stat(root / "d/e").st_mode)) == (0, 0o755)


def test_marks_in_a_tar_are_not_believed(where: Path) -> None:
    """This namespace's are escaped, as for a nested overlay; others, which some mount might believe,
    stay out.
    """
    tar = (
        pax(
            {
                b"SCHILY.xattr.trusted.overlay.opaque": b"y",
                b"SCHILY.xattr.trusted.overlay.redirect": b"/etc",
                b"SCHILY.xattr.user.overlay.opaque": b"y",
                b"SCHILY.xattr.user.fuseoverlayfs.opaque": b"y",
                b"SCHILY.xattr.user.containers.override_stat": b"0:0:04755",
            }
        )
        + directory(b"d/")
        + pax({b"SCHILY.xattr.trusted.overlay.metacopy": b""})
        + member(b"f")
        + END
    )
    result = unpack(tar, where / "o")
    assert sorted(os.listxattr(where / "o/d")) == [
        "trusted.overlay.overlay.opaque",
        "trusted.overlay.overlay.redirect",
        "user.overlay.overlay.opaque",
    ]
    assert os.listxattr(where / "o/f") == ["trusted.overlay.overlay.metacopy"]
    assert len(result.notes) == 2


def test_machine_xattrs_are_left_out(where: Path) -> None:
    tar = (
        pax({b"SCHILY.xattr.security.selinux": b"label", b"SCHILY.xattr.security.ima": b"x"})
        + member(b"f")
        + END
    )
    result = unpack(tar, where / "o")
    assert os.listxattr(where / "o/f") == []
    assert len(result.notes) == 2


def test_without_privilege(where: Path) -> None:
    """Owners are not set, devices are noted, restrictive directories do not get in the way; marks are
    user.overlay.*
    """
    tar = (
        directory(b"ro/", 0o555, uid=5)
        + directory(b"ro/none/", 0o000, uid=5)
        + member(b"ro/none/f", b"x", mode=0o400, uid=7)
        + member(b"ro/null", kind=b"3", device=(1, 3))
        + member(b"ro/.wh.gone")
        + member(b"ro/none/.wh..wh..opq")
        + END
    )
    os.chmod(where, 0o777)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            result = unpack(tar, where / "o", privileged=False, userxattr=True)
            status = 0 if result.notes == ("left out the device /ro/null: it needs privilege",) else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert stat.S_IMODE(os.stat(where / "o/ro").st_mode) == 0o555
    assert stat.S_IMODE(os.stat(where / "o/ro/none").st_mode) == 0
    assert (where / "o/ro/none/f").read_bytes() == b"x"
    assert is_whiteout(where / "o/ro/gone")
    assert os.getxattr(where / "o/ro/none", "user.overlay.opaque") == b"y"


def test_id_ranges(where: Path) -> None:
    ids = OwnerMap(uids=((0, 100000, 1000),), gids=((0, 200000, 1000),))
    unpack(member(b"f", uid=5, gid=6) + END, where / "o", ids=ids)
    st = os.stat(where / "o/f")
    assert (st.st_uid, st.st_gid) == (100005, 200006)
    with pytest.raises(InvalidLayer, match="g: its owner 1000:0 has no id"):
        unpack(member(b"g", uid=1000) + END, where / "o2", ids=ids)


@pytest.mark.parametrize("kind", [b"M", b"N", b"Q", b"\xff"])
def test_unknown_members_are_refused_by_name(where: Path, kind: bytes) -> None:
    with pytest.raises(UnsupportedMedia, match="strange"):
        unpack(member(b"strange", kind=kind) + END, where / "o")


def test_damage_names_the_entry(where: Path) -> None:
    with pytest.raises(InvalidLayer, match="damaged header"):
        unpack(b"x" * 1024, where / "o")
    with pytest.raises(InvalidLayer, match="empty block"):
        unpack(member(b"a") + bytes(512) + member(b"b") + END, where / "o1")
    with pytest.raises(InvalidLayer, match="a/b: /a is not a directory"):
        unpack(member(b"a", b"file") + member(b"a/b") + END, where / "o2")


def test_the_digest_covers_the_whole_stream(where: Path) -> None:
    """The blob is checked although its tar ended long before."""
    blob = gzip.compress(member(b"a", b"x") + END + bytes(100_000))
    (where / "o").mkdir()
    fd = os.open(where / "o", os.O_RDONLY)
    try:
        from layerstore.layer.unpack.apply import apply_layer

        reader = VerifyingReader(io.BytesIO(blob), Digest.of(b"something else"), len(blob))
        with pytest.raises(DigestMismatch):
            apply_layer(reader, fd)
    finally:
        os.close(fd)


def test_python_tarfiles(where: Path) -> None:
    """Each format of another writer."""
    for number, form in enumerate((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as tar:
            info = tarfile.TarInfo("n/" * 40 + "x")
            info.size, info.mtime, info.uid = 3, 1234567890, 12345
            tar.addfile(info, io.BytesIO(b"abc"))
        unpack(out.getvalue(), where / f"o{number}")
        path = where / f"o{number}" / ("n/" * 40 + "x")
        assert (path.read_bytes(), path.stat().st_uid) == (b"abc", 12345)


@pytest.mark.parametrize("name", [b"BZhello", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ"])
def test_first_names_that_look_compressed(where: Path, name: bytes) -> None:
    assert unpack(member(name, b"x") + END, where / "o").compression == "none"
    assert os.path.isfile(os.path.join(os.fsencode(where / "o"), name))


def test_progress_is_reported(where: Path) -> None:
    seen: list[int] = []
    unpack(member(b"big", b"x" * (3 << 20)) + END, where / "o", progress=seen.append)
    assert len(seen) >= 3
    assert seen == sorted(seen)


def test_sparse_members_of_every_format(where: Path) -> None:
    """The same file, 1 MiB with two pieces of data, in the five encodings."""
    size = 1 << 20
    data = b"A" * 512 + b"B" * 1024
    extents = [(4096, 512), (500_000, 1024)]
    flat = [number for pair in extents for number in pair]
    old = bytearray(block(b"old", kind=b"S", size=len(data), magic=b"ustar  \0"))
    pairs = b"".join(b"%011o\0" % number for number in flat)
    old[386 : 386 + len(pairs)] = pairs
    old[483:495] = b"%011o\0" % size
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old)
    sparse_map = padded(b"".join(b"%d\n" % number for number in (2, *flat)))
    common = {b"GNU.sparse.name": b"pax01", b"GNU.sparse.size": b"%d" % size}
    listed = b",".join(b"%d" % number for number in flat)
    repeated = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", b"2")]
    for offset, length in extents:
        repeated += [(b"GNU.sparse.offset", b"%d" % offset), (b"GNU.sparse.numbytes", b"%d" % length)]
    one = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": b"pax10",
        b"GNU.sparse.realsize": b"%d" % size,
    }
    tar = (
        bytes(old)
        + padded(data)
        + pax(repeated)
        + member(b"pax00", data)
        + pax({**common, b"GNU.sparse.map": listed})
        + member(b"GNUSparseFile.0/x", data)
        + pax(one)
        + member(b"GNUSparseFile.0/y", sparse_map + data)
        + END
    )
    unpack(tar, where / "o")
    content = bytearray(size)
    content[4096:4608] = data[:512]
    content[500_000:501_024] = data[512:]
    assert paths(where / "o") == ["old", "pax00", "pax01", "pax10"]
    for name in paths(where / "o"):
        assert (where / "o" / name).read_bytes() == bytes(content), name
        assert os.stat(where / "o" / name).st_blocks < 100
