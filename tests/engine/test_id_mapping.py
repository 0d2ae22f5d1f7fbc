"""uidmapping and gidmapping are LAYER:MOUNT:SIZE, as fuse-overlayfs and containers/storage mean them."""

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Mounter
from tests.mounts import Layers, make_layers, unmount
from tests.nobody import as_user

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.engine]

# What podman --userns keep-id asks for, for a user whose id is 1001 in the container.
KEEP_ID = ":0:1:1001:1001:0:1:1002:1002:64534"
MAPPED = {"uidmapping": KEEP_ID, "gidmapping": KEEP_ID}
# On disk, in the mount.
PAIRS = [(0, 1), (1, 2), (1000, 1001), (1001, 0), (1002, 1002), (65534, 65534), (65535, 65535)]
UNMAPPED = [65536, 66535, 66536, 70000, 2**32 - 2]


def fill(lower: Path) -> None:
    for number in [layer for layer, _ in PAIRS] + UNMAPPED:
        (lower / str(number)).touch()
        os.chown(lower / str(number), number, number)


def owners(root: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.lstat().st_uid, p.lstat().st_gid) for p in root.iterdir()}


def shown() -> dict[str, tuple[int, int]]:
    return {str(layer): (mount, mount) for layer, mount in PAIRS} | {str(n): (65534, 65534) for n in UNMAPPED}


def change(root: Path) -> None:
    """Make a file as each user there is, and give each one."""
    root.chmod(0o777)
    for _, mount in PAIRS:
        assert as_user(mount, (root / f"by{mount}").touch) == 0
        (root / f"for{mount}").touch()
        os.chown(root / f"for{mount}", mount, mount)


def stored() -> dict[str, tuple[int, int]]:
    return {f"{word}{mount}": (layer, layer) for layer, mount in PAIRS for word in ("by", "for")}


@contextlib.contextmanager
def peer(layers: Layers) -> Iterator[None]:
    command = ["fuse-overlayfs", "-o", layers.options(MAPPED), str(layers.merged)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    try:
        yield
    finally:
        unmount(os.fsencode(layers.merged))


def test_owners(layers: Layers, mount: Mounter) -> None:
    fill(layers.lowers[0])
    mount(layers, MAPPED)
    assert owners(layers.merged) == shown()
    change(layers.merged)
    assert owners(layers.upper) == stored()


def test_owners_by_fuse_overlayfs(where: Path) -> None:
    """The other side of the table above."""
    if shutil.which("fuse-overlayfs") is None:
        pytest.skip("fuse-overlayfs is not installed")
    layers = make_layers(where)
    fill(layers.lowers[0])
    with peer(layers):
        assert owners(layers.merged) == shown()
        change(layers.merged)
    assert owners(layers.upper) == stored()


def test_who_has_no_id_in_the_layers_makes_nothing(layers: Layers, mount: Mounter) -> None:
    """As the kernel has it of an idmapped mount; fuse-overlayfs makes the file nobody's."""
    layers.upper.chmod(0o777)
    mount(layers, MAPPED)
    (layers.merged / "given").touch()
    for number in UNMAPPED:
        assert as_user(number, (layers.merged / "made").touch) == errno.EOVERFLOW
        with pytest.raises(OSError, match=os.strerror(errno.EOVERFLOW)):
            os.chown(layers.merged / "given", number, -1)
    assert owners(layers.upper) == {"given": (1001, 1001)}


def test_one_id_alone(layers: Layers, mount: Mounter) -> None:
    """chgrp asks nothing of the user mapping, not even where 0 has no id in the layers."""
    (layers.lowers[0] / "file").touch()
    os.chown(layers.lowers[0] / "file", 1000, 1000)
    mount(layers, {"uidmapping": "1000:5:1", "gidmapping": "1000:5:9"})
    os.chown(layers.merged / "file", -1, 7)
    assert owners(layers.merged) == {"file": (5, 7)}
    assert owners(layers.upper) == {"file": (1000, 1002)}


OVERRIDE = "user.containers.override_stat"


def test_owners_in_an_xattr_are_mapped(layers: Layers, mount: Mounter) -> None:
    """fuse-overlayfs maps and squashes what override_stat says, too: these are the layers' ids."""
    (layers.lowers[0] / "file").touch()
    for path in (layers.lowers[0], layers.upper, layers.lowers[0] / "file"):
        os.setxattr(path, OVERRIDE, b"0:1000:0755")
    mount(layers, MAPPED | {"xattr_permissions": "2"})
    assert owners(layers.merged) == {"file": (1, 1001)}
    (layers.merged / "new").touch()
    assert owners(layers.merged)["new"] == (0, 0)
    assert os.getxattr(layers.upper / "new", OVERRIDE) == b"1001:1001:0644"
    os.chown(layers.merged / "new", -1, 1002)
    assert owners(layers.merged)["new"] == (0, 1002)
    assert os.getxattr(layers.upper / "new", OVERRIDE) == b"1001:1002:0644"


def test_owners_in_an_xattr_are_squashed(layers: Layers, mount: Mounter) -> None:
    (layers.lowers[0] / "file").touch()
    for path in (layers.lowers[0], layers.upper, layers.lowers[0] / "file"):
        os.setxattr(path, OVERRIDE, b"0:1000:0755")
    mount(layers, {"squash_to_uid": "42", "squash_to_gid": "43", "xattr_permissions": "2"})
    assert owners(layers.merged) == {"file": (42, 43)}


def test_copied_up_owners_stay(layers: Layers, mount: Mounter) -> None:
    fill(layers.lowers[0])
    mount(layers, MAPPED)
    for name in shown():
        (layers.merged / name).chmod(0o640)
    assert owners(layers.merged) == shown()
    assert owners(layers.upper) == {name: (int(name), int(name)) for name in shown()}


class TestOwnersInAnXattr:
    """override_stat counts in layers whose root has one, as with fuse-overlayfs, and users cannot set it."""

    FORGED = b"0:0:04755"
    ON = {"xattr_permissions": "2"}  # noqa: RUF012

    @pytest.mark.parametrize("name", [OVERRIDE, "user.fuseoverlayfs.override_stat"])
    @pytest.mark.parametrize("first", [{}, ON], ids=["without", "with"])
    def test_set_through_a_mount(
        self, layers: Layers, mount: Mounter, name: str, first: dict[str, str]
    ) -> None:
        """It is kept as the user's, and tells a later mount nothing of owners and modes."""
        mounted = mount(layers, first)
        (layers.merged / "file").touch(mode=0o600)
        os.chown(layers.merged / "file", 1000, 1000)
        os.setxattr(layers.merged / "file", name, self.FORGED)
        os.setxattr(layers.merged, name, self.FORGED)
        assert os.getxattr(layers.merged / "file", name) == self.FORGED
        assert name in os.listxattr(layers.merged / "file")
        mounted.unmount()
        later = make_later(layers)
        mount(later, self.ON)
        status = (later.merged / "file").stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1000, 1000, 0o600)
        assert os.getxattr(later.merged / "file", name) == self.FORGED

    def test_in_a_layer_that_does_not_say_so(self, layers: Layers, mount: Mounter) -> None:
        """Such as an upper of the kernel's; a copy does not bring it to where it counts."""
        (layers.lowers[0] / "file").touch(mode=0o600)
        os.setxattr(layers.lowers[0] / "file", OVERRIDE, self.FORGED)
        mount(layers, self.ON)
        assert (layers.merged / "file").stat().st_mode & 0o7777 == 0o600
        (layers.merged / "file").write_text("copied up")
        assert (layers.merged / "file").stat().st_mode & 0o7777 == 0o600
        assert OVERRIDE in os.listxattr(layers.upper)  # it says so from now on


def make_later(layers: Layers) -> Layers:
    """A stack with the upper of `layers` as its lower."""
    where = layers.upper.parent / "later"
    where.mkdir()
    made = make_layers(where)
    return Layers(lowers=(layers.upper,), upper=made.upper, work=made.work, merged=made.merged)
