"""Header bytes: what is written can be read back exactly, and says no more than it must."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerstore.layer.tar.decode import TarReader
from layerstore.layer.tar.decompress import LayerReader
from layerstore.layer.tar.encode import END, encode, encode_file
from layerstore.layer.tar.entry import DIRECTORY, HARD_LINK, REGULAR, SYMLINK, Entry
from layerstore.layer.tar.readahead import TarStream
from layerstore.limits import DEFAULT_LIMITS


def decode(tar: bytes) -> list[Entry]:
    with TarStream(LayerReader(io.BytesIO(tar), DEFAULT_LIMITS)) as stream:
        return list(TarReader(stream, DEFAULT_LIMITS))


names = st.binary(min_size=1, max_size=400).map(lambda name: name.replace(b"\0", b"_").lstrip(b"/") or b"x")
xattrs = st.dictionaries(
    st.text(st.characters(blacklist_characters="\0=", blacklist_categories=["Cs"]), min_size=1).map(
        "user.".__add__
    ),
    st.binary(max_size=700),
    max_size=3,
)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    kind = draw(st.sampled_from([REGULAR, DIRECTORY, SYMLINK, HARD_LINK, b"3", b"4", b"6"]))
    return Entry(
        draw(names),
        kind,
        draw(st.integers(0, 0o7777)),
        draw(st.integers(0, 2**32 - 2)),
        draw(st.integers(0, 2**32 - 2)),
        0,
        draw(st.integers(-(2**62), 2**62)),
        draw(names) if kind in (SYMLINK, HARD_LINK) else b"",
        (draw(st.integers(0, 4095)), draw(st.integers(0, 2**20 - 1))) if kind in (b"3", b"4") else (0, 0),
        draw(xattrs),
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(entries(), max_size=4))
def test_round_trip(written: list[Entry]) -> None:
    tar = b"".join(map(encode, written)) + END
    assert len(tar) % 512 == 0
    assert decode(tar) == written


@settings(max_examples=150, deadline=None)
@given(entries())
def test_python_reads_the_same(entry: Entry) -> None:
    with tarfile.open(
        fileobj=io.BytesIO(encode(entry) + END), errors="surrogateescape", encoding="utf-8"
    ) as tar:
        (member,) = tar.getmembers()
    assert member.name.encode("utf-8", "surrogateescape").rstrip(b"/") == entry.name.rstrip(b"/")
    assert (member.mode, member.uid, member.gid) == (entry.mode, entry.uid, entry.gid)
    assert member.linkname.encode("utf-8", "surrogateescape") == entry.linkname
    assert abs(member.mtime - entry.mtime_ns / 1e9) < 1e-3 * max(1, abs(entry.mtime_ns) / 1e15)


@settings(max_examples=300, deadline=None)
@given(
    names,
    st.integers(0, 0o177777),
    st.sampled_from([0, 1000, 0o7777777, 0o10000000, 2**32 - 2]),
    st.sampled_from([0, 1000, 0o7777777, 0o10000000, 2**32 - 2]),
    st.sampled_from([0, 1, 0o77777777777, 0o100000000000]),
    st.one_of(st.integers(0, 2**62), st.integers(-(2**62), 2**62), st.sampled_from([0, 10**18, 10**20])),
)
def test_ordinary_files_have_the_header_of_any_entry(
    name: bytes, mode: int, uid: int, gid: int, size: int, mtime_ns: int
) -> None:
    entry = Entry(name, REGULAR, mode, uid, gid, size, mtime_ns, stored=size)
    assert encode_file(name, mode, uid, gid, size, mtime_ns) == encode(entry)


def test_plain_entries_need_no_pax() -> None:
    for name in (b"a", b"d/" * 50, b"p" * 150 + b"/" + b"n" * 100, b"new\nline", b"\xff\xfe raw"):
        assert len(encode(Entry(name, mtime_ns=10**18))) == 512, name


@pytest.mark.parametrize(
    ("entry", "record"),
    [
        (Entry("grüße".encode()), b"path=gr"),
        (Entry(b"n" * 101), b"path=nnn"),
        (Entry(b"p" * 156 + b"/n"), b"path=ppp"),
        (Entry(b"l", SYMLINK, linkname=b"t" * 101), b"linkpath=ttt"),
        (Entry(b"u", uid=0o10000000), b"uid=2097152\n"),
        (Entry(b"g", gid=4294967294), b"gid=4294967294\n"),
        (Entry(b"t", mtime_ns=1), b"mtime=0.000000001\n"),
        (Entry(b"t", mtime_ns=-1_500_000_000), b"mtime=-1.5\n"),
        (Entry(b"t", mtime_ns=8589934592 * 10**9), b"mtime=8589934592\n"),
        (Entry(b"s", stored=8 << 30), b"size=8589934592\n"),
        (Entry(b"x", xattrs={"user.a": b"\0\n="}), b"SCHILY.xattr.user.a=\0\n=\n"),
    ],
)
def test_what_needs_pax(entry: Entry, record: bytes) -> None:
    header = encode(entry)
    assert record in header
    assert header[156:157] == b"x"
    assert header[:14] == b"././@PaxHeader", "constant: no process id, no counter"


def test_nothing_of_the_machine_shows() -> None:
    """No user names, no access or change times."""
    header = encode(Entry(b"f", mode=0o100644, mtime_ns=1))
    assert b"atime" not in header
    assert b"ctime" not in header
    assert header[1024 + 265 : 1024 + 329] == bytes(64)
    assert header[1024 + 100 : 1024 + 108] == b"0000644\0", "permission bits alone"


@pytest.mark.parametrize(
    "length", [1, 7, 76, 77, 78, 79, 80, 974, 975, 976, 977, 978, 979, 9972, 9973, 9974, 9975, 9976, 9977]
)
def test_record_lengths_count_themselves(length: int) -> None:
    """Where one more digit makes the record longer by itself."""
    (entry,) = decode(encode(Entry(b"f", xattrs={"user.a": b"v" * length})) + END)
    assert entry.xattrs == {"user.a": b"v" * length}
