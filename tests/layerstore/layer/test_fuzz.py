"""Random and hostile tars: no exception but the package's own, nothing outside the root, and what was
unpacked can be committed and unpacked again to the same tree.
"""

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerstore.errors import LayerstoreError
from layerstore.layer.stack import StackPaths
from layerstore.layer.write.commit import write_layer
from layerstore.limits import Limits
from tests import snapshots
from tests.layerstore.layer.tars import END, member, pax, unpack
from tests.layerstore.layer.write.kernel_mounts import tree_of

pytestmark = pytest.mark.root

LIMITS = Limits(max_bytes=1 << 22, max_file_size=1 << 22, max_entries=2000, ratio_floor=1 << 22)
FUZZ = settings(deadline=None, suppress_health_check=list(HealthCheck))


@contextmanager
def beside_a_canary() -> Iterator[Path]:
    """A directory for a root, next to a tree that must stay as it is."""
    with tempfile.TemporaryDirectory(prefix="layer-fuzz-") as name:
        where = Path(name)
        (where / "outside").mkdir()
        (where / "outside/f").write_bytes(b"alive")
        before = outside(where)
        yield where
        assert outside(where) == before
        assert set(os.listdir(where)) <= {"outside", "root", "again"}
        for left in ("root", "again"):
            shutil.rmtree(where / left, ignore_errors=True)


def outside(where: Path) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    for path in (where / "outside", where / "outside/f"):
        st_ = os.lstat(path)
        found.append((st_.st_mode, st_.st_uid, st_.st_nlink, st_.st_mtime_ns, st_.st_ctime_ns, st_.st_size))
    return found


# Few names, so that members meet: each is file here and directory there, a link, a whiteout, a way out.
steps = st.sampled_from(
    [b"a", b"b", b"c", b"..", b".", b".wh.a", b".wh.b", b".wh..wh..opq", b"x" * 60, b"\xff"]
)
paths = st.lists(steps, min_size=1, max_size=4).map(b"/".join)
odd_paths = st.one_of(
    paths, paths.map(b"/".__add__), paths.map(b"../".__add__), paths.map(lambda p: p + b"/")
)
targets = st.one_of(
    odd_paths, st.sampled_from([b"../outside", b"../../outside/f", b"/", b"..", b"a/../b", b""])
)
kinds = st.sampled_from([b"0", b"0", b"0", b"1", b"1", b"2", b"2", b"3", b"5", b"5", b"6", b"7", b"\0"])


@st.composite
def members(draw: st.DrawFn) -> bytes:
    head = b""
    if draw(st.integers(0, 5)) == 0:
        key = draw(
            st.sampled_from(
                [b"path", b"linkpath", b"SCHILY.xattr.user.a", b"SCHILY.xattr.trusted.overlay.opaque"]
            )
        )
        head = pax({key: draw(targets) or b"v"})
    kind = draw(kinds)
    data = draw(st.binary(max_size=20)) if kind in (b"0", b"7") else b""
    mode = draw(st.sampled_from([0o644, 0o755, 0, 0o7777, 0o40755]))
    device = (draw(st.integers(0, 1)), draw(st.integers(0, 3)))
    return head + member(
        draw(odd_paths)[:100],
        data,
        kind=kind,
        link=draw(targets)[:100],
        mode=mode,
        device=device,
        mtime=draw(st.integers(0, 99)),
    )


def committed_again(root: Path, again: Path) -> None:
    """The unpacked layer as an upper: committed and unpacked, it is the same."""
    out = io.BytesIO()
    write_layer(StackPaths(os.fsencode(root)), out, compression="none")
    unpack(out.getvalue(), again)
    assert not snapshots.differences(stable(root), stable(again), ("unpacked", "again"))


def stable(root: Path) -> dict[bytes, snapshots.Facts]:
    """Without the times of whiteouts, which mean nothing, and are those of unpacking."""
    tree = tree_of(root)
    for facts in tree.values():
        if facts["type"] == "c" and facts["rdev"] == 0:
            facts["mtime"] = 0
    return tree


def check(tar: bytes) -> None:
    with beside_a_canary() as where:
        try:
            unpack(tar, where / "root", limits=LIMITS)
        except LayerstoreError as error:
            message = str(error)
        else:
            message = ""
            committed_again(where / "root", where / "again")
        assert "\n" not in message


@settings(FUZZ, max_examples=250)
@given(st.lists(members(), max_size=12))
def test_hostile_members(tars: list[bytes]) -> None:
    check(b"".join(tars) + END)


@settings(FUZZ, max_examples=120)
@given(st.lists(members(), min_size=1, max_size=5), st.data())
def test_damaged_tars(tars: list[bytes], data: st.DataObject) -> None:
    """Bits flipped, pieces cut out or doubled; checksums are made right again half of the time."""
    tar = bytearray(b"".join(tars) + END)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(tar) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                tar[at] = data.draw(st.integers(0, 255))
            case 1:
                del tar[at : at + data.draw(st.sampled_from([1, 512, 700]))]
            case _:
                tar[at:at] = tar[max(0, at - 512) : at]
        if not tar:
            return
    if data.draw(st.booleans()):
        for start in range(0, len(tar) - 511, 512):
            if tar[start + 257 : start + 262] == b"ustar":
                tar[start + 148 : start + 156] = b" " * 8
                tar[start + 148 : start + 156] = b"%06o\0 " % sum(tar[start : start + 512])
    check(bytes(tar))


@settings(FUZZ, max_examples=100)
@given(st.binary(max_size=3000))
def test_noise(noise: bytes) -> None:
    check(noise)


@pytest.mark.fuzz
@settings(FUZZ, max_examples=100_000)
@given(st.lists(members(), max_size=30))
def test_hostile_members_long(tars: list[bytes]) -> None:
    check(b"".join(tars) + END)
