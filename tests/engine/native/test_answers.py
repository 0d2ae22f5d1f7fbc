"""How nodes become answers, and how long the kernel may keep what they say."""

from overlayfs_py.engine.native import wire
from overlayfs_py.engine.native.answers import NOT_KEPT
from overlayfs_py.union.overlay import Caller
from tests.engine.native.bench import Bench

ASKER = 11


def _seconds(entry: bytes) -> tuple[int, int]:
    """For how long name and attributes are kept."""
    _, _, name, attributes, *_ = wire.ENTRY_HEAD.unpack_from(entry)
    return name, attributes


def test_names_and_attributes_are_kept_as_long_as_the_policy_says(bench: Bench) -> None:
    node = bench.state.node(bench.find(b"file"))
    assert _seconds(bench.state.answers.entry(node)) == (60, 60)


def test_attributes_that_change_unseen_are_not_kept(bench: Bench) -> None:
    """A file that the kernel writes itself, by a backing file: its size and times are asked for each time."""
    node = bench.state.node(bench.find(b"file"))
    bench.state.backings.written[node] = [0]
    assert bench.state.answers.kept(node) == NOT_KEPT
    assert _seconds(bench.state.answers.entry(node)) == (60, 0)


def test_an_entry_says_which_attributes_are_under_way(bench: Bench) -> None:
    """`found` notes who is sent them, `entry` need not: nobody can change a node that is locked."""
    nodeid = bench.find(b"directory")
    inode = bench.state.nodes.inode(nodeid)
    inode.clear_requester(0)
    attr = bench.overlay.getattr(inode.node)
    bench.state.answers.found(inode.node, attr, ASKER)
    assert inode.clear_requester(ASKER + 1)
    bench.state.answers.entry(inode.node)
    assert not inode.clear_requester(ASKER + 1)


def test_a_new_file_has_no_capability(bench: Bench) -> None:
    """So the kernel's question before the first write is answered without a system call."""
    node, attr = bench.overlay.mknod(bench.overlay.root, b"new", 0o100644, 0, Caller())
    bench.state.answers.made(node, attr)
    inode = bench.state.nodes.known(node)
    assert inode is not None
    assert inode.uncapable
