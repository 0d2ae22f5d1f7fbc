"""Layers on file systems without POSIX ACLs or any extended attributes.

The kernel asks FUSE for the ACL at each permission check of an ordinary user, so a wrong errno refuses all.
"""

import errno
import os
import stat
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests import trees
from tests.conftest import Mounter
from tests.mounts import COMMAND, KernelMount, Layers, LowerLayers, make_layers
from tests.nobody import NOBODY, as_nobody
from tests.rawcalls import outcome

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.engine]

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
ACL = trees.acl(("u", 6), ("user", 7, 4), ("g", 0), ("m", 6), ("o", 0))
XATTRS = [
    ACCESS,
    DEFAULT,
    "user.a",
    "security.a",
    "security.capability",
    "trusted.a",
    "system.nfs4_acl",
    "none",
]
NAMES = ["", "dir", "dir/file", "program", "link", "fifo"]

Maker = Callable[[Path, Path, Path], list[list[str]]]
LOWERS: dict[str, Maker] = {
    "ramfs": lambda source, _, at: [
        ["mount", "-t", "ramfs", "ramfs", str(at)],
        ["cp", "-a", f"{source}/.", str(at)],
    ],
    "squashfs": lambda source, image, at: [
        ["mksquashfs", str(source), str(image), "-no-xattrs", "-quiet", "-no-progress"],
        ["mount", "-o", "loop,ro", str(image), str(at)],
    ],
    "erofs": lambda source, image, at: [
        ["mkfs.erofs", str(image), str(source)],
        ["mount", "-o", "loop,ro,noacl,nouser_xattr", str(image), str(at)],
    ],
}


def run(*words: str) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, timeout=60)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"{words[0]}: {error}")


def fill(top: Path) -> None:
    (top / "dir").mkdir()
    (top / "dir/file").write_text("content")
    (top / "program").write_text("#!/bin/sh\n")
    (top / "link").symlink_to("dir/file")
    os.mkfifo(top / "fifo")
    for name, mode in (("dir", 0o755), ("dir/file", 0o644), ("program", 0o755), ("fifo", 0o644)):
        (top / name).chmod(mode)


@pytest.fixture(params=LOWERS)
def lower(request: pytest.FixtureRequest, where: Path) -> Path:
    """A lower without ACLs; its mount goes with `where`."""
    source, at = where / "source", where / "lower"
    source.mkdir()
    at.mkdir()
    fill(source)
    for command in LOWERS[request.param](source, where / "image", at):
        run(*command)
    if request.param == "ramfs":
        at.chmod(0o755)
    return at


def stacks(where: Path, lower: Path) -> dict[str, LowerLayers]:
    """Writable and read-only ones with `lower`."""
    layers = make_layers(where)
    (where / "other").mkdir()
    return {
        "writable": Layers(lowers=(lower,), upper=layers.upper, work=layers.work, merged=layers.merged),
        "read-only": LowerLayers(lowers=(lower, layers.lowers[0]), merged=where / "other"),
    }


def used(root: Path) -> None:
    """What everybody may do; raises where it cannot be done."""
    assert (root / "dir/file").read_text() == "content"
    assert os.listdir(root / "dir") == ["file"]
    os.chdir(root / "dir")
    os.stat("file")
    subprocess.run([root / "program"], check=True, timeout=30)
    assert os.access(root / "dir/file", os.R_OK)
    assert not os.access(root / "dir/file", os.W_OK)


def answers(root: Path) -> dict[str, str]:
    """The errno of each question about an xattr."""
    found = {}
    for name in NAMES:
        path = root / name
        for xattr in XATTRS:
            found[f"get {name} {xattr}"] = outcome(partial(os.getxattr, path, xattr, follow_symlinks=False))
            remove = partial(os.removexattr, path, xattr, follow_symlinks=False)
            found[f"remove {name} {xattr}"] = outcome(remove)
        found[f"list {name}"] = outcome(partial(os.listxattr, path, follow_symlinks=False))
    return found


@pytest.mark.parametrize("kind", ["writable", "read-only"])
def test_an_ordinary_user(where: Path, lower: Path, mount: Mounter, kind: str) -> None:
    mounted = mount(stacks(where, lower)[kind])
    assert as_nobody(lambda: used(mounted.layers.merged)) == 0
    os.statvfs(mounted.root)  # erofs has 2^64 - 1 inodes


@pytest.mark.parametrize("kind", ["writable", "read-only"])
def test_asked_for_xattrs_as_the_kernel(where: Path, lower: Path, mount: Mounter, kind: str) -> None:
    layers = stacks(where, lower)[kind]
    with KernelMount(layers):
        expected = answers(layers.merged)
    if kind == "writable":
        # The kernel changes ACLs of what is copied up only (decision 0025): here there is none to remove.
        for name in expected:
            if name.startswith("remove") and "posix_acl" in name and "link" not in name:
                expected[name] = "ENODATA" if expected[name] == "ENOTSUP" else expected[name]
    mount(layers)
    assert answers(layers.merged) == expected


def test_an_acl_on_a_copy(where: Path, lower: Path, mount: Mounter) -> None:
    """The upper can hold what the lower could not."""
    mounted = mount(stacks(where, lower)["writable"])
    os.setxattr(mounted.layers.merged / "dir/file", ACCESS, ACL)
    assert os.getxattr(mounted.layers.merged / "dir/file", ACCESS) == ACL
    assert as_nobody(lambda: (mounted.layers.merged / "dir/file").read_text()) == errno.EACCES


@pytest.fixture
def without(where: Path) -> Layers:
    """An upper without ACLs, over a lower with some."""
    layers = make_layers(where)
    fill(layers.lowers[0])
    os.setxattr(layers.lowers[0] / "dir", DEFAULT, ACL)
    os.setxattr(layers.lowers[0] / "dir/file", ACCESS, ACL)
    disk = where / "disk"
    disk.mkdir()
    run("truncate", "-s", "200M", str(where / "image"))
    run("mkfs.btrfs", "-q", str(where / "image"))
    run("mount", "-o", "loop,noacl", str(where / "image"), str(disk))
    for name in ("upper", "work"):
        (disk / name).mkdir()
    return Layers(lowers=layers.lowers, upper=disk / "upper", work=disk / "work", merged=layers.merged)


def append(path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(b"more")


def changes(root: Path) -> dict[str, str]:
    return {
        "append": outcome(lambda: append(root / "dir/file")),
        "chmod": outcome(lambda: (root / "dir/file").chmod(0o666)),
        "create": outcome(lambda: (root / "dir/new").touch()),
        "chmod dir": outcome(lambda: (root / "dir").chmod(0o777)),
        "set": outcome(lambda: os.setxattr(root / "program", ACCESS, ACL)),
        "set default": outcome(lambda: os.setxattr(root, DEFAULT, ACL)),
    }


def test_an_upper_without_acls(without: Layers, mount: Mounter) -> None:
    """A copy without its ACL would let the whole group do what the ACL grants one user: the copy-up fails.
    Setting one fails before anything is copied.
    """
    with KernelMount(without):
        expected = changes(without.merged)
    assert expected["chmod"] == "ENOTSUP"
    assert os.listdir(without.upper) == []
    mount(without)
    assert changes(without.merged) == expected
    assert os.listdir(without.upper) == []
    assert as_nobody(lambda: os.listdir(without.merged / "dir")) == 0


def test_an_upper_without_acls_where_none_count(without: Layers, mount: Mounter) -> None:
    mount(without, {"noacl": ""})
    (without.merged / "dir/file").write_text("new")
    assert (without.upper / "dir/file").read_text() == "new"


_OWN = """
mount --bind fuse /dev/fuse
exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -ec '
"$@" -o lowerdir=lower,upperdir=upper,workdir=work merged
test "$(cat merged/dir/file)" = content
test "$(ls merged/dir)" = file
(cd merged/dir && cat file)
merged/program
fusermount3 -u merged
' sh "$@"
"""


def test_a_users_own_mount(where: Path, lower: Path, engine: str) -> None:
    stacks(where, lower)
    os.mknod(where / "fuse", stat.S_IFCHR, os.stat("/dev/fuse").st_rdev)
    (where / "fuse").chmod(0o666)
    (where / "run").mkdir()
    for name in ("upper", "work", "merged", "run"):
        os.chown(where / name, NOBODY, NOBODY)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", _OWN, "sh", str(COMMAND), "-o", f"engine={engine}"],
        cwd=where,
        env={**os.environ, "XDG_RUNTIME_DIR": str(where / "run")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
