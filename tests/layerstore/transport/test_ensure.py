"""``--pull`` of create and mount: an image that the store has not, or not as it is now."""

from pathlib import Path

import pytest

import layerstore
from layerstore.errors import LayerstoreError, NotFound
from layerstore.store.store import Store
from layerstore.transport.ensure import ensure_image
from tests.layerstore.commands import ROOTFS, Cli, tarball
from tests.layerstore.transport.samples import FAST, image
from tests.layerstore.transport.servers import needs_registry


def image_id(root: Path, name: str) -> str:
    return next(str(one.id) for one in layerstore.images(root=root) if f"{one.repository}:{one.tag}" == name)


@pytest.fixture
def name(registry: str, other: Store) -> str:
    """An image that the registry has, from another store."""
    name = f"{registry}/present:1"
    image(other, name, [b"one"])
    layerstore.push(name, root=other.root, options=FAST)
    return name


@needs_registry
def test_missing(store: Store, name: str) -> None:
    with pytest.raises(NotFound, match=f"no such image: {name} .*layerstore pull {name}"):
        ensure_image(name, "never", root=store.root)
    assert not layerstore.images(root=store.root)
    ensure_image(name, "missing", root=store.root, options=FAST)
    ensure_image(name, "never", root=store.root)


@needs_registry
def test_newer(store: Store, other: Store, name: str) -> None:
    ensure_image(name, "missing", root=store.root, options=FAST)
    old = image_id(store.root, name)
    image(other, name, [b"two"])
    layerstore.push(name, root=other.root, options=FAST)
    new = image_id(other.root, name)
    ensure_image(name, "missing", root=store.root, options=FAST)
    assert image_id(store.root, name) == old != new
    ensure_image(name, "always", root=store.root, options=FAST)
    assert image_id(store.root, name) == new


def test_by_id(store: Store) -> None:
    """It says exactly which image: nothing is asked for it."""
    image(store, "localhost:1/nowhere:1", [b"one"])
    found = image_id(store.root, "localhost:1/nowhere:1")
    for word in (found, found[7:], found[7:19]):
        ensure_image(word, "always", root=store.root, options=FAST)
    with pytest.raises(NotFound, match="no such image: sha256:00"):
        ensure_image("sha256:" + "0" * 64, "always", root=store.root, options=FAST)


def test_unreachable(store: Store) -> None:
    """What the registry has now cannot be told: not what is here either, as docker has it."""
    image(store, "localhost:1/nowhere:1", [b"one"])
    ensure_image("localhost:1/nowhere:1", "missing", root=store.root, options=FAST)
    with pytest.raises(LayerstoreError, match="localhost:1"):
        ensure_image("localhost:1/nowhere:1", "always", root=store.root, options=FAST)


@needs_registry
def test_command_line(registry: str, tmp_path: Path, home: Path) -> None:
    ours, theirs = Cli(tmp_path / "ours"), Cli(tmp_path / "theirs")
    name = f"{registry}/created:1"
    theirs.run("import", "-", name, stdin=tarball(ROOTFS))
    theirs.run("push", name)
    assert f"layerstore pull {name}" in ours.fail("create", name)
    assert ours.run("create", "--pull", "missing", "--name", "w", name) == "w"
    assert ours.run("create", "--name", "x", name) == "x"
    assert "applies to mount --read-only" in ours.fail("mount", "--pull", "always", "w", status=2)
    assert "always" in ours.fail("create", "--pull", "sometimes", name, status=2)
    assert "no such image" in ours.fail("mount", "--read-only", "nothing:1", tmp_path / "m")
