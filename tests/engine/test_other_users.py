"""Other users of a mount that everybody may enter: the kernel checks permissions, and nobody gains any.

CVE-2018-10906 and cberner/fuser#351: allow_other without checks; CVE-2021-3493: capabilities set without
privilege; fuse-overlayfs 2.0: a fifo or a socket wider than asked for.
"""

import errno
import os
import socket
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests import trees
from tests.mounts import Layers, OverlayMount
from tests.nobody import NOBODY, as_nobody

pytestmark = [pytest.mark.fuse, pytest.mark.root]
Mounter = Callable[..., OverlayMount]
CAPABILITY = "security.capability"
PROTECTED = Path("/proc/sys/fs/protected_hardlinks").read_text().strip() == "1"


@pytest.fixture
def roots(layers: Layers) -> Layers:
    """What belongs to root in the lower: a file and a directory that nobody else may look into."""
    lower = layers.lowers[0]
    (lower / "secret").write_bytes(b"secret")
    (lower / "secret").chmod(0o600)
    (lower / "public").write_bytes(b"public")
    (lower / "closed").mkdir()
    (lower / "closed/inside").write_bytes(b"inside")
    (lower / "closed").chmod(0o700)
    lower.chmod(0o755)
    layers.upper.chmod(0o755)
    return layers


REFUSED: dict[str, tuple[Callable[[Path], object], int]] = {
    "read": (lambda top: open(top / "secret", "rb"), errno.EACCES),  # noqa: SIM115
    "write": (lambda top: open(top / "public", "ab"), errno.EACCES),  # noqa: SIM115
    "truncate": (lambda top: os.truncate(top / "public", 0), errno.EACCES),
    "list": (lambda top: os.listdir(top / "closed"), errno.EACCES),
    "look inside": (lambda top: os.stat(top / "closed/inside"), errno.EACCES),
    "create": (lambda top: open(top / "new", "xb"), errno.EACCES),  # noqa: SIM115
    "mkdir": (lambda top: os.mkdir(top / "new"), errno.EACCES),
    "unlink": (lambda top: os.unlink(top / "public"), errno.EACCES),
    "rename": (lambda top: os.rename(top / "public", top / "new"), errno.EACCES),
    "link": (lambda top: os.link(top / "secret", top / "new"), errno.EPERM if PROTECTED else errno.EACCES),
    "symlink": (lambda top: os.symlink("x", top / "new"), errno.EACCES),
    "chmod": (lambda top: os.chmod(top / "public", 0o777), errno.EPERM),
    "chown": (lambda top: os.chown(top / "public", NOBODY, NOBODY), errno.EPERM),
    "utime": (lambda top: os.utime(top / "public", (1, 1)), errno.EPERM),
    "setxattr": (lambda top: os.setxattr(top / "public", "user.a", b"1"), errno.EACCES),
    "trusted": (lambda top: os.setxattr(top / "public", "trusted.a", b"1"), errno.EPERM),
    "capability": (lambda top: os.setxattr(top / "public", CAPABILITY, trees.NET_RAW), errno.EPERM),
}


def test_another_user_is_refused(roots: Layers, mount: Mounter) -> None:
    """Each with the errno of any file system; and nothing is copied up on the way."""
    top = Path(os.fsdecode(mount(roots).root))
    for what, (action, wanted) in REFUSED.items():
        assert as_nobody(partial(action, top)) == wanted, what
    assert as_nobody(lambda: open(top / "public", "rb").close()) == 0
    assert os.listdir(roots.upper) == []


def test_with_allow_root_nobody_else_enters(roots: Layers, mount: Mounter) -> None:
    """A mount by root is everybody's, as the kernel's are, but for this option."""
    top = Path(os.fsdecode(mount(roots, {"allow_root": ""}, allow_other=False).root))
    assert as_nobody(lambda: os.stat(top / "public")) == errno.EACCES
    assert as_nobody(lambda: os.listdir(top)) == errno.EACCES


@pytest.mark.parametrize("layer", ["lower", "upper"])
def test_nobody_gives_a_file_of_its_own_capabilities(roots: Layers, mount: Mounter, layer: str) -> None:
    """Of a lower file too, where the question could come only after the copy-up."""
    (roots.lowers[0] / "own").write_bytes(b"#!/bin/sh\n")
    os.chown(roots.lowers[0] / "own", NOBODY, NOBODY)
    path = Path(os.fsdecode(mount(roots).root)) / "own"
    if layer == "upper":
        os.utime(path)
    assert as_nobody(lambda: os.setxattr(path, CAPABILITY, trees.NET_RAW)) == errno.EPERM
    assert CAPABILITY not in os.listxattr(path)
    assert not list((roots.upper / "own").parent.glob("own")) or layer == "upper"


def test_what_somebody_else_writes_to_loses_its_capabilities(roots: Layers, mount: Mounter) -> None:
    """Through copy-up: the lower file's capability does not survive a stranger's write."""
    lower = roots.lowers[0] / "program"
    lower.write_bytes(b"old")
    lower.chmod(0o666)
    os.setxattr(lower, CAPABILITY, trees.NET_RAW)
    path = Path(os.fsdecode(mount(roots).root)) / "program"

    def write() -> None:
        with open(path, "r+b") as file:
            file.write(b"new")

    assert as_nobody(write) == 0
    assert path.read_bytes() == b"new"
    assert CAPABILITY not in os.listxattr(path)
    assert CAPABILITY not in os.listxattr(roots.upper / "program")


@pytest.mark.parametrize("asked", [0o600, 0o666, 0o777])
def test_nothing_is_made_wider_than_asked_for(roots: Layers, mount: Mounter, asked: int) -> None:
    """mkfifo, mknod and bind under a umask of 077, at every look, in the upper as well."""
    top = Path(os.fsdecode(mount(roots).root))
    os.chmod(top, 0o777)

    def make() -> None:
        os.umask(0o077)
        os.mkfifo(top / "fifo", asked)
        os.mknod(top / "node", asked | stat.S_IFREG)
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(str(top / "socket"))

    assert as_nobody(make) == 0
    for name in ("fifo", "node", "socket"):
        wanted = 0o700 if name == "socket" else asked & 0o700
        assert stat.S_IMODE(os.lstat(top / name).st_mode) == wanted, name
        assert stat.S_IMODE(os.lstat(roots.upper / name).st_mode) == wanted, name
        assert as_nobody(partial(os.lstat, top / name)) == 0
