"""kill -9 at every change a verb makes: no broken image, a clean fsck, and not one byte that prune leaves."""

import io
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

import layerstore
from layerstore.store import index, partials, sweep
from layerstore.store.store import Store
from layerstore.workspace import mounting
from layerstore.workspace.record import open_workspace
from layerstore.workspace.uses import kept_for_workspaces
from tests.layerstore.commands import ROOTFS, contents, tarball
from tests.layerstore.dying import die_in, moments_of
from tests.layerstore.transport.samples import FAST
from tests.layerstore.transport.servers import docker_registry, needs_registry
from tests.mounts import scratch

ROUNDS = 12
Verb = Callable[[Path], object]


@dataclass(frozen=True)
class Ground:
    """Everything to start from: a store, what `import` and `load` read, a registry."""

    store: Path
    tar: bytes
    archive: bytes
    host: str


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    """``base:1``; ``base:2`` of a workspace over it, ``w``, which has changed since; a nameless image."""
    with scratch() as where, docker_registry(where) as host:
        store = where / "store"
        layerstore.import_(io.BytesIO(tarball({"gone": b"x" * 3000})), "base:1", root=store)
        layerstore.import_(io.BytesIO(tarball(ROOTFS, "w:gz")), "base:1", root=store)
        layerstore.create("base:1", name="w", root=store)
        (store / "workspaces/w/upper/one").write_text("one")
        layerstore.commit("w", "base:2", root=store)
        (store / "workspaces/w/upper/two").write_bytes(os.urandom(50_000))
        layerstore.commit("w", f"{host}/killed:1", root=store)
        layerstore.push(f"{host}/killed:1", root=store, options=FAST)
        archive = io.BytesIO()
        layerstore.save(["base", f"{host}/killed:1"], archive, root=store)
        layerstore.rmi(f"{host}/killed:1", root=store)
        tar = tarball({f"f{number}": os.urandom(500) for number in range(5)}, "w:gz")
        yield Ground(store, tar, archive.getvalue(), host)


@pytest.fixture(autouse=True)
def _one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same work makes the same image."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def verbs(ground: Ground) -> dict[str, Verb]:
    return {
        "import": lambda root: layerstore.import_(io.BytesIO(ground.tar), "base:1", root=root),
        "load": lambda root: layerstore.load(io.BytesIO(ground.archive), root=root),
        "pull": lambda root: layerstore.pull(f"{ground.host}/killed:1", root=root, options=FAST),
        "commit": lambda root: layerstore.commit("w", "base:2", root=root),
        "commit --chain": lambda root: layerstore.commit("w", "base:2", chain=True, root=root),
        "create": lambda root: layerstore.create("base:2", name="new", init=True, root=root),
        "tag": lambda root: layerstore.tag("base:1", "base:2", root=root),
        "rmi": lambda root: layerstore.rmi("base:2", root=root),
        "prune": lambda root: layerstore.prune(all_images=True, root=root),
        "rm": lambda root: layerstore.rm("w", root=root),
        "rename": lambda root: layerstore.rename("w", "v", root=root),
        "prune workspaces": lambda root: layerstore.prune(all_images=True, workspaces=True, root=root),
    }


NAMES = [
    "import",
    "load",
    "pull",
    "commit",
    "commit --chain",
    "create",
    "tag",
    "rmi",
    "prune",
    "rm",
    "rename",
    "prune workspaces",
]


def copied(ground: Ground, where: Path) -> Path:
    root = where / "store"
    if root.exists():
        shutil.rmtree(root)
    shutil.copytree(ground.store, root, symlinks=True)
    return root


def named(root: Path) -> dict[str, str]:
    """Which name means what; every image must be whole."""
    notes: list[str] = []
    found = {
        f"{one.repository}:{one.tag}": str(one.id) for one in layerstore.images(root=root, note=notes.append)
    }
    assert notes == []
    return found


def workspaces(root: Path) -> dict[str, list[str]]:
    return {one.name: contents(root / "workspaces" / one.name) for one in layerstore.ps(root=root)}


def check(root: Path, before: dict[str, str], after: dict[str, str], *, chained: bool) -> None:
    """What a later command finds: the old or the new under each name, all of it right."""
    now = named(root)
    for name in {*before, *after} - {"None:None"}:
        assert now.get(name) in {before.get(name), after.get(name)}, name
    checked = layerstore.fsck(root=root)
    assert checked.problems == []
    assert not list(root.rglob(".tmp-*"))
    kept = workspaces(root)
    layerstore.prune(root=root)
    assert {name: found for name, found in named(root).items() if name != "None:None"} == {
        name: found for name, found in now.items() if name != "None:None"
    }
    assert workspaces(root) == kept
    check_no_orphans(root)
    for name in kept:
        workspace = open_workspace(Store.open(root), name)
        missing = [path for path in workspace.lowers if not path.is_dir()]
        # A chained workspace whose layer was not moved yet has it from its image's blob at the next mount.
        assert len(missing) <= chained
        mounting.prepare_layers(workspace, note=pytest.fail)
        places = [workspace.upper, *workspace.lowers]
        assert all(path.is_dir() for path in places)
        for file in ("one", "two") if name == "w" else ():
            assert sum((path / file).is_file() for path in places) == 1, file


def check_no_orphans(root: Path) -> None:
    """There is nothing that no image and no workspace needs."""
    store = Store.open(root)
    needed = sweep.needed_by(store, [*index.read(store).manifests, *kept_for_workspaces(store)])
    assert {path.name for path in store.blobs.iterdir()} <= needed.blobs
    assert {path.name for path in store.layers.iterdir()} <= needed.layers
    assert not partials.directory(store).exists()
    assert {path.name for path in root.iterdir()} == {"oci", "layers", "workspaces"}
    assert {path.name for path in store.oci.iterdir()} == {"oci-layout", "index.json", "blobs"}


def kill(ground: Ground, name: str, where: Path, rounds: int | None) -> None:
    verb = verbs(ground)[name]
    root = copied(ground, where)
    before, chained = named(root), name == "commit --chain"
    there = len(workspaces(root))
    count = moments_of(partial(verb, root))
    after = named(root)
    check(root, before, after, chained=chained)
    chance = random.Random(name)
    every = range(1, count + 1)
    chosen = every if rounds is None else sorted(chance.sample(every, min(rounds, count)))
    died = 0
    for moment in chosen:
        root = copied(ground, where)
        died += die_in(partial(verb, root), moment)
        check(root, before, after, chained=chained)
        assert name != "rename" or len(workspaces(root)) == there
    assert died >= len(chosen) * 0.8


@needs_registry
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_killed(ground: Ground, name: str, where: Path) -> None:
    kill(ground, name, where, ROUNDS)


@needs_registry
@pytest.mark.fuzz
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", NAMES)
def test_killed_everywhere(ground: Ground, name: str, where: Path) -> None:
    kill(ground, name, where, None)


@needs_registry
@pytest.mark.slow
@pytest.mark.parametrize("name", ["import", "load", "pull", "commit"])
def test_killed_and_done_again(ground: Ground, name: str, where: Path) -> None:
    """Without anything between, the same command ends what the killed one began."""
    verb = verbs(ground)[name]
    root = copied(ground, where)
    count = moments_of(partial(verb, root))
    after = named(root)
    root = copied(ground, where)
    for moment in sorted(random.Random(name).sample(range(1, count + 1), 8), reverse=True):
        die_in(partial(verb, root), moment)
    verb(root)
    assert {*named(root)} == {*after}
    layerstore.prune(root=root)
    check_no_orphans(root)
    assert layerstore.fsck(root=root).problems == []
