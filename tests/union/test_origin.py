"""Origin handles: the kernel's own, and no proof where a lower image may have been made anew."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from overlayfs_py.errors import LayerError
from overlayfs_py.union import origin
from tests import images, snapshots, trees
from tests.mounts import KernelMount, Layers, make_layers
from tests.trees import Dir, File, Link
from tests.union.conftest import Opener, Union

pytestmark = [pytest.mark.root]

LINKS_A = {"a1": File(b"content of a"), "a2": Link("a1")}
LINKS_B = {"b1": File(b"content of b"), "b2": Link("b1")}
FILES_A = {"a": File(b"content of a"), "d": trees.Dir(), "z": File(b"z")}
FILES_B = {"b": File(b"content of b"), "d": trees.Dir(), "z": File(b"z")}
INDEX: dict[str, dict[str, str]] = {"default": {}, "on": {"index": "on"}, "off": {"index": "off"}}


class Machine:
    """One upper, and whichever image is its lower now."""

    def __init__(self, layers: Layers, kind: str, options: dict[str, str]) -> None:
        self._layers = layers
        self._kind = kind
        self._options = options
        self._made = 0
        self._running = ExitStack()

    def boot(self, tree: trees.Tree) -> Union:
        """Shut down what runs, and start over an image of `tree`."""
        self.shut_down()
        self._made += 1
        place = self._layers.lowers[0].parent / f"tree{self._made}"
        place.mkdir()
        os.utime(place, (0, 0))
        trees.build(place, tree)
        image = place.with_suffix(".image")
        images.build(self._kind, place, image)
        self._running.enter_context(images.mounted(image, self._layers.lowers[0], "ro"))
        return self.again()

    def again(self) -> Union:
        """Start over the image that is there."""
        union = Union(self._layers, self._options)
        self._running.callback(union.close_all_layers)
        return union

    def shut_down(self) -> None:
        self._running.close()

    def lower_ino(self, name: str) -> int:
        return os.stat(self._layers.lowers[0] / name).st_ino


Booter = Callable[[str, str], Machine]


@pytest.fixture
def machine(where: Path) -> Iterator[Booter]:
    """machine(kind of image, key of INDEX), with the upper on a file system of another kind."""
    with ExitStack() as cleanup:

        def make(kind: str, index: str) -> Machine:
            made = Machine(make_layers(where), kind, INDEX[index])
            cleanup.callback(made.shut_down)
            return made

        yield make


def _apart(union: Union) -> None:
    """No two files share a number but hard links, and listings say what stat says."""
    by_number: dict[int, set[bytes]] = {}
    for path, entry in union.snapshot().items():
        assert entry.d_ino_right, path
        by_number.setdefault(union.lstat(path).ino, set()).add(path)
    for paths in by_number.values():
        assert len({path[:-1] for path in paths if len(path) == 2} or {0}) == 1, paths
        assert len(paths) == 1 or all(len(path) == 2 for path in paths), paths


@pytest.mark.parametrize("kind", images.KINDS)
@pytest.mark.parametrize("index", INDEX)
def test_hard_links_of_another_image(machine: Booter, kind: str, index: str) -> None:
    """The new image's links have the inode of the old one's: they show their own content, and keep to it."""
    one = machine(kind, index)
    first = one.boot(LINKS_A)
    ino = one.lower_ino("a1")
    first.write_file(b"a1", b"changed a")
    second = one.boot(LINKS_B)
    assert one.lower_ino("b1") == ino
    for view in second.now_and_reopened():
        assert (view.content(b"b1"), view.content(b"b2")) == (b"content of b", b"content of b")
        assert view.content(b"a1") == b"changed a"
        _apart(view)
    second.write_file(b"b2", b"changed b")
    for view in second.now_and_reopened():
        assert view.content(b"a1") == b"changed a"
        assert view.content(b"b2") == b"changed b"
        assert view.content(b"b1") == (b"changed b" if index == "on" else b"content of b")
        _apart(view)
    third = one.boot(LINKS_A)
    assert (third.content(b"a1"), third.content(b"a2")) == (b"changed a", b"content of a")
    _apart(third)


@pytest.mark.parametrize("kind", images.KINDS)
def test_removed_names_of_another_image(machine: Booter, kind: str) -> None:
    """They are not subtracted from the new image's links."""
    one = machine(kind, "on")
    one.boot(LINKS_A).unlink(b"a1")
    again = one.boot(LINKS_A)
    assert again.lstat(b"a2").nlink == 1
    other = one.boot(LINKS_B)
    assert other.lstat(b"b1").nlink == 2
    other.unlink(b"b1")
    for view in other.now_and_reopened():
        assert view.lstat(b"b2").nlink == 1


@pytest.mark.parametrize("kind", images.KINDS)
@pytest.mark.parametrize("index", INDEX)
@pytest.mark.parametrize("moved", [b"a", b"m", b"d/m"])
def test_files_of_another_image(machine: Booter, kind: str, index: str, moved: bytes) -> None:
    """Files without links: the changed one and the new image's file of the same inode have two numbers."""
    one = machine(kind, index)
    first = one.boot(FILES_A)
    ino = one.lower_ino("a")
    first.write_file(b"a", b"changed a")
    if moved != b"a":
        first.rename(b"a", moved, 0)
    second = one.boot(FILES_B)
    assert one.lower_ino("b") == ino
    for view in second.now_and_reopened():
        assert view.lstat(moved).ino != view.lstat(b"b").ino
        assert (view.content(moved), view.content(b"b")) == (b"changed a", b"content of b")
        _apart(view)


@pytest.mark.parametrize("kind", images.KINDS)
@pytest.mark.parametrize("index", INDEX)
def test_the_same_image(machine: Booter, kind: str, index: str) -> None:
    """Numbers stay over copy-up, forgetting, renames and remounts; with an index, links stay together."""
    one = machine(kind, index)
    union = one.boot({**FILES_A, **LINKS_A})
    names = (b"a", b"z", b"d")
    before = {name: union.lstat(name).ino for name in names}
    union.write_file(b"a", b"changed")
    union.chmod(b"z", 0o600)
    union.chmod(b"d", 0o700)
    union.rename(b"z", b"d/moved", 0)
    union.link(b"a", b"linked")
    union.write_file(b"a2", b"changed links")
    for view in union.now_and_reopened():
        view.forget()
        assert {
            b"a": view.lstat(b"a").ino,
            b"z": view.lstat(b"d/moved").ino,
            b"d": view.lstat(b"d").ino,
        } == before
        assert view.lstat(b"linked").ino == before[b"a"]
        joined = index == "on"
        assert (view.lstat(b"a1").ino == view.lstat(b"a2").ino) == joined
        assert view.content(b"a1") == (b"changed links" if joined else b"content of a")
    union.unlink(b"a")
    for view in union.now_and_reopened():
        assert view.lstat(b"linked").ino == before[b"a"]
    ours = _shown(union.snapshot())
    assert ours == _shown(union.kernel_snapshot())


def test_images_without_a_uuid_above_each_other(where: Path) -> None:
    """The kernel falls back to index=off; here it is said, and without it all is well."""
    (where / "tree").mkdir()
    trees.build(where / "tree", {**LINKS_A, "b": File(b"b")})
    layers = make_layers(where, lowers=2)
    with ExitStack() as mounts:
        for lower in layers.lowers:
            image = lower.with_suffix(".image")
            images.build("squashfs", where / "tree", image)
            mounts.enter_context(images.mounted(image, lower))
        with pytest.raises(LayerError, match="no UUID that tells it from the others"):
            Union(layers, {"index": "on"})
        union = Union(layers, {})
        try:
            before = {name: union.lstat(name).ino for name in (b"a1", b"b")}
            union.write_file(b"a1", b"changed")
            union.chmod(b"b", 0o600)
            for view in union.now_and_reopened():
                assert view.content(b"a2") == b"content of a"
                assert view.lstat(b"b").ino == before[b"b"]
                assert view.lstat(b"a1").ino != view.lstat(b"a2").ino
        finally:
            union.close_all_layers()


def _shown(snapshot: snapshots.Snapshot) -> dict[bytes, object]:
    return {path: facts.get("content", facts["type"]) for path, facts in snapshots.facts(snapshot).items()}


@pytest.mark.parametrize("kind", images.KINDS)
def test_as_the_kernel_shows_it(machine: Booter, kind: str) -> None:
    """By default the kernel shows the same names and contents."""
    one = machine(kind, "default")
    one.boot({**LINKS_A, **FILES_A}).write_file(b"a1", b"changed a")
    second = one.boot({**LINKS_B, **FILES_B})
    ours = _shown(second.snapshot())
    assert ours[b"b2"] == ours[b"b1"] != ours[b"a1"]
    assert ours == _shown(second.kernel_snapshot())


def test_the_kernel_writes_the_same_handle(open_union: Opener) -> None:
    """The mark on a copy is the kernel's, byte by byte: either finds the lower inode by the other's."""
    union = open_union({"f": File(b"f"), "d": Dir(), "g": File(b"g")})
    for name in (b"f", b"d"):
        union.chmod(name, 0o700)
    ours = {path: union.upper_xattrs(path)["trusted.overlay.origin"] for path in ("f", "d")}
    union.close_all_layers()
    assert isinstance(union.layers, Layers)
    second = union.upper.parent / "second"
    second.mkdir()
    made = make_layers(second, lowers=0)
    layers = Layers(lowers=union.layers.lowers, upper=made.upper, work=made.work, merged=made.merged)
    with KernelMount(layers, {}):
        for path in ours:
            (layers.merged / path).chmod(0o700)
    assert {path: os.getxattr(layers.upper / path, "trusted.overlay.origin") for path in ours} == ours


@pytest.mark.parametrize(
    "value",
    [b"\0", bytes(21), b"\0\xfb\xff" + bytes(30), b"\1\xfb\x18\0\1" + bytes(19), b"x" * 200],
    ids=["short", "magic", "length", "version", "text"],
)
def test_a_mark_that_is_no_handle_names_nothing(open_union: Opener, value: bytes) -> None:
    """Whatever is in the xattr, the file is there: with the number of its own inode.

    (An empty one says that there was an origin, so what the file covers counts; the kernel writes it, too.)
    """
    upper = {"f": File(b"upper", xattrs={b"trusted.overlay.origin": value})}
    union = open_union({"f": File(b"lower")}, upper=upper)
    assert union.content(b"f") == b"upper"
    assert union.lstat(b"f").ino == (union.upper / "f").stat().st_ino


def test_a_handle_of_a_removed_inode_names_nothing(open_union: Opener) -> None:
    """Its number may be another file's by now."""
    union = open_union({"f": File(b"f"), "keep": File()})
    before = union.lstat(b"f").ino
    union.rename(b"f", b"moved", 0)
    assert union.reopen().lstat(b"moved").ino == before
    os.unlink(union.layers.lowers[0] / "f")
    assert union.reopen().lstat(b"moved").ino == (union.upper / "moved").stat().st_ino


def test_a_handle_has_room_for_small_types_only() -> None:
    """A file system whose handles have a type above 255 has no origins."""
    assert origin.pack(bytes(16), 256, b"handle") is None
    packed = origin.pack(bytes(range(16)), 1, b"handle")
    assert packed is not None
    assert packed[:5] == bytes([0, 0xFB, 27, sys.byteorder == "big", 1])
    assert packed.endswith(b"handle")
