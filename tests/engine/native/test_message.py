"""Parsing and building messages: what the kernel sent, what it never would, the bytes of answers."""

import errno
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlayfs_py.engine.native import message, wire
from overlayfs_py.engine.native.message import MalformedMessage, Request, Timeout, parse
from tests.engine.native.captured import captured

CAPTURED = captured()
DAY = Timeout(86400, 0)
ATTR = (77, 0o100644, 2, 1000, 1001, 0, 5000, 16, 4096, 1_500_000_001, -1, 3_000_000_000)
FUZZ = settings(max_examples=400, deadline=None, database=None)


def build(name: str, body: bytes, nodeid: int = 5, unique: int = 42) -> bytes:
    opcode = next(row.opcode for row in wire.OPS.values() if row.name == name)
    return wire.IN_HEADER.pack(40 + len(body), opcode, unique, nodeid, 1000, 1001, 7, 0, 0) + body


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_messages(name: str) -> None:
    """Each one is what its file says, and nothing of it is left over."""
    raw = CAPTURED[name]
    request = parse(raw, len(raw))
    assert request.op.name == name
    assert name in repr(request)
    assert (request.nodeid == 0) == (name in {"INIT", "BATCH_FORGET"})
    strings = request.arguments[len(request.op.request.unpack_from(raw, 40)) :]
    assert len(strings) == request.op.names + request.op.text + request.op.payload
    covered = 40 + request.op.request.size + sum(len(part) + isinstance(part, bytes) for part in strings)
    assert covered == len(raw)


def test_captured_fields() -> None:
    requests = {name: parse(raw, len(raw)) for name, raw in CAPTURED.items()}
    assert requests["LOOKUP"].arguments == (b"lower",)
    assert requests["SYMLINK"].arguments == (b"link", b"target")
    assert requests["RENAME"].arguments[1:] == (b"made", b"moved")
    assert requests["INIT"].arguments[:2] == (7, 45)
    *_, name, value = requests["SETXATTR"].arguments
    assert (name, bytes(value)) == (b"user.one", b"value")
    *_, data = requests["WRITE"].arguments
    assert bytes(data) == b"contents"


@pytest.mark.parametrize("name", CAPTURED)
def test_cut_off_anywhere(name: str) -> None:
    """A message that ends early is refused, with its unique when it can be answered."""
    raw = CAPTURED[name]
    *_, last = parse(raw, len(raw)).arguments or (None,)
    whole = len(raw) - (len(last) if isinstance(last, memoryview) else 0)  # a payload may be of any length
    for length in range(whole):
        short = bytearray(raw[:length])
        if length >= 4:
            short[:4] = struct.pack("=I", length)
        with pytest.raises(MalformedMessage) as caught:
            parse(short, length)
        assert caught.value.code in (errno.EINVAL, errno.ENOSYS)


@FUZZ
@given(st.binary(max_size=300))
def test_any_bytes(raw: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse(raw, len(raw))


@FUZZ
@given(st.sampled_from(sorted(wire.OPS)), st.binary(max_size=200), st.integers(0, 65535))
def test_any_body(opcode: int, body: bytes, extensions: int) -> None:
    """Parsed or refused, never anything else; names are names."""
    raw = wire.IN_HEADER.pack(40 + len(body), opcode, 9, 1, 0, 0, 0, extensions, 0) + body
    try:
        request = parse(raw, len(raw))
    except MalformedMessage:
        return
    assert isinstance(request, Request)
    first = len(request.op.request.unpack_from(raw, 40))
    for name in request.arguments[first : first + request.op.names]:
        assert name not in (b"", b".", b"..")
        assert not {0, ord("/")} & set(name)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/"])
def test_names_are_never_paths(name: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse(raw := build("LOOKUP", name + b"\0"), len(raw))


def test_unknown_opcode_is_enosys() -> None:
    raw = wire.IN_HEADER.pack(40, 4096, 9, 1, 0, 0, 0, 0, 0)
    with pytest.raises(MalformedMessage) as caught:
        parse(raw, len(raw))
    assert (caught.value.unique, caught.value.code) == (9, errno.ENOSYS)


def test_extensions_are_left_out() -> None:
    body = b"name\0\0\0\0" + b"\x10\0\0\0\x20\0\0\0" + bytes(8)
    raw = wire.IN_HEADER.pack(40 + len(body), 1, 9, 1, 0, 0, 0, 2, 0) + body
    assert parse(raw, len(raw)).arguments == (b"name",)


def test_forgets_as_many_as_there_are() -> None:
    payload = wire.FORGET_ONE.pack(5, 1) + wire.FORGET_ONE.pack(6, 2) + b"rest"
    assert list(message.forgets(2, payload)) == [(5, 1), (6, 2)]
    assert list(message.forgets(1, payload)) == [(5, 1)]
    assert list(message.forgets(1 << 31, payload)) == [(5, 1), (6, 2)]


def test_entry() -> None:
    """Times are whole seconds and nanoseconds, also before 1970."""
    fields = wire.ENTRY_OUT.unpack(message.entry(9, DAY, Timeout(1, 5), ATTR))
    assert fields[:6] == (9, 0, 86400, 1, 0, 5)
    assert fields[6:9] == (77, 5000, 16)
    assert fields[9:15] == (1, -1, 3, 500_000_001, 999_999_999, 0)
    assert fields[15:] == (0o100644, 2, 1000, 1001, 0, 4096, 0)


def test_attributes_are_those_of_an_entry() -> None:
    assert message.attributes(DAY, ATTR)[16:] == message.entry(9, DAY, DAY, ATTR)[40:]


def test_missing_name_is_remembered() -> None:
    nodeid, _, seconds = struct.unpack_from("=QQQ", message.missing(DAY))
    assert (nodeid, seconds) == (0, 86400)


@pytest.mark.parametrize(("birth", "mask"), [(None, 0x7FF), (1_700_000_000_123_456_789, 0xFFF)])
def test_statx(birth: int | None, mask: int) -> None:
    fields = wire.STATX_OUT.unpack(message.statx(DAY, ATTR, birth))
    assert fields[3] == mask
    assert fields[6:10] == (2, 1000, 1001, 0o100644)
    assert fields[11:14] == (77, 5000, 16)
    assert fields[15:18] == (1, 500_000_001, 0)
    assert fields[18:20] == divmod(birth or 0, 10**9)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.0, (0, 0)), (1.5, (1, 500_000_000)), (86400.0, (86400, 0))]
)
def test_timeout(seconds: float, expected: tuple[int, int]) -> None:
    assert Timeout.of(seconds) == expected


@pytest.mark.parametrize("name", [b"a", b"eight..8", b"nine....9"])
def test_dirents_are_aligned(name: bytes) -> None:
    """Also with what LOOKUP would answer before them."""
    entry = message.entry(9, DAY, DAY, ATTR)
    for described in (b"", entry):
        packed = message.dirent(name, 1, 8, 101, described)
        start = len(described) + 24
        assert packed[: len(described)] == described
        assert wire.DIRENT.unpack_from(packed, len(described)) == (1, 101, len(name), 8)
        assert packed[start:].rstrip(b"\0") == name
        assert len(packed) % 8 == 0
        assert len(packed) - start - len(name) < 8


def test_headers_of_answers() -> None:
    assert message.refusal(7, errno.ENOENT) == struct.pack("=IiQ", 16, -errno.ENOENT, 7)
    assert message.notification(2, b"ab", b"cd") == struct.pack("=IiQ", 20, 2, 0) + b"abcd"
