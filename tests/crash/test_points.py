"""kill -9 on entering a system call of one operation: the tree is the old or the new one, whole."""

import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import snapshots, trees
from tests.crash.killing import Moment, killed_at, recorded, view, views_after
from tests.crash.points import POINTS, Point
from tests.mounts import KernelMount, Layers, OverlayMount, flavours, make_layers, scratch
from tests.oracle.operations import Operation
from tests.oracle.workers import USERS, Worker

pytestmark = [
    pytest.mark.root,
    pytest.mark.fuse,
    pytest.mark.engine,
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]

# At how many of an operation's system calls it dies in `make test`, each flavour at others; 0 takes all.
ROUNDS = int(os.environ.get("CRASH_ROUNDS", "2"))
SEED = int(os.environ.get("CRASH_SEED", "1"))

View = dict[bytes, snapshots.Facts]


class Scene:
    """One crash point on one engine, with a worker that does the operations."""

    def __init__(self, where: Path, point: Point, engine: str) -> None:
        self.where = where
        self.point = point
        self.engine = engine
        self.worker = Worker(USERS[0])
        self.survived = 0  # plays in which the moment did not come

    def fresh(self, name: str) -> Layers:
        """Layers in which everything before the operation is done."""
        where = self.where / name
        where.mkdir()
        where.chmod(0o755)
        layers = make_layers(where)
        trees.build(layers.lowers[0], self.point.lower)
        if self.point.before:
            with self._mount(layers) as mount:
                self._do(mount, self.point.before)
        return layers

    def _mount(self, layers: Layers) -> OverlayMount:
        return OverlayMount(layers, self.point.options, engine=self.engine)

    def _do(self, mount: OverlayMount, operations: Sequence[Operation]) -> None:
        self.worker.attach(mount.root)
        for _user, name, *arguments in operations:
            assert self.worker.run(str(name), tuple(arguments))[0] == "ok"
        self.worker.attach(None)

    def rehearse(self) -> tuple[list[View], list[Moment]]:
        """The old and the new tree as the kernel shows them, and the moments to die in between."""
        old = self._kernels_view(self.fresh("old"))
        layers, moments = self.fresh("rehearsal"), list[Moment]()
        with self._mount(layers) as mount:
            assert mount.process is not None
            with recorded(mount.process.pid, self.where / "strace", moments):
                self._do(mount, [self.point.operation])
        return [old, self._kernels_view(layers)], moments

    def _kernels_view(self, layers: Layers) -> View:
        with KernelMount(layers, self.point.options) as kernel:
            return self._comparable(view(kernel.root))

    def _comparable(self, seen: View) -> View:
        if self.point.counted:
            return seen
        return {path: {**facts, "nlink": None} for path, facts in seen.items()}

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        """A play may need a reply less than its rehearsal: if the moment does not come, it dies later."""
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            self.survived += 1
            process.kill()
            process.wait(20)

    def die(self, number: int, moment: Moment) -> list[View]:
        """Die at the moment; the tree afterwards by ours and by the kernel."""
        layers = self.fresh(str(number))
        with self._mount(layers) as mount:
            assert mount.process is not None
            with killed_at(mount.process.pid, moment):
                self.worker.attach(mount.root)
                _user, name, *arguments = self.point.operation
                self.worker.run(str(name), tuple(arguments))
                self.worker.attach(None)
            self._end(mount.process)
            mount.clear()
        return [self._comparable(seen) for seen in views_after(layers, self.point.options, self.engine)]


def _judge(scene: Scene, number: int, moment: Moment, allowed: list[View]) -> None:
    for name, seen in zip(("ours", "the kernel"), scene.die(number, moment), strict=True):
        if seen in allowed:
            continue
        found = [
            snapshots.differences(state, seen, (what, name))
            for state, what in zip(allowed, ("old", "new"), strict=True)
        ]
        raise AssertionError(f"dead at {moment}, neither old nor new by {name}: {found}")


def _chosen(name: str, engine: str, rounds: int, count: int) -> list[int]:
    """`rounds` numbers below `count`, or each; another flavour gets others, as long as there are enough."""
    numbers = random.Random(f"{SEED} {name}").sample(range(count), count)
    first = flavours().index(engine) * rounds
    return sorted({numbers[(first + turn) % count] for turn in range(rounds or count)})


def _play(engine: str, ground: Path, name: str, rounds: int) -> None:
    """Rehearse, then die at `rounds` of the moments, or at each."""
    with scratch(under=ground) as where:
        scene = Scene(where, POINTS[name], engine)
        try:
            allowed, moments = scene.rehearse()
            print(f"{name}: {len(moments)} moments: {' '.join(moment.syscall for moment in moments)}")
            assert moments
            chosen = _chosen(name, engine, rounds, len(moments))
            for number in chosen:
                _judge(scene, number, moments[number], allowed)
            assert scene.survived < max(3, len(chosen)), "no play was the rehearsed one"
        finally:
            scene.worker.stop()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", POINTS)
def test_dies_at_a_system_call(engine: str, ground: Path, name: str) -> None:
    """Old or new, by ours and by the kernel, with nothing left behind."""
    _play(engine, ground, name, ROUNDS)


@pytest.mark.fuzz
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", POINTS)
def test_dies_at_every_system_call(engine: str, ground: Path, name: str) -> None:
    """The same for each of them."""
    _play(engine, ground, name, 0)
