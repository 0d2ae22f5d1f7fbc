"""What modes keep their owner from: the daemon of an ordinary user may do what a local file system lets its
owner do.
"""

import os
import stat
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overlayfs_py.union.attr import Caller
from tests import trees
from tests.mounts import Layers, scratch
from tests.nobody import NOBODY
from tests.rawcalls import RENAME_EXCHANGE
from tests.union.conftest import Union

pytestmark = [pytest.mark.root]

LOWER: trees.Tree = {
    "ro": trees.Dir(mode=0o555, uid=NOBODY, gid=NOBODY),
    "ro/f": trees.File(b"lower", mode=0o644, uid=NOBODY, gid=NOBODY),
    "ro/g": trees.File(b"lower", mode=0o444, xattrs={b"user.one": b"1"}, uid=NOBODY, gid=NOBODY),
    "ro/sub": trees.Dir(mode=0o500, xattrs={b"user.one": b"1"}, uid=NOBODY, gid=NOBODY),
    "ro/sub/x": trees.File(b"lower", mode=0o600, uid=NOBODY, gid=NOBODY),
    "ro/empty": trees.Dir(mode=0o555, uid=NOBODY, gid=NOBODY),
    "ro/link": trees.Symlink("f", uid=NOBODY, gid=NOBODY),
    "rw": trees.Dir(mode=0o755, uid=NOBODY, gid=NOBODY),
    "rw/y": trees.File(b"lower", mode=0o400, uid=NOBODY, gid=NOBODY),
    "closed": trees.Dir(mode=0o555, uid=NOBODY, gid=NOBODY),
    "closed/z": trees.File(b"lower", mode=0o444, uid=NOBODY, gid=NOBODY),
}


class Own(Union):
    """Whoever runs it is the caller."""

    @property
    def caller(self) -> Caller:
        return Caller(os.geteuid(), os.getegid(), 0)


def _tree(union: Union) -> dict[bytes, str]:
    return {path: stat.filemode(entry.status.mode) for path, entry in union.snapshot().items()}


# What chmod -R u+w, rm -rf does.
REMOVED = (
    *(("chmod", path, mode) for path, mode in ((b"ro", 0o755), (b"ro/sub", 0o700), (b"ro/empty", 0o755))),
    *(("chmod", path, 0o644) for path in (b"ro/f", b"ro/g", b"ro/sub/x")),
    *(("unlink", path) for path in (b"ro/f", b"ro/g", b"ro/link", b"ro/sub/x")),
    *(("rmdir", path) for path in (b"ro/sub", b"ro/empty", b"ro")),
)
ACL = trees.acl(("u", 4), ("user", 1000, 4), ("g", 4), ("m", 4), ("o", 4))
CASES: dict[str, tuple[tuple[object, ...], ...]] = {
    "write": (("write_file", b"ro/f", b"new"),),
    "write below two": (("write_file", b"ro/sub/x", b"new"),),
    "chmod of a file": (("chmod", b"ro/g", 0o600),),
    "chmod of a directory": (("chmod", b"ro/sub", 0o700),),
    "chmod u+w, write": (("chmod", b"ro/g", 0o644), ("write_file", b"ro/g", b"new")),
    "touch": (("touch", b"ro/sub/x"),),
    "setxattr": (("setxattr", b"ro/g", b"user.two", b"2", 0),),
    "setxattr of a directory": (("setxattr", b"ro/sub", b"user.two", b"2", 0),),
    "removexattr": (("removexattr", b"ro/g", b"user.one"),),
    "removexattr of a directory": (("removexattr", b"ro/sub", b"user.one"),),
    "acl": (("setxattr", b"ro/g", trees.ACL_ACCESS, ACL, 0),),
    "link": (("link", b"ro/g", b"rw/linked"),),
    "rename of a file": (("chmod", b"ro", 0o755), ("rename", b"ro/g", b"rw/g", 0)),
    "rename within": (("chmod", b"ro", 0o755), ("rename", b"ro/sub", b"ro/moved", 0)),
    "exchange": (("chmod", b"ro", 0o755), ("rename", b"ro/g", b"rw/y", RENAME_EXCHANGE)),
    "rename over": (("rename", b"rw/y", b"closed/z", 0),),
    "chmod -R u+w, rm -rf": REMOVED,
    "truncate": (("chmod", b"ro/f", 0o200), ("truncate", b"ro/f", 2)),
    "mkdir of a closed one": (("mkdir", b"rw/none", 0),),
    "rmdir of a closed one": (("mkdir", b"rw/none", 0), ("forget",), ("rmdir", b"rw/none")),
    "rmdir of one over a whiteout": (*REMOVED, ("mkdir", b"ro", 0), ("forget",), ("rmdir", b"ro")),
    "rename of a closed one": (("mkdir", b"rw/none", 0), ("forget",), ("rename", b"rw/none", b"moved", 0)),
    "lookup of a closed one": (("chmod", b"ro/sub", 0), ("forget",), ("lstat", b"ro/sub")),
    "rename over an emptied one": (
        ("unlink", b"ro/sub/x"),
        ("chmod", b"ro/sub", 0o500),
        ("chmod", b"ro/empty", 0),
        ("rename", b"ro/empty", b"ro/sub", 0),
    ),
    "a closed file": (("mknod", b"rw/none", stat.S_IFREG, 0),),
}


def _play(union: Union, name: str) -> None:
    for method, *arguments in CASES[name]:
        getattr(union, str(method))(*arguments)


@pytest.fixture
def place(ground: Path) -> Iterator[Path]:
    with scratch(under=ground) as where:
        yield where


def _layers(where: Path) -> Layers:
    where.mkdir()
    lower = where / "lower"
    lower.mkdir()
    trees.build(lower, LOWER)
    for name in ("upper", "work", "merged"):
        (where / name).mkdir()
        os.chown(where / name, NOBODY, NOBODY)
    os.chown(lower, NOBODY, NOBODY)
    return Layers(lowers=(lower,), upper=where / "upper", work=where / "work", merged=where / "merged")


def _as_owner(action: Callable[[], object]) -> str:
    """Run it in a child that is the owner; what went wrong."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            action()
        except BaseException:
            os.write(write_fd, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as said:
        text = said.read().decode()
    os.waitpid(pid, 0)
    return text


@pytest.mark.parametrize("metacopy", ["off", "on"])
@pytest.mark.parametrize("name", CASES)
def test_as_root_would(place: Path, name: str, metacopy: str) -> None:
    """The owner's daemon ends with the tree that root's has."""
    options = {"index": "off", "redirect_dir": "on", "metacopy": metacopy}
    roots, owners = _layers(place / "root"), _layers(place / "owner")
    union = Own(roots, options)
    _play(union, name)
    wanted = _tree(union)
    union.close_all_layers()

    def act() -> None:
        union = Own(owners, options)
        _play(union, name)
        assert union.leftovers() == []
        union.close_all_layers()

    assert not _as_owner(act)
    again = Own(owners, {**options, "userxattr": ""})
    try:
        assert _tree(again) == wanted
    finally:
        again.close_all_layers()


def test_a_work_directory_that_a_crash_left(place: Path) -> None:
    """Closed directories in it go, too."""
    layers = _layers(place / "layers")
    work = layers.work / "work"
    (work / "#1/deep/er").mkdir(parents=True)
    (work / "#1/deep/er/f").touch(0o000)
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", work], check=True, timeout=30)
    for path in (work / "#1/deep/er", work / "#1/deep", work / "#1", work):
        path.chmod(0o555 if path.name == "deep" else 0)

    def act() -> None:
        union = Own(layers, {"index": "off"})
        assert union.leftovers() == []
        union.close_all_layers()

    assert not _as_owner(act)
