"""Hostile documents: parsed alone, in archives that are loaded, and in a layout that others wrote to."""

import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

import layerstore
from layerstore import model
from layerstore.errors import LayerstoreError
from layerstore.store.store import Store
from overlayfs_py.syscalls.trees import remove_tree
from tests.layerstore.archives import pack
from tests.layerstore.commands import contents
from tests.layerstore.fuzz import json_material as material
from tests.layerstore.fuzz.judge import Judge
from tests.layerstore.fuzz.seeds import SHORT, seeds
from tests.layerstore.fuzz.tar_material import (
    COMPRESSIONS,
    change_header,
    damaged,
    hostile_layer,
    own_members,
    taken_apart,
)
from tests.layerstore.layer.tars import END
from tests.mounts import scratch

pytestmark = pytest.mark.root

Case = Callable[[Judge, int], None]
CORPUS = [own_members()]


@contextmanager
def a_judge(ground: Path) -> Iterator[Judge]:
    with scratch(under=ground) as where:
        judge = Judge(where)
        judge.prepare()
        log = logging.getLogger("layerstore")
        log.addHandler(judge.remarks)
        log.propagate = False
        try:
            yield judge
        finally:
            log.removeHandler(judge.remarks)
            log.propagate = True
        print(judge.report())


def run(ground: Path, case: Case, cases: Iterable[int]) -> None:
    with a_judge(ground) as judge:
        Store.open(judge.place)  # not within a case: imports take memory and descriptors
        for seed in cases:
            case(judge, seed)


def parse(judge: Judge, seed: int) -> None:
    """One document by its parser."""
    rng = Random(seed)
    config = material.config_document()
    raw = material.written(rng, config)
    documents = [config, material.manifest_document(raw), material.index_document(raw)]
    data = material.written(rng, material.changed(rng, rng.choice(documents), rng.choice([1, 2, 5])), raw=0.3)
    with judge.case(seed, data):
        refusals = 0
        for parser in (model.parse_config, model.parse_manifest, model.parse_index, model.parse_document):
            try:
                model.encode(parser(data))
            except LayerstoreError as error:
                refusals += 1
                last = error
        if refusals == 4:
            raise last


def hostile_archive(rng: Random) -> bytes:
    files = material.hostile_layout(rng) if rng.random() < 0.7 else material.hostile_docker(rng)
    archive = pack(files)
    if rng.random() < 0.15:
        members = taken_apart(archive)
        at = rng.randrange(len(members))
        members[at] = change_header(rng, members[at])
        archive = b"".join(members) + END
    if rng.random() < 0.1:
        archive = damaged(rng, archive)
    return rng.choice(COMPRESSIONS)(archive) if rng.random() < 0.1 else archive


def bring(judge: Judge, seed: int) -> None:
    """A hostile layer by `import`: refused without a trace, or an image that can be used."""
    rng = Random(seed)
    tar = hostile_layer(rng, CORPUS)
    root = judge.place
    layerstore.prune(all_images=True, workspaces=True, root=root)
    before = contents(root)
    with judge.case(seed, tar):
        try:
            image = layerstore.import_(io.BytesIO(tar), root=root)
            if rng.random() < 0.3:
                use(root, image)
        finally:
            layerstore.prune(all_images=True, workspaces=True, root=root)
            left = sorted(set(contents(root)) ^ set(before))
            assert not left, f"left in the store or missing from it: {left}"


def load(judge: Judge, seed: int) -> None:
    """An archive is refused and leaves nothing, or its image is used by every verb, then goes away whole."""
    rng = Random(seed)
    archive = hostile_archive(rng)
    root = judge.place
    layerstore.prune(all_images=True, workspaces=True, root=root)
    before = contents(root)
    with judge.case(seed, archive):
        try:
            loaded = layerstore.load(io.BytesIO(archive), root=root)
            for one in loaded:
                use(root, one.reference or one.image_id)
        finally:
            layerstore.prune(all_images=True, workspaces=True, root=root)
            left = sorted(set(contents(root)) ^ set(before))
            assert not left, f"left in the store or missing from it: {left}"


def use(root: Path, image: str) -> None:
    """Whatever one does with an image; a refusal ends it."""
    layerstore.images(root=root)
    layerstore.history(image, root=root)
    layerstore.inspect(image, root=root)
    layerstore.save([image], io.BytesIO(), root=root)
    layerstore.diff(image, image, root=root)
    name = layerstore.create(image, root=root)
    layerstore.ps(root=root)
    layerstore.inspect(name, root=root)
    layerstore.commit(name, "again:1", message="m", changes=["ENV B=2", "LABEL c=d", "EXPOSE 81"], root=root)
    layerstore.inspect("again:1", root=root)
    layerstore.export(name, io.BytesIO(), root=root)
    layerstore.rm(name, root=root)
    layerstore.fsck(quick=True, root=root)


def beside(judge: Judge, seed: int) -> None:
    """A layout that other tools wrote to: each verb works or refuses, and none follows what leads out."""
    rng = Random(seed)
    files = material.hostile_layout(rng)
    root = judge.place
    with judge.case(seed, pack(files)):
        try:
            if rng.random() < 0.3:
                _replace(rng, judge, files)
            for name, data in files.items():
                path = root / "oci" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if not os.path.lexists(path) or name in ("index.json", "oci-layout"):
                    path.unlink(missing_ok=True)
                    path.write_bytes(data)
            _every_verb(rng, root)
        finally:
            remove_tree(os.fsencode(root))
            root.mkdir()
            Store.open(root)


def _replace(rng: Random, judge: Judge, files: dict[str, bytes]) -> None:
    """Something that is no file in the place of one, or a link to the canary."""
    name = rng.choice([*files])
    files.pop(name)
    path = judge.place / "oci" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    what = rng.randrange(4)
    if what == 0:
        path.symlink_to(judge.where / "outside/f")
    elif what == 1:
        os.mkfifo(path)
    elif what == 2:
        path.mkdir()
    else:
        os.mknod(path, 0o020600, os.makedev(1, 5))  # /dev/zero


def _every_verb(rng: Random, root: Path) -> None:
    """All of them, whatever the others say; the last refusal is the case's."""
    last: Exception | None = None
    verbs: list[Callable[[], object]] = [
        lambda: layerstore.images(root=root),
        lambda: use(root, "oci:1"),
        lambda: layerstore.df(root=root),
        lambda: layerstore.tag("oci:1", "other:1", root=root),
        lambda: layerstore.rmi("oci:1", root=root),
        lambda: layerstore.fsck(root=root),
        lambda: layerstore.prune(root=root),
        lambda: layerstore.fsck(repair=True, root=root),
        lambda: layerstore.load(io.BytesIO(pack({})), root=root),
    ]
    for verb in rng.sample(verbs, len(verbs)):
        try:
            verb()
        except (LayerstoreError, OSError) as error:
            last = error
    if last is not None:
        raise last


# Kind -> what runs it, and its part of the time.
CASES: dict[str, tuple[Case, float]] = {
    "parse": (parse, 0.05),
    "load": (load, 0.2),
    "bring": (bring, 0.15),
    "beside": (beside, 0.15),
}


@pytest.mark.parametrize("kind", CASES)
def test_short(ground: Path, kind: str) -> None:
    run(ground, CASES[kind][0], SHORT if kind == "parse" else SHORT[:40])


@pytest.mark.fuzz
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", CASES)
def test_long(ground: Path, kind: str) -> None:
    """New cases until the time is over."""
    case, share = CASES[kind]
    run(ground, case, seeds(share))
