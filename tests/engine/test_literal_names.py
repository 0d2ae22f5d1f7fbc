"""What a user makes through a mount is no mark to a later one: ours, the kernel's, or one over the first."""

import os
import stat
from pathlib import Path

import pytest

from tests.conftest import Mounter
from tests.mounts import KernelMount, Layers, LowerLayers, make_layers
from tests.nobody import as_nobody
from tests.rawcalls import outcome

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.engine]

WHITEOUT, OPAQUE = ".wh.secret", ".wh..wh..opq"
XATTRS = [
    *(f"user.overlay.{word}" for word in ("opaque", "whiteout", "redirect", "metacopy", "literal", "origin")),
    *("user.fuseoverlayfs.opaque", "user.containers.override_stat", "user.mine"),
]
ROOTS = ["trusted.overlay.opaque", "trusted.overlay.whiteout", "trusted.overlay.literal"]


@pytest.fixture
def sticky(layers: Layers) -> Layers:
    """A sticky directory in which root has a secret, and one of the user's own that holds something."""
    lower = layers.lowers[0]
    for name in ("tmp", "own", "own/sub"):
        (lower / name).mkdir()
    (lower / "tmp").chmod(0o1777)
    (lower / "tmp/secret").write_text("root's")
    (lower / "own/file").write_text("low")
    (lower / "own/sub/deep").write_text("deep")
    for name in ("own", "own/file", "own/sub", "own/sub/deep"):
        os.chown(lower / name, 65534, 65534)
    return layers


def forge(root: Path) -> None:
    """All that a user can do to make a mark; raises where it is refused."""
    for name in (WHITEOUT, OPAQUE):
        (root / "tmp" / name).touch()
        (root / "own" / name).touch()
    (root / "own/.wh.file").mkdir()
    (root / "own/.wh.file").rename(root / "own/sub/.wh.deep")
    (root / "own/empty").touch()
    for xattr in XATTRS:
        for name in ("own", "own/sub", "own/empty"):
            os.setxattr(root / name, xattr, b"y")


def seen(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for directory, _, files in os.walk(root):
        for name in (".", *files):
            path = Path(directory, name)
            xattrs = {one: os.getxattr(path, one) for one in sorted(os.listxattr(path))}
            kind = stat.filemode(path.lstat().st_mode)
            found[str(path.relative_to(root))] = kind, path.lstat().st_uid, xattrs
    return found


def later(layers: Layers, name: str) -> Layers:
    where = layers.upper.parent / name
    where.mkdir()
    made = make_layers(where)
    lowers = (layers.upper, *layers.lowers)
    return Layers(lowers=lowers, upper=made.upper, work=made.work, merged=made.merged)


@pytest.mark.parametrize("then", [{}, {"userxattr": ""}], ids=["trusted", "userxattr"])
def test_forged_by_a_user(sticky: Layers, mount: Mounter, then: dict[str, str]) -> None:
    mounted = mount(sticky)
    assert as_nobody(lambda: forge(sticky.merged)) == 0
    for name in ROOTS:
        os.setxattr(sticky.merged / "own/sub", name, b"y")
    expected = seen(sticky.merged)
    assert "tmp/secret" in expected
    assert "own/sub/deep" in expected
    assert f"tmp/{WHITEOUT}" in expected
    mounted.unmount()
    again = later(sticky, "again")
    mounted = mount(again, then)
    assert seen(again.merged) == expected
    (again.merged / "own/sub/deep").write_text("copied up")
    (again.merged / "own/empty").chmod(0o600)
    (again.merged / f"tmp/{WHITEOUT}").unlink()
    mounted.unmount()
    third = later(again, "third")
    mount(third, then)
    assert seen(third.merged).keys() == expected.keys() - {f"tmp/{WHITEOUT}"}
    assert (third.merged / "tmp/secret").read_text() == "root's"


@pytest.mark.parametrize("userxattr", [False, True])
def test_in_the_kernels_mount(sticky: Layers, mount: Mounter, userxattr: bool) -> None:
    mounted = mount(sticky)
    assert as_nobody(lambda: forge(sticky.merged)) == 0
    names = seen(sticky.merged).keys()
    mounted.unmount()
    again = later(sticky, "again")
    with KernelMount(again, {"userxattr": ""} if userxattr else {}):
        assert seen(again.merged).keys() == names
        assert outcome(lambda: os.getxattr(again.merged / "tmp", "user.overlay.literal")) != "done"
        assert not userxattr or "trusted.overlay.literal" in os.listxattr(again.merged / "tmp")


def test_over_a_merged_view(sticky: Layers, mount: Mounter, where: Path) -> None:
    """A live mount, ours or the kernel's, as the lower of another, which may be over a further lower."""
    (where / "below/tmp").mkdir(parents=True)
    (where / "below/tmp/secret").touch()
    (where / "nested").mkdir()
    nested = LowerLayers(lowers=(sticky.merged, where / "below"), merged=where / "nested")
    with KernelMount(sticky):
        (sticky.merged / "tmp" / WHITEOUT).touch()
        (sticky.merged / "tmp" / OPAQUE).touch()
        (sticky.merged / "tmp/secret").unlink()
        above = mount(nested)
        assert sorted(os.listdir(nested.merged / "tmp")) == [OPAQUE, WHITEOUT, "secret"]
        above.unmount()
    mount(sticky)
    mount(nested)
    assert sorted(os.listdir(nested.merged / "tmp")) == [OPAQUE, WHITEOUT, "secret"]
