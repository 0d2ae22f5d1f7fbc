"""What is refused is refused before anything is changed: the upper stays as it was, empty."""

import errno
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests import rawcalls, trees
from tests.mounts import Layers, OverlayMount, flavours

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.engine]

FAR = "/".join(["n" * 100] * 3)
LOWER: trees.Tree = {
    "in/f": trees.File(b"f", xattrs={b"user.one": b"1"}),
    "in/g": trees.Link("in/f"),
    "in/full/x": trees.File(b"x"),
    "in/empty": trees.Dir(),
    "in/dir/x": trees.File(b"x"),
    f"{FAR}/dir/x": trees.File(b"x"),
    f"{FAR}/f": trees.File(b"x"),
    "out": trees.Dir(),
}
REDIRECT = {"redirect_dir": "on"}
METACOPY = {**REDIRECT, "metacopy": "on"}
MAPPED = {"uidmapping": "0:0:1000", "gidmapping": "0:0:1000"}


def _rename(source: str, target: str, flags: int = 0) -> Callable[[Path], object]:
    return lambda top: rawcalls.renameat2(os.fsencode(top / source), os.fsencode(top / target), flags)


def _as_user(uid: int, action: Callable[[], object]) -> None:
    """Run `action` with another fsuid, capabilities kept for everything but owning files."""
    os.seteuid(uid)
    try:
        action()
    finally:
        os.seteuid(0)


EXCHANGE = rawcalls.RENAME_EXCHANGE
REFUSED: dict[str, tuple[dict[str, str], int, Callable[[Path], object]]] = {
    "exchange of a file with a directory": ({}, errno.EXDEV, _rename("in/f", "in/dir", EXCHANGE)),
    "exchange of a directory with a file": ({}, errno.EXDEV, _rename("in/dir", "in/f", EXCHANGE)),
    "rename of a directory": ({}, errno.EXDEV, _rename("in/dir", "out/new")),
    "rename over a full directory": (REDIRECT, errno.ENOTEMPTY, _rename("in/dir", "in/full")),
    "rename too far for a redirect": (REDIRECT, errno.EXDEV, _rename(f"{FAR}/dir", "out/new")),
    "exchange too far for a redirect": (REDIRECT, errno.EXDEV, _rename("in/dir", f"{FAR}/dir", EXCHANGE)),
    "rename of a metacopy too far": (METACOPY, errno.EXDEV, _rename(f"{FAR}/f", "out/new")),
    "link of a metacopy too far": (
        METACOPY,
        errno.EXDEV,
        lambda top: os.link(top / FAR / "f", top / "out/new"),
    ),
    "a whiteout left behind": ({}, errno.EINVAL, _rename("in/f", "out/new", rawcalls.RENAME_WHITEOUT)),
    "rmdir of a full directory": ({}, errno.ENOTEMPTY, lambda top: os.rmdir(top / "in/full")),
    "a whiteout made": (
        {},
        errno.EPERM,
        lambda top: os.mknod(top / "in/new", stat.S_IFCHR, os.makedev(0, 0)),
    ),
    "chown without a mapping": (MAPPED, errno.EOVERFLOW, lambda top: os.chown(top / "in/f", 70000, -1)),
    "mkdir without a mapping": (
        MAPPED,
        errno.EOVERFLOW,
        lambda top: _as_user(70000, lambda: os.mkdir(top / "out/new")),
    ),
    "an xattr of no kind": ({}, errno.EOPNOTSUPP, lambda top: os.setxattr(top / "in/f", "foo.bar", b"2")),
    "an xattr that is not there": ({}, errno.ENODATA, lambda top: os.removexattr(top / "in/f", "user.two")),
    "a default ACL of a file": (
        {},
        errno.EACCES,
        lambda top: os.setxattr(top / "in/f", trees.ACL_DEFAULT, trees.acl(("u", 6), ("g", 4), ("o", 4))),
    ),
}


@pytest.fixture(params=flavours())
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine there is, with each of its data paths."""
    return str(request.param)


def test_nothing_is_copied_up(layers: Layers, engine: str) -> None:
    """Not even the directories above."""
    trees.build(layers.lowers[0], LOWER)
    (layers.lowers[0] / "out").chmod(0o777)
    wrong = []
    for options in ({}, REDIRECT, METACOPY, MAPPED):
        with OverlayMount(layers, {"index": "off", **options}, engine=engine):
            for name, (wanted, code, action) in REFUSED.items():
                if wanted is not options:
                    continue
                outcome = rawcalls.outcome(partial(action, layers.merged))
                if outcome != errno.errorcode[code] or os.listdir(layers.upper):
                    wrong.append((name, outcome, sorted(map(str, layers.upper.rglob("*")))))
    assert not wrong
