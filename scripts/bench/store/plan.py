"""What is measured, row by row: inputs, contenders, and the goals of each row."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from stage import settle, sh

from store import commits, inputs, transfers, unpacks
from store.commits import Contender, Layerstore
from store.inputs import Sizes
from store.measure import Cost, fresh_disk, said_by
from store.results import Goal, Results

OURS = "layerstore"
Timed = Mapping[str, Callable[[], Cost]]  # contender -> one measured run

GZIP = Goal(OURS, ("buildah", "umoci"), 0.6)
ZSTD = Goal(OURS, ("tar, zstd",), 1.1)
NONE = Goal(OURS, ("tar, sha256sum",), 1.2)
ONE_FILE = Goal(OURS, ("umoci",), 0.1, seconds=0.5)
UNPACK = Goal(OURS, ("umoci", "podman"), 0.8)
TRANSFER = Goal(OURS, ("skopeo",), 1.0)


@dataclass(frozen=True)
class Input:
    """A tree to commit and unpack; `once`: it takes long, and is measured in the first round only."""

    name: str
    title: str
    fill: Callable[[Path], None]
    once: bool = False


@dataclass
class Bench:
    base: Path
    sizes: Sizes
    rounds: int
    only: str
    results: Results

    def wants(self, row: str) -> bool:
        return self.only in row

    def wants_any(self, *kinds: str) -> bool:
        """Whether rows whose names begin so may be wanted: `only` may say more than the beginning."""
        return any(self.only in kind or self.only.startswith(kind) for kind in kinds)

    def measure(self, number: int, row: str, goal: Goal, timed: Timed) -> None:
        """All contenders of a row, beginning with another one each round."""
        names = list(timed)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            print(f"bench: round {number + 1}/{self.rounds}: {row}: {name}", file=sys.stderr)
            settle()
            self.results.add(row, goal, name, timed[name]())

    def inputs(self, trees: Path) -> list[Input]:
        """What is committed and unpacked, made once and copied to where each contender wants it."""
        content = inputs.pieces()
        inputs.small_files(trees / "small", self.sizes.files, content)
        inputs.big_file(trees / "big", self.sizes.big_mib, content)
        inputs.debian(trees / "debian")

        return [
            Input("small", f"{self.sizes.files:,} small files", partial(_copy, trees / "small")),
            Input("big", f"a file of {self.sizes.big_mib:,} MiB", partial(_copy, trees / "big"), True),
            Input("debian", "Debian minbase", partial(_copy, trees / "debian")),
        ]

    def run(self) -> None:
        with fresh_disk(self.base, "inputs") as disk:
            chosen = []
            if self.wants_any("commit,", "unpack"):
                chosen = self.inputs(disk)
                with self.prepared(chosen) as (ours, rivals):
                    for number in range(self.rounds):
                        self.commit_rows(number, chosen, ours, rivals)
                    self.export(chosen, ours, disk)
            if self.wants_any("commit of one changed file"):
                self.one_changed_file(disk)
            for number in range(self.rounds):
                self.unpack_rows(number, chosen, disk)
            if self.wants_any("push", "pull"):
                inputs.layout(disk / "layers", self.sizes)
                for number in range(self.rounds):
                    self.transfer_rows(number, disk / "layers")

    @contextmanager
    def prepared(self, chosen: list[Input]) -> Iterator[tuple[Layerstore, Mapping[str, Contender]]]:
        """Each contender on a disk of its own, with every tree in it."""
        with ExitStack() as stack:
            disks = [stack.enter_context(fresh_disk(self.base, name)) for name in (OURS, "buildah", "umoci")]
            ours = Layerstore(disks[0])
            rivals: dict[str, Contender] = {
                "buildah": commits.Buildah(disks[1]),
                "umoci": commits.Umoci(disks[2]),
            }
            everybody: list[Contender] = [ours, *rivals.values()]
            for contender in everybody:
                contender.prepare()
                for one in chosen:
                    contender.add(one.name, one.fill)
            yield ours, rivals

    def commit_rows(
        self, number: int, chosen: list[Input], ours: Layerstore, rivals: Mapping[str, Contender]
    ) -> None:
        out = ours.disk / "out"
        for one in chosen:
            if one.once and number:
                continue
            tree = ours.upper(one.name)
            zipped = {name: partial(_commit, each, one.name, "gzip") for name, each in rivals.items()}
            others: dict[str, tuple[Goal, Timed]] = {
                "gzip": (GZIP, zipped),
                "zstd": (ZSTD, {"tar, zstd": partial(commits.tar_and_zstd, tree, out)}),
                "none": (NONE, {"tar, sha256sum": partial(commits.tar_and_sum, tree, out)}),
            }
            for compression, (goal, timed) in others.items():
                row = f"commit, {compression}: {one.title}"
                mine = {OURS: partial(_commit, ours, one.name, compression)}
                if self.wants(row):
                    self.measure(number, row, goal, {**mine, **timed})

    def export(self, chosen: list[Input], ours: Layerstore, disk: Path) -> None:
        """The images that are unpacked: the same gzip layer for all, as an archive and as a layout."""
        for one in chosen:
            sh(*ours.program, "commit", "-q", one.name, f"{one.name}:1")
            archive, layout = disk / f"{one.name}.tar", disk / f"layout-{one.name}"
            sh(*ours.program, "save", "-q", "--format", "oci", "-o", archive, f"{one.name}:1")
            layout.mkdir()
            sh("tar", "-C", layout, "-xf", archive)

    def one_changed_file(self, disk: Path) -> None:
        row = f"commit of one changed file over {self.sizes.many:,}"
        inputs.tiny_files(disk / "many", self.sizes.many)
        sh("tar", "-C", disk / "many", "-cf", disk / "many.tar", ".")
        with fresh_disk(self.base, "many-ours") as one, fresh_disk(self.base, "many-umoci") as other:
            ours, umoci = Layerstore(one), commits.Umoci(other)
            sh(*ours.program, "import", disk / "many.tar", "base")
            sh(*ours.program, "save", "-q", "--format", "oci", "-o", disk / "many-oci.tar", "base")
            (other / "oci").mkdir()
            sh("tar", "-C", other / "oci", "-xf", disk / "many-oci.tar")
            change = partial(_change_one, disk / "many")
            ours.add("many", change)
            tag = said_by("umoci", "list", "--layout", other / "oci").split()[0]
            umoci.add("many", change, image=tag)
            for number in range(self.rounds):
                timed = {
                    OURS: partial(_commit, ours, "many", "gzip", sized=False),
                    "umoci": partial(_commit, umoci, "many", "gzip", sized=False),
                }
                self.measure(number, row, ONE_FILE, timed)

    def unpack_rows(self, number: int, chosen: list[Input], disk: Path) -> None:
        for one in chosen:
            row = f"unpack: {one.title}"
            if self.wants(row) and not (one.once and number):
                timed = {
                    name: partial(self.unpack, work, one, disk) for name, work in unpacks.CONTENDERS.items()
                }
                self.measure(number, row, UNPACK, timed)

    def unpack(self, work: unpacks.Unpack, one: Input, disk: Path) -> Cost:
        with fresh_disk(self.base, "fresh") as fresh:
            return work(fresh, disk / f"{one.name}.tar", disk / f"layout-{one.name}", f"{one.name}:1")

    def transfer_rows(self, number: int, layout: Path) -> None:
        names = list(transfers.CONTENDERS)
        for name in names[number % 2 :] + names[: number % 2]:
            print(f"bench: round {number + 1}/{self.rounds}: push and pull: {name}", file=sys.stderr)
            with fresh_disk(self.base, "fresh") as fresh:
                pushed, pulled = transfers.CONTENDERS[name](fresh, layout)
            size = f"{self.sizes.layers * self.sizes.layer_mib:,} MiB in {self.sizes.layers} layers"
            self.results.add(f"push: {size}", TRANSFER, name, pushed)
            self.results.add(f"pull: {size}", TRANSFER, name, pulled)


def _commit(contender: Contender, name: str, how: str, *, sized: bool = True) -> Cost:
    """`sized`: the new layer is the largest file there, so that its size is known."""
    cost = contender.commit(name, how)
    contender.forget(name, how)
    return cost if sized else replace(cost, result=0.0)


def _copy(tree: Path, top: Path) -> None:
    sh("cp", "-a", f"{tree}/.", top)


def _change_one(original: Path, top: Path) -> None:
    """One file as a copy-up leaves it, then written to."""
    (top / "007").mkdir(exist_ok=True)
    shutil.copystat(original / "007", top / "007")
    shutil.copy2(original / "007/file-7077", top / "007/file-7077")
    with open(top / "007/file-7077", "a") as file:
        file.write("changed\n")
