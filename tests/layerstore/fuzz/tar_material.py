"""Hostile layer tars, made from real ones: taken apart, changed, put together, compressed, damaged.

Everything follows from one `random.Random`, so that a seed is a case.
"""

import bz2
import gzip
import lzma
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random

import zstandard

from tests.layerstore.layer.tars import END, directory, hard_link, member, padded, pax, record, symlink

BLOCK = 512

# Few and short, so that members meet: each is file here, directory there, a link, a whiteout, a way out.
POOL = [b"a", b"b", b"d", b"d/f", b"d/e", b"s", b"s/x", b"h", b"etc/passwd", b"usr/lib/one", b"lib/two"]
ODD_NAMES = [
    b"", b".", b"./", b"/", b"//", b"..", b"../outside/f", b"../lower/etc/passwd", b"/outside/f",
    b"d/..", b"d/../../outside/f", b"./d/./f", b"d//f", b"d/f/", b"\xff\xfe", b"a\nb", b"\x1b[2Ja",
    b"a\\..\\b", b" ", b".wh.a", b".wh.d", b"d/.wh.f", b".wh..wh..opq", b"d/.wh..wh..opq", b".wh.",
    b".wh...", b".wh..", b"d/.wh..", b".wh..wh.plnk", b".wh..wh.aufs", b".wh.d/x", b".wh.usr",
    b"usr/.wh.lib", b".wh..wh..opq/x", b"s/.wh.x", b"x" * 255, b"x" * 256, b".wh." + b"x" * 255,
    b"n/" * 60 + b"f", b"n/" * 1500 + b"f", b"y" * 99, b"proc/self/fd/3", b"dev/null", b".tmp-x",
    b"a\0b", b"caf\xc3\xa9",
]  # fmt: skip
TARGETS = [
    b"..", b"../outside", b"../outside/f", b"../../../../../../../..", b"/", b".", b"s", b"d",
    b"a/../b", b"l1", b"/proc/self/root", b"/proc/self/cwd", b"z" * 4095, b"z" * 4096, b"d/../" *
    300, b"./" * 900 + b"d",
]  # fmt: skip
NUMBERS = [0, 1, 2, 511, 512, 513, 4096, 0o777777, *(1 << power for power in (20, 31, 32, 33, 62, 63, 64))]
KINDS = [*(bytes([c]) for c in b"0123456789gxLKSDVNMAXZ"), b"\0", b"\xff", b" "]
PAX_KEYS = [
    b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"atime", b"comment", b"hdrcharset",
    b"charset", b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.name",
    b"GNU.sparse.realsize", b"GNU.sparse.size", b"GNU.sparse.numblocks", b"GNU.sparse.map",
    b"GNU.sparse.offset", b"GNU.sparse.numbytes", b"SCHILY.xattr.user.a",
    b"SCHILY.xattr.security.capability", b"SCHILY.xattr.trusted.overlay.opaque",
    b"SCHILY.xattr.trusted.overlay.redirect", b"SCHILY.xattr.trusted.overlay.metacopy",
    b"SCHILY.xattr.", b"SCHILY.xattr.trusted.overlay.overlay.redirect",
    b"SCHILY.xattr.user.overlay.opaque", b"SCHILY.xattr.user.fuseoverlayfs.opaque",
    b"SCHILY.xattr.system.posix_acl_access", b"SCHILY.xattr.user.\xff", b"LIBARCHIVE.xattr.user.b",
    b"SCHILY.acl.access", b"SCHILY.acl.default", b"SCHILY.devmajor", b"SCHILY.xattr.nodot",
]  # fmt: skip
PAX_VALUES = [
    b"", b"0", b"1", b"-1", b"y", b"x", b"../outside/f", b"/outside", b"9" * 30, b"1e9", b"nan",
    b"0x10", b"1.5", b"-99999999999.999999999", b"9" * 18, b"a\0b", b"\xff", b"0,1", b"0,5,3,9",
    b"1,2,3", b"user::rwx", b"\x01\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", b"d/f", b"s/x",
    b"BINARY", b"v" * 3000, b"//", b"dGVzdA", b"user::rwx,group::r-x,other::---",
    b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff",
]  # fmt: skip
SPARSE = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": b"sparse"}

Member = bytes
# The same bytes each time: a seed is a case.
FORMATS = (
    "-H v7 --exclude long* --exclude fifo",
    "-H ustar --exclude long*",
    "-H gnu",
    "-H gnu -S",
    "-H pax --xattrs",
    "-H pax -S",
    "-H pax -S --sparse-version=0.0",
    "-H pax -S --sparse-version=0.1",
)
STILL = ("--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner")
STILL_PAX = "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"


def real_tars(where: Path) -> list[bytes]:
    """What the tars of this machine make of a small tree, in each of their formats."""
    tree = where / "tree"
    (tree / "d/e").mkdir(parents=True)
    (tree / "d/f").write_bytes(b"f" * 700)
    os.link(tree / "d/f", tree / "h")
    (tree / "s").symlink_to("d")
    (tree / ("long" * 40)).write_bytes(b"l")
    os.mkfifo(tree / "fifo")
    with open(tree / "sparse", "wb") as stream:
        for at in range(0, 40 << 16, 2 << 16):
            stream.seek(at)
            stream.write(b"x" * 100)
    os.setxattr(tree / "d", "user.a", b"1")
    made = []
    for words in FORMATS:
        still = (*STILL, STILL_PAX) if "pax" in words else STILL
        command = ["tar", *still, "-C", str(tree), *words.split(), "-cf", "-", "."]
        tar = subprocess.run(command, check=True, capture_output=True).stdout
        made.append(_without_pids(tar))
    return made + [b"".join(own_members()) + END]


def _without_pids(tar: bytes) -> bytes:
    """GNU tar puts its process id into the names of sparse files."""
    raw = bytearray(tar)
    for at in range(0, len(raw), BLOCK):
        if b"GNUSparseFile." in raw[at : at + 100] and raw[at + 257 : at + 262] == b"ustar":
            header = raw[at : at + BLOCK]
            header[:100] = b"./GNUSparseFile.0/sparse".ljust(100, b"\0")
            resealed(header)
            raw[at : at + BLOCK] = header
    return bytes(raw)


# What links and whiteouts of other members find when it comes first.
GROUND = [
    directory(b"d/"),
    member(b"d/f", b"1"),
    member(b"h", b"2"),
    member(b"etc/passwd", b"3"),
    symlink(b"s", b"d"),
]


def own_members() -> list[Member]:
    """What layers hold and a plain tree does not."""
    return [
        directory(b"d/"),
        member(b"d/f", b"content"),
        member(b"d/.wh.gone"),
        member(b"d/.wh..wh..opq"),
        symlink(b"s", b"../outside"),
        symlink(b"l1", b"l2"),
        symlink(b"l2", b"l1"),
        hard_link(b"h", b"d/f"),
        hard_link(b"h2", b"etc/passwd"),
        member(b"null", kind=b"3", device=(1, 3)),
        member(b"whiteout", kind=b"3"),
        member(b"fifo", kind=b"6"),
        pax({b"path": b"x" * 300 + b"/y", b"SCHILY.xattr.user.a": b"b"}) + member(b"x", b"1"),
        pax({b"comment": b"0" * 40}, kind=b"g"),
        pax({**SPARSE, b"GNU.sparse.realsize": b"9999"})
        + member(b"f", padded(b"2\n0\n5\n8000\n3\n") + b"abcdefgh"),
        member(b"././@LongLink", b"long/" * 30 + b"x\0", kind=b"L") + member(b"cut"),
    ]


def taken_apart(tar: bytes) -> list[Member]:
    """Members with the extended headers before them; as well as can be told of a well-formed tar."""
    found, start, at = [], 0, 0
    while at + BLOCK <= len(tar) and tar[at : at + BLOCK].strip(b"\0"):
        size = int(tar[at + 124 : at + 136].strip(b"\0 ") or b"0", 8)
        kind, at = tar[at + 156 : at + 157], at + BLOCK + -(-size // BLOCK) * BLOCK
        if kind not in b"xgLK":
            found.append(tar[start:at])
            start = at
    return found


def resealed(header: bytearray) -> None:
    """Make the checksum right."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:BLOCK])


def name(rng: Random) -> bytes:
    return rng.choice(POOL) if rng.random() < 0.9 else rng.choice(ODD_NAMES)


def field_number(rng: Random, width: int) -> bytes:
    value = rng.choice(NUMBERS) + rng.randrange(-1, 2)
    form = rng.randrange(5)
    if form == 0 or value < 0 or (form == 1 and value >= 8 ** (width - 1)):
        return (value & ((1 << 8 * width - 1) - 1) | 1 << 8 * width - 1).to_bytes(width, "big")
    if form == 1:
        return b"%0*o\0" % (width - 1, value)
    return rng.choice(
        [rng.randbytes(width), b" " * width, b"-1".ljust(width), b"\xff" * width, b"%o" % value]
    )[:width].ljust(width)


def change_header(rng: Random, one: Member) -> Member:
    """Another value in one field of one of its headers."""
    data = bytearray(one)
    headers = [
        at for at in range(0, len(data) - BLOCK + 1, BLOCK) if data[at + 257 : at + 262] == b"ustar"
    ] or [0]
    start = rng.choice(headers)
    header = data[start : start + BLOCK]
    if len(header) < BLOCK:
        return one
    what = rng.randrange(9)
    if what == 0:
        header[0:100] = name(rng)[:100].ljust(100, b"\0")
    elif what == 1:
        header[157:257] = rng.choice([name(rng), rng.choice(TARGETS)])[:100].ljust(100, b"\0")
    elif what == 2:
        header[156:157] = rng.choice(KINDS)
    elif what == 3:
        header[124:136] = field_number(rng, 12)
    elif what == 4:
        at, width = rng.choice([(100, 8), (108, 8), (116, 8), (136, 12), (329, 8), (337, 8), (483, 12)])
        header[at : at + width] = field_number(rng, width)
    elif what == 5:
        header[257:265] = rng.choice([b"ustar\x0000", b"ustar  \0", bytes(8), b"USTAR\x0000"])
    elif what == 6:
        header[345:500] = name(rng)[:155].ljust(155, b"\0")
    elif what == 7:
        header[386:482] = b"".join(field_number(rng, 12) for _ in range(8))
        header[482] = rng.randrange(2)
    else:
        header[rng.randrange(BLOCK)] = rng.randrange(256)
    if rng.random() < 0.95:
        resealed(header)
    data[start : start + BLOCK] = header
    return bytes(data)


def extended(rng: Random, one: Member) -> Member:
    """Another extended header before it."""
    what = rng.randrange(6)
    if what < 3:
        keys = [rng.choice(PAX_KEYS) for _ in range(rng.randrange(1, 4))]
        records = [(key, rng.choice([*PAX_VALUES, name(rng), rng.choice(TARGETS)])) for key in keys]
        return pax(records, kind=b"g" if rng.random() < 0.15 else b"x") + one
    if what == 3:
        kind = rng.choice([b"L", b"K"])
        return member(b"././@LongLink", rng.choice([name(rng), rng.choice(TARGETS)]) + b"\0", kind=kind) + one
    if what == 4:
        numbers = [rng.choice([0, 1, 3, 512, 8000, 1 << 40]) for _ in range(rng.randrange(8))]
        text = b"%d\n" % rng.choice([len(numbers) // 2, rng.choice(NUMBERS)]) + b"".join(
            b"%d\n" % n for n in numbers
        )
        size = b"%d" % rng.choice([9, 8003, 1 << 30, 1 << 43, 1 << 63])
        return pax({**SPARSE, b"GNU.sparse.realsize": size}) + member(
            b"f", padded(text) + b"x" * rng.randrange(600)
        )
    body = bytearray(record(rng.choice(PAX_KEYS), rng.choice(PAX_VALUES)))
    body[rng.randrange(len(body))] = rng.randrange(256)
    return member(b"pax", bytes(body), kind=b"x") + one


def fresh(rng: Random) -> Member:
    """A member of our own invention."""
    kind = rng.choice([b"0", b"0", b"0", b"1", b"1", b"2", b"2", b"3", b"4", b"5", b"5", b"6", b"7", b"\0"])
    where, link = name(rng), rng.choice([name(rng), rng.choice(TARGETS)])
    head = b""
    if len(where) > 100 or b"\0" in where:
        head += pax({b"path": where})
    if len(link) > 100:
        head += pax({b"linkpath": link})
    data = rng.randbytes(rng.choice([0, 1, 511, 512, 513, 2000])) if kind in b"07\0" else b""
    mode = rng.choice([0o644, 0o755, 0, 0o7777, 0o40755, 0o4755])
    device = rng.choice([(0, 0), (0, 1), (1, 3), (7, 0), (4095, 0o7777777), (0o7777777, 0)])
    return head + member(
        where[:100], data, kind=kind, link=link[:100], mode=mode, device=device, mtime=rng.randrange(99)
    )


def shuffled(rng: Random, members: list[Member]) -> list[Member]:
    """The members in another order, some missing, some twice, some changed, some new."""
    chosen = rng.sample(members, min(len(members), rng.randrange(1, 8)))
    if rng.random() < 0.3:
        chosen += rng.choices(chosen, k=rng.randrange(1, 4))
    made = []
    for one in chosen:
        for _ in range(rng.choice([0, 0, 0, 0, 0, 0, 1, 1, 2])):
            one = rng.choice([change_header, change_header, extended])(rng, one)
        made.append(one)
    made += [fresh(rng) for _ in range(rng.choice([0, 1, 2, 3, 8]))]
    if rng.random() < 0.5:
        rng.shuffle(made)
    return GROUND + made if rng.random() < 0.7 else made


def damaged(rng: Random, data: bytes) -> bytes:
    """Bits flipped, pieces cut out, doubled, or the end gone."""
    raw = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        if not raw:
            break
        at = rng.randrange(len(raw))
        what = rng.randrange(5)
        if what == 0:
            raw[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            del raw[at : at + rng.choice([1, 7, 512, 5000])]
        elif what == 2:
            raw[at:at] = raw[max(0, at - rng.choice([1, 512])) : at]
        elif what == 3:
            raw[at:at] = rng.choice([bytes(BLOCK), bytes(2 * BLOCK), rng.randbytes(20)])
        else:
            del raw[at:]
    return bytes(raw)


def _skippable(data: bytes) -> bytes:
    junk = b"j" * 9
    return (
        struct.pack("<II", 0x184D2A50, len(junk))
        + junk
        + zstandard.compress(data)
        + struct.pack("<II", 0x184D2A5F, 0)
    )


COMPRESSIONS: list[Callable[[bytes], bytes]] = [
    lambda data: gzip.compress(data, 1),
    lambda data: gzip.compress(data[:700], 1) + gzip.compress(data[700:], 9) + bytes(30),
    lambda data: zstandard.compress(data),
    lambda data: (
        zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(data)
        + zstandard.compress(b"")
    ),
    _skippable,
    lambda data: bz2.compress(data, 1),
    lambda data: lzma.compress(data, preset=0),
    lambda data: gzip.compress(gzip.compress(data)),
    lambda data: gzip.compress(data) + zstandard.compress(data),
]


def hostile_layer(rng: Random, corpus: list[list[Member]]) -> bytes:
    """One case."""
    members = shuffled(rng, rng.choice(corpus) + (rng.choice(corpus) if rng.random() < 0.3 else []))
    tar = b"".join(members)
    if rng.random() < 0.8:
        tar += END + bytes(rng.choice([0, 0, 9216]))
    if rng.random() < 0.1:
        tar = damaged(rng, tar)
    if rng.random() < 0.02:
        tar = rng.randbytes(rng.randrange(3000))
    if rng.random() < 0.3:
        tar = rng.choice(COMPRESSIONS)(tar)
        if rng.random() < 0.25:
            tar = damaged(rng, tar)
    return tar
