"""Layers that are hard to get rid of, and stores that others have written to."""

import os
import time
from pathlib import Path

import pytest

from layerstore.store import usage
from overlayfs_py.syscalls.trees import remove_tree
from tests.layerstore.archives import layout, pack
from tests.layerstore.commands import Cli, contents
from tests.layerstore.layer.tars import END, directory, member, pax, symlink

LEVELS = 2000
DEEP = b"/".join([b"d"] * LEVELS)


def deep_layer(*more: bytes) -> bytes:
    """Deeper than Python's recursion, than there are descriptors, and, within the store, than PATH_MAX."""
    return b"".join([pax({b"path": DEEP + b"/" + b"f" * 80}), member(b"x", b"deep"), *more, END])


def test_a_deep_layer_that_is_refused_leaves_nothing(cli: Cli) -> None:
    """Once, what could not be removed again made the store unusable."""
    cli.make_store()
    before = contents(cli.root)
    assert "'..'" in cli.fail("import", "-", "deep:1", stdin=deep_layer(member(b"../x")))
    assert contents(cli.root) == before


def test_a_deep_layer_lives_and_dies(cli: Cli) -> None:
    """Every verb that walks it: it is counted, compared with its blob, and removed."""
    cli.run("import", "-", "deep:1", stdin=deep_layer())
    name = cli.run("create", "deep:1")
    cli.run("df")
    cli.run("fsck")
    cli.run("diff", "deep:1", "deep:1")
    cli.run("export", "-o", cli.root / "out.tar", "deep:1")
    os.unlink(cli.root / "out.tar")
    cli.run("rm", name)
    cli.run("rmi", "deep:1")
    cli.run("prune")
    assert not os.listdir(cli.root / "layers")


@pytest.mark.root
def test_symlinks_cannot_make_it_deeper_than_a_path(cli: Cli) -> None:
    """A name through a symlink, each nearly as long as a path can be: refused, as nobody could open it."""
    step = b"/".join([b"n"] * 1500)
    tar = pax({b"path": step}) + directory(b"x/") + pax({b"linkpath": step}) + symlink(b"s", b"y")
    tar += pax({b"path": b"s/" + step + b"/f"}) + member(b"x") + END
    cli.make_store()
    before = contents(cli.root)
    assert "symlinks make longer" in cli.fail("import", "-", stdin=tar)
    assert contents(cli.root) == before


@pytest.mark.parametrize("user", [pytest.param(0, marks=pytest.mark.root), 65534])
def test_trees_of_any_depth_are_removed(where: Path, user: int) -> None:
    """10,000 levels, more than any path; for an ordinary user also closed ones."""
    top = where / "top"
    top.mkdir()
    os.chmod(where, 0o777)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if user and os.geteuid() == 0:
                os.chown(top, user, user)
                os.setgroups([])
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
            _make_deep(top, 10_000)
            remove_tree(os.fsencode(top))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert not top.exists()


def _make_deep(top: Path, levels: int) -> None:
    fd = os.open(top, os.O_RDONLY)
    for level in range(levels):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        if level % 100 == 0:
            os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
            os.mkdir("closed", 0, dir_fd=fd)
            os.symlink("/", "link", dir_fd=fd)
            os.fchmod(fd, 0)
        os.close(fd)
        fd = below
    os.close(fd)


def test_time_to_remove_grows_with_the_tree(where: Path) -> None:
    """Ten times the levels: what is quadratic takes a hundred times as long; noise may double a figure."""

    def taken(levels: int) -> float:
        top = where / str(levels)
        top.mkdir()
        _make_deep(top, levels)
        started = time.process_time()
        remove_tree(os.fsencode(top))
        return time.process_time() - started

    small = min(taken(1000) for _ in range(3))
    assert taken(10_000) < 30 * max(small, 0.02)


def test_sizes_of_trees_deeper_than_a_path(where: Path) -> None:
    top = where / "top"
    top.mkdir()
    _make_deep(top, 3000)
    if os.geteuid() == 0:
        assert usage.tree_size(top) > 4096 * 2000
    remove_tree(os.fsencode(top))


def test_a_directory_in_the_place_of_a_blob(base: Cli) -> None:
    """prune goes on; it is fsck that complains."""
    (base.root / "oci/blobs/sha256" / ("a" * 64)).mkdir()
    base.run("load", stdin=pack(layout()))
    base.run("rmi", "oci:1")
    base.run("prune")
    assert "a" * 64 in "".join(base.call("fsck").stdout.decode().splitlines())
