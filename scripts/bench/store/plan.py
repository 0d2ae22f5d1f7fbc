"""What is measured, row by row: inputs, contenders, and the goals of each row."""

import os
import sys
from collections.abc import Callable, Mapping
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
    row_is_measured: Callable[[str], None]  # called with its name after each round of it

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
        self.row_is_measured(row)

    def inputs(self, trees: Path) -> list[Input]:
        """What is committed and unpacked, made once and copied (the large file: linked) to where each
        contender wants it.
        """
        content = inputs.pieces()
        inputs.small_files(trees / "small", self.sizes.files, content)
        inputs.big_file(trees / "big", self.sizes.big_mib, content)
        inputs.debian(trees / "debian")

        return [
            Input("small", f"{self.sizes.files:,} small files", partial(_copy, trees / "small")),
            Input("big", f"a file of {self.sizes.big_mib:,} MiB", partial(_link, trees / "big"), True),
            Input("debian", "Debian minbase", partial(_copy, trees / "debian")),
        ]

    def run(self) -> None:
        with fresh_disk(self.base, "disk", gib=48) as disk:
            if self.wants_any("commit,", "unpack"):
                chosen = self.inputs(disk / "trees")
                ours, rivals = self.prepared(chosen, disk)
                for number in range(self.rounds):
                    self.commit_rows(number, chosen, ours, rivals)
                for number in range(self.rounds):
                    self.unpack_rows(number, chosen, ours, disk)
            if self.wants_any("commit of one changed file"):
                self.one_changed_file(disk)
            if self.wants_any("push", "pull"):
                inputs.layout(disk / "layers", self.sizes)
                source = transfers.prepare(disk, disk / "layers")
                for number in range(self.rounds):
                    self.transfer_rows(number, source)

    def prepared(self, chosen: list[Input], disk: Path) -> tuple[Layerstore, Mapping[str, Contender]]:
        """Each contender with every tree in it."""
        places = {name: disk / name for name in (OURS, "buildah", "umoci")}
        ours = Layerstore(places[OURS])
        rivals: dict[str, Contender] = {
            "buildah": commits.Buildah(places["buildah"]),
            "umoci": commits.Umoci(places["umoci"]),
        }
        for place, contender in zip(places.values(), (ours, *rivals.values()), strict=True):
            place.mkdir()
            contender.prepare()
            for one in chosen:
                contender.add(one.name, one.fill)
        return ours, rivals

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

    def one_changed_file(self, disk: Path) -> None:
        row = f"commit of one changed file over {self.sizes.many:,}"
        inputs.tiny_files(disk / "many.tar", self.sizes.many)
        ours, umoci = Layerstore(disk / "many-ours"), commits.Umoci(disk / "many-umoci")
        for place in (ours.disk, umoci.disk):
            place.mkdir()
        sh(*ours.program, "import", disk / "many.tar", "base")
        sh("cp", "-a", ours.layout, umoci.disk / "oci")
        ours.add("many", _change_one)
        umoci.add("many", _change_one, image=said_by("umoci", "list", "--layout", umoci.disk / "oci"))
        for number in range(self.rounds):
            timed = {
                OURS: partial(_commit, ours, "many", "gzip", sized=False),
                "umoci": partial(_commit, umoci, "many", "gzip", sized=False),
            }
            self.measure(number, row, ONE_FILE, timed)

    def unpack_rows(self, number: int, chosen: list[Input], ours: Layerstore, disk: Path) -> None:
        """The images that are unpacked are ours of gzip: an archive, and for umoci our store's layout."""
        for one in chosen:
            row = f"unpack: {one.title}"
            if self.wants(row) and not (one.once and number):
                archive = ours.save(one.name, "gzip", disk / f"{one.name}.tar")
                image = f"{one.name}:gzip"
                timed = {
                    name: partial(self.unpack, work, archive, ours.layout, image)
                    for name, work in unpacks.CONTENDERS.items()
                }
                self.measure(number, row, UNPACK, timed)

    def unpack(self, work: unpacks.Unpack, archive: Path, layout: Path, image: str) -> Cost:
        with fresh_disk(self.base, "fresh") as fresh:
            return work(fresh, archive, layout, image)

    def transfer_rows(self, number: int, source: transfers.Source) -> None:
        size = f"{self.sizes.layers * self.sizes.layer_mib:,} MiB in {self.sizes.layers} layers"
        push, pull = f"push: {size}", f"pull: {size}"
        names = list(transfers.CONTENDERS)
        for name in names[number % 2 :] + names[: number % 2]:
            print(f"bench: round {number + 1}/{self.rounds}: push and pull: {name}", file=sys.stderr)
            with fresh_disk(self.base, "fresh") as fresh:
                pushed, pulled = transfers.CONTENDERS[name](fresh, source)
            self.results.add(push, TRANSFER, name, pushed)
            self.results.add(pull, TRANSFER, name, pulled)
        for row in (push, pull):
            self.row_is_measured(row)


def _commit(contender: Contender, name: str, how: str, *, sized: bool = True) -> Cost:
    """`sized`: the layer is of interest, and the largest file that was made."""
    cost = contender.commit(name, how)
    contender.forget(name, how)
    return cost if sized else replace(cost, result=0.0)


def _copy(tree: Path, top: Path) -> None:
    sh("cp", "-a", f"{tree}/.", top)


def _link(tree: Path, top: Path) -> None:
    """As `_copy`, with all contenders reading the very same file."""
    sh("cp", "-al", f"{tree}/.", top)


def _change_one(top: Path) -> None:
    """One file as a copy-up leaves it, then written to."""
    directory = top / "007"
    directory.mkdir(exist_ok=True)
    (directory / "file-7077").write_bytes(inputs.tiny_content(7077) + b"changed\n")
    os.utime(directory, (inputs.TINY_MTIME, inputs.TINY_MTIME))
