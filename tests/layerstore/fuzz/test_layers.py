"""Hostile layer tars into an empty directory, over a lower layer, and a second one into the same."""

import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from layerstore.errors import LayerstoreError
from layerstore.layer.stack import StackPaths
from layerstore.layer.unpack.apply import apply_layer
from layerstore.layer.write.commit import write_layer
from layerstore.limits import GIB, KIB, MIB, Limits
from overlayfs_py.syscalls.trees import remove_tree
from tests import snapshots
from tests.layerstore.commands import ROOTFS, tarball
from tests.layerstore.fuzz.judge import Judge, judge_tree
from tests.layerstore.fuzz.seeds import SHORT, seeds
from tests.layerstore.fuzz.tar_material import Member, hostile_layer, real_tars, taken_apart
from tests.layerstore.layer.tars import unpack
from tests.layerstore.layer.write.kernel_mounts import tree_of
from tests.mounts import scratch

pytestmark = pytest.mark.root

LIMITS = Limits(
    max_bytes=64 * MIB,
    max_ratio=500,
    ratio_floor=16 * MIB,
    max_entries=3000,
    max_file_size=8 * GIB,
    max_pax=256 * KIB,
    max_sparse_extents=5000,
    max_window=8 * MIB,
)


class Range:
    """Cases over one corpus and one lower layer."""

    def __init__(self, judge: Judge, corpus: list[list[Member]]) -> None:
        self.judge = judge
        self.lower = judge.where / "lower"
        self._corpus = corpus
        unpack(
            tarball({**ROOTFS, "d": None, "d/e": None, "d/e/deep": b"1", "h": "usr", "b": b"b"}), self.lower
        )
        judge.watched.append(self.lower)

    def run(self, seed: int) -> None:
        rng = Random(seed)
        tars = [hostile_layer(rng, self._corpus) for _ in range(rng.choice([1, 1, 1, 2]))]
        with self.judge.case(seed, b"".join(tars)):
            try:
                is_plain = rng.random() < 0.8
                for tar in tars:
                    self._apply(rng, tar, is_plain=is_plain)
                levels = judge_tree(self.judge.place)
                # Not the deepest ones: what compares trees here recurses.
                if is_plain and levels < 300 and len(tars) == 1 and rng.random() < 0.3:
                    self._commit_again()
            finally:
                remove_tree(os.fsencode(self.judge.place))
                self.judge.place.mkdir()

    def _apply(self, rng: Random, tar: bytes, *, is_plain: bool) -> None:
        lowers = [os.fsencode(self.lower)] if rng.random() < 0.4 else []
        fd = os.open(self.judge.place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            result = apply_layer(
                io.BytesIO(tar),
                fd,
                lowers=lowers,
                limits=LIMITS,
                privileged=is_plain,
                userxattr=not is_plain,
            )
            self.judge.remarks.lines += result.notes
        finally:
            os.close(fd)

    def _commit_again(self) -> None:
        """What was unpacked is an upper like any other: its layer unpacks to the same."""
        out, again = io.BytesIO(), self.judge.where / "again"
        try:
            write_layer(StackPaths(os.fsencode(self.judge.place)), out, compression="none")
        except LayerstoreError:
            return  # such as an xattr that no tar can hold: said, not lost
        try:
            unpack(out.getvalue(), again)
            found = snapshots.differences(_stable(self.judge.place), _stable(again), ("unpacked", "again"))
            assert not found, found
        finally:
            remove_tree(os.fsencode(again))


def _stable(root: Path) -> dict[bytes, snapshots.Facts]:
    """Without whiteouts' times, which mean nothing, and whiteouts where an opaque directory hides all."""
    tree = tree_of(root)
    for path, facts in list(tree.items()):
        if facts["type"] == "c" and facts["rdev"] == 0:
            facts["mtime"] = 0
            if _is_opaque(os.path.dirname(os.path.join(os.fsencode(root), path))):
                del tree[path]
    return tree


def _is_opaque(directory: bytes) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(directory, follow_symlinks=False)


@contextmanager
def a_range(ground: Path) -> Iterator[Range]:
    with scratch(under=ground) as where:
        corpus = [taken_apart(tar) for tar in real_tars(where)]
        remove_tree(os.fsencode(where / "tree"))
        judge = Judge(where / "range")
        judge.where.mkdir()
        judge.prepare()
        home, temp = os.getcwd(), tempfile.tempdir
        os.chdir(judge.where / "cwd")
        tempfile.tempdir = str(judge.where / "tmp")
        try:
            yield Range(judge, corpus)
        finally:
            tempfile.tempdir = temp
            os.chdir(home)
        print(judge.report())


def run(ground: Path, cases: Iterable[int]) -> Judge:
    with a_range(ground) as around:
        for seed in cases:
            around.run(seed)
        return around.judge


def test_short(ground: Path) -> None:
    judge = run(ground, SHORT)
    assert judge.outcomes["taken"] > len(SHORT) / 20, "hardly anything is unpacked: the cases are too wild"
    assert judge.outcomes["InvalidLayer"] > len(SHORT) / 20


@pytest.mark.fuzz
@pytest.mark.timeout(0)
def test_long(ground: Path) -> None:
    """New cases until the time is over."""
    run(ground, seeds(0.45))
