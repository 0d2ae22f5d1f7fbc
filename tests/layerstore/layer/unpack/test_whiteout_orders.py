"""A layer gives the same tree as with umoci, in whatever order its whiteouts and members come."""

import hashlib
import io
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from layerstore.errors import InvalidLayer
from layerstore.layer.stack import StackPaths
from layerstore.layer.write.commit import export_tree
from tests.layerstore.layer.oci_layout import write_layout
from tests.layerstore.layer.tars import END, directory, hard_link, member, paths, unpack
from tests.layerstore.layer.test_interop import needs, run
from tests.layerstore.layer.unpack import changesets
from tests.layerstore.layer.unpack.changesets import Node, Op, Refused
from tests.layerstore.layer.unpack.test_apply import is_opaque, is_whiteout

pytestmark = pytest.mark.root

BELOW = {
    "d": Node("d", 0o711, 5),
    "d/k": Node("f", 0o640, 6, b"k", 1),
    "d/s": Node("d", 0o700, 7),
    "d/s/t": Node("f", 0o600, 8, b"t", 2),
    "d/s/u": Node("d", 0o701, 8),
    "d/s/u/v": Node("f", 0o604, 9, b"v", 3),
    "e": Node("d", 0o710, 3),
    "e/k": Node("f", 0o641, 3, b"ek", 4),
    "l": Node("l", 0o777, 0, b"e"),
}
HIDING = [
    Op("w", "d"),
    Op("o", "d"),
    Op("w", "d/k"),
    Op("w", "d/s"),
    Op("o", "d/s"),
    Op("w", "d/s/t"),
    Op("w", "l/k"),
]
MAKING = [
    Op("d", "d", 0o750),
    Op("d", "d/s", 0o750),
    Op("d", "d/k", 0o750),
    Op("f", "d"),
    Op("f", "d/k"),
    Op("f", "d/n"),
    Op("f", "d/s"),
    Op("f", "d/s/n"),
    Op("f", "l/n"),
    Op("l", "d", target="e"),
    Op("h", "h", target="d/k"),
    Op("h", "h2", target="d/s/t"),
    Op("h", "h3", target="l/k"),
]
# Whiteouts in each other, stand-ins for what lies below, and members that make the layer's own of them.
DEEP = [
    Op("w", "d"),
    Op("o", "d"),
    Op("w", "d/s"),
    Op("o", "d/s"),
    Op("w", "d/s/t"),
    Op("f", "d/s/n"),
    MAKING[-2],
]

Ops = tuple[Op, ...]


def all_orders() -> Iterator[Ops]:
    yield from ((op,) for op in HIDING + MAKING)
    yield from itertools.permutations(HIDING + MAKING, 2)
    yield from itertools.permutations(DEEP, 3)


def outcomes() -> tuple[dict[str, tuple[Ops, dict[str, Node]]], list[Ops]]:
    """What becomes of each, by a name; and those that are refused."""
    good: dict[str, tuple[Ops, dict[str, Node]]] = {}
    refused = []
    for number, ops in enumerate(all_orders()):
        try:
            good[f"c{number}"] = (ops, changesets.applied(BELOW, ops))
        except Refused:
            refused.append(ops)
    return good, refused


def layers_of(cases: dict[str, tuple[Ops, dict[str, Node]]]) -> tuple[bytes, bytes]:
    """Two layers with every case in a directory of its own."""
    base = b"".join(changesets.tar_of(name, BELOW) for name in cases) + END
    top = b"".join(changesets.member_of(name, op) for name, (ops, _) in cases.items() for op in ops) + END
    return base, top


def shown(where: Path, tars: Sequence[bytes]) -> Path:
    """The tree that layers show together, bottom first."""
    lowers: list[bytes] = []
    for number, tar in enumerate(tars):
        unpack(tar, where / f"layer{number}", lowers=lowers)
        lowers.insert(0, os.fsencode(where / f"layer{number}"))
    flat = io.BytesIO()
    export_tree(StackPaths(lowers[0], tuple(lowers[1:])), flat)
    unpack(flat.getvalue(), where / "shown")
    return where / "shown"


def assert_as_expected(root: Path, cases: dict[str, tuple[Ops, dict[str, Node]]]) -> None:
    found = changesets.read(root)
    assert found.keys() == cases.keys()
    wrong = {
        " ".join(map(str, ops)): changesets.facts(found[name])
        for name, (ops, wanted) in cases.items()
        if changesets.facts(found[name]) != changesets.facts(wanted)
    }
    assert not wrong


@pytest.mark.slow
def test_every_order_gives_the_right_tree(where: Path) -> None:
    cases, refused = outcomes()
    assert len(cases) > 500
    assert_as_expected(shown(where, layers_of(cases)), cases)
    base = changesets.tar_of("c", BELOW) + END
    for number, ops in enumerate(refused):
        tar = b"".join(changesets.member_of("c", op) for op in ops) + END
        (where / f"r{number}").mkdir()
        with pytest.raises(InvalidLayer):
            shown(where / f"r{number}", (base, tar))


@pytest.mark.slow
def test_umoci_agrees(where: Path) -> None:
    """What the test above believes is what umoci does."""
    umoci = needs("umoci")
    cases, _ = outcomes()
    described = [(tar, "tar", f"sha256:{hashlib.sha256(tar).hexdigest()}") for tar in layers_of(cases)]
    layout = write_layout(where / "oci", described)
    run(umoci, "unpack", "--image", f"{layout}:latest", where / "bundle")
    assert_as_expected(where / "bundle/rootfs", cases)


D_AND_K = (
    directory(b"d/", 0o711, uid=5) + member(b"d/k", b"k") + directory(b"d/s/", 0o700) + member(b"d/s/t", b"t")
)
GONE = {
    "a child first": member(b"d/.wh.k") + member(b".wh.d"),
    "a child last": member(b".wh.d") + member(b"d/.wh.k"),
    "opaque first": member(b"d/.wh..wh..opq") + member(b".wh.d"),
    "opaque last": member(b".wh.d") + member(b"d/.wh..wh..opq"),
    "from the inside out": member(b"d/s/.wh.t") + member(b"d/.wh.s") + member(b".wh.d"),
    "from the inside, one left out": member(b"d/s/.wh.t") + member(b".wh.d"),
    "all opaque": member(b"d/s/.wh..wh..opq") + member(b"d/.wh..wh..opq") + member(b".wh.d"),
    "twice": member(b"d/.wh.k") + member(b".wh.d") + member(b"d/.wh.k") + member(b".wh.d"),
    "by an opaque root": member(b"d/.wh.k") + member(b".wh..wh..opq"),
    "after an opaque root": member(b".wh..wh..opq") + member(b"d/s/.wh.t"),
}


@pytest.mark.parametrize("case", GONE)
def test_a_deleted_directory_stays_deleted(where: Path, case: str) -> None:
    assert paths(shown(where, (D_AND_K + END, GONE[case] + END))) == []
    assert is_whiteout(where / "layer1/d")


def test_a_deleted_file_that_was_linked_to_stays_deleted(where: Path) -> None:
    """Its copy is in the layer for the link's sake only."""
    tar = hard_link(b"h", b"d/k") + hard_link(b"i", b"d/s/t") + member(b"d/.wh.k") + member(b".wh.d") + END
    root = shown(where, (D_AND_K + END, tar))
    assert paths(root) == ["h", "i"]
    assert (root / "h").stat().st_nlink == 1
    with pytest.raises(InvalidLayer, match="h: a hard link to /d/k, which does not exist"):
        unpack(member(b"d/.wh..wh..opq") + hard_link(b"h", b"d/k") + END, where / "o", lowers=[lower(where)])


def lower(where: Path) -> bytes:
    return os.fsencode(where / "layer0")


def test_a_whiteout_makes_nothing_where_there_is_nothing(where: Path) -> None:
    base = D_AND_K + member(b"f", b"file") + END
    tar = (
        member(b"none/.wh.x")
        + member(b"none2/.wh..wh..opq")
        + member(b"f/.wh.x")
        + member(b"d/k/.wh..wh..opq")
    )
    assert paths(shown(where, (base, tar + END))) == ["d", "d/k", "d/s", "d/s/t", "f"]


def test_a_directory_made_again_shows_nothing_of_the_old_one(where: Path) -> None:
    """A file in between, or what another member had replaced, hides what lies below too."""
    tar = member(b"d", b"file") + directory(b"d/", 0o700) + member(b"d/new") + END
    assert paths(shown(where, (D_AND_K + END, tar))) == ["d", "d/new"]
    assert is_opaque(where / "layer1/d")


def test_implied_directories_in_what_is_hidden_are_plain(where: Path) -> None:
    """Modes and owners of what the layer itself deletes do not come back."""
    for number, hiding in enumerate((member(b"d/.wh..wh..opq"), member(b".wh.d"), member(b".wh..wh..opq"))):
        here = where / str(number)
        here.mkdir()
        root = shown(here, (D_AND_K + END, hiding + member(b"d/s/new") + END))
        assert paths(root) == ["d", "d/s", "d/s/new"]
        assert (root / "d/s").stat().st_mode & 0o777 == 0o755


def test_an_opaque_root_by_another_name(where: Path) -> None:
    base = D_AND_K + member(b"up", kind=b"2", link=b"/", mode=0o777) + END
    assert paths(shown(where, (base, member(b"up/.wh..wh..opq") + END))) == []
    assert os.listxattr(where / "layer1") == []


def test_paths_lead_through_symlinks_of_the_layers_below(where: Path) -> None:
    """As in a chroot, and as through those of the same layer: what a merged-/usr base has is not replaced."""
    base = directory(b"usr/", 0o750) + directory(b"usr/lib/", 0o700, uid=3) + member(b"usr/lib/a", b"a")
    base += member(b"usr/lib/b", b"b") + member(b"lib", kind=b"2", link=b"usr/lib", mode=0o777) + END
    tar = member(b"lib/x", b"x") + member(b"lib/.wh.a") + hard_link(b"h", b"lib/b") + END
    root = shown(where, (base, tar))
    assert paths(root) == ["h", "lib", "usr", "usr/lib", "usr/lib/b", "usr/lib/x"]
    assert os.readlink(root / "lib") == "usr/lib"
    assert (root / "usr/lib").stat().st_uid == 3
    assert (root / "h").samefile(root / "usr/lib/b")
    (where / "2").mkdir()
    root = shown(where / "2", (base, directory(b"lib/") + member(b"lib/x", b"x") + END))
    assert not (root / "lib").is_symlink()
