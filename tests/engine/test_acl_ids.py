"""POSIX ACLs under uidmapping and gidmapping: the mount shows its ids, the layers keep theirs."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from tests import trees
from tests.conftest import Mounter
from tests.mounts import Layers

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.engine]

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
MAPPED = {"uidmapping": "100000:0:65536", "gidmapping": "200000:0:65536"}


def acl(user: int, group: int) -> bytes:
    return trees.acl(("u", 6), ("user", user, 4), ("g", 0), ("group", group, 6), ("m", 6), ("o", 0))


@pytest.fixture
def mapped(layers: Layers, mount: Mounter) -> Layers:
    """A lower with an ACL for 7 and 8, and one for ids that mean nothing in the mount."""
    for name, user, group in (("known", 100007, 200008), ("unknown", 5, 6)):
        path = layers.lowers[0] / name
        path.write_text("x")
        os.setxattr(path, ACCESS, acl(user, group))
    (layers.lowers[0] / "known").chmod(0o660)
    os.setxattr(layers.lowers[0], DEFAULT, acl(100007, 200008))
    os.setxattr(layers.upper, DEFAULT, acl(100007, 200008))
    mount(layers, MAPPED)
    return layers


def test_ids_are_shown_as_the_mounts(mapped: Layers) -> None:
    assert os.getxattr(mapped.merged / "known", ACCESS) == acl(7, 8)
    assert os.getxattr(mapped.merged / "unknown", ACCESS) == acl(65534, 65534)


def test_ids_are_stored_as_the_layers(mapped: Layers) -> None:
    (mapped.merged / "new").touch()
    os.setxattr(mapped.merged / "new", ACCESS, acl(1000, 1001))
    assert os.getxattr(mapped.upper / "new", ACCESS) == acl(101000, 201001)
    assert os.getxattr(mapped.merged / "new", ACCESS) == acl(1000, 1001)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        os.setxattr(mapped.merged / "new", ACCESS, acl(70000, 1))
    assert os.getxattr(mapped.upper / "new", ACCESS) == acl(101000, 201001)


def test_copies_and_heirs_keep_theirs(mapped: Layers) -> None:
    """What goes from layer to layer is not mapped twice."""
    (mapped.merged / "known").write_text("copied up")
    assert os.getxattr(mapped.upper / "known", ACCESS) == acl(100007, 200008)
    (mapped.merged / "directory").mkdir()
    assert os.getxattr(mapped.upper / "directory", DEFAULT) == acl(100007, 200008)
    assert os.getxattr(mapped.merged / "directory", DEFAULT) == acl(7, 8)


def _reads(path: Path, user: int, group: int) -> bool:
    command = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "cat", str(path)]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


def test_the_kernel_goes_by_them(mapped: Layers) -> None:
    assert _reads(mapped.merged / "known", 7, 1)
    assert _reads(mapped.merged / "known", 1, 8)
    assert not _reads(mapped.merged / "known", 1, 1)
    assert not _reads(mapped.merged / "known", 100007, 1)


def test_squashed(layers: Layers, mount: Mounter) -> None:
    (layers.lowers[0] / "file").touch()
    os.setxattr(layers.lowers[0] / "file", ACCESS, acl(5, 6))
    mount(layers, {"squash_to_uid": "42", "squash_to_gid": "43"})
    assert os.getxattr(layers.merged / "file", ACCESS) == acl(42, 43)
