"""What buildah and podman commit, we show as they do, entry by entry."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import layerstore
from tests import snapshots
from tests.layerstore.commands import ROOTFS, Cli, tarball
from tests.layerstore.layer.write.kernel_mounts import tree_of
from tests.snapshots import Facts

pytestmark = [pytest.mark.root, pytest.mark.slow]


class Peer:
    """buildah or podman on a store of its own."""

    def __init__(self, where: Path, program: str) -> None:
        self.program = program
        (where / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{where}/graph"\nrunroot = "{where}/run"\n'
        )
        (where / "containers.conf").write_text(
            '[engine]\nevents_logger = "file"\ncgroup_manager = "cgroupfs"\nruntime = "runc"\n'
        )
        self._env = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(where / "storage.conf"),
            "CONTAINERS_CONF": str(where / "containers.conf"),
        }

    def run(self, *words: object) -> str:
        command = [self.program, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=self._env)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @contextmanager
    def container(self, image: str) -> Iterator[tuple[str, Path]]:
        """A container over an image, and where it is mounted."""
        make = ["from", "--pull-never"] if self.program == "buildah" else ["create"]
        container = self.run(*make, image, *([] if self.program == "buildah" else ["/nothing"]))
        try:
            yield container, Path(self.run("mount", container))
        finally:
            self.run("umount", container)
            self.run("rm", container)


def change(root: Path) -> None:
    (root / "etc/hosts").unlink()
    shutil.rmtree(root / "usr/lib")
    (root / "usr/lib").mkdir()
    (root / "usr/lib/three").write_text("3")
    os.link(root / "usr/lib/three", root / "hard")
    (root / "soft").symlink_to("etc/passwd")
    os.mkfifo(root / "fifo")
    os.mknod(root / "device", 0o020640, os.makedev(1, 3))
    os.chown(root / "bin/sh", 12, 34)
    os.chmod(root / "bin/sh", 0o6755)
    os.setxattr(root / "bin/sh", "user.mine", b"\0x")
    shutil.rmtree(root / "proc")
    (root / "proc").write_text("a file now")
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)


@pytest.mark.parametrize("program", ["buildah", "podman"])
@pytest.mark.fuse
def test_committed_by_a_peer(cli: Cli, where: Path, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    peer = Peer(where, program)
    (where / "base.tar").write_bytes(tarball(ROOTFS))
    cli.run("import", where / "base.tar", "localhost/base:1")
    cli.run("save", "-o", where / "archive.tar", "localhost/base:1")
    peer.run(*(["pull", "-q"] if program == "buildah" else ["load", "-q", "-i"]), _source(program, where))
    with peer.container("localhost/base:1") as (container, root):
        change(root)
        peer.run("commit", "-q", *(["--format", "oci"]), container, "localhost/theirs:1")
    with peer.container("localhost/theirs:1") as (_, root):
        theirs = below(root)
    push = ["push", "-q", "localhost/theirs:1", f"oci-archive:{where}/theirs.tar:localhost/theirs:1"]
    peer.run(*push)
    assert cli.run("load", "-i", where / "theirs.tar") == "Loaded image: localhost/theirs:1"
    place = where / "mounted"
    place.mkdir()
    layerstore.mount("localhost/theirs:1", place, read_only=True, root=cli.root)
    try:
        ours = below(place)
    finally:
        layerstore.umount(str(place), root=cli.root)
    assert not snapshots.differences(ours, theirs, ("ours", "theirs"))


def below(root: Path) -> dict[bytes, Facts]:
    """Without the root itself, which their layers do not mention: everybody has his own for it."""
    return {path: facts for path, facts in tree_of(root).items() if path}


def _source(program: str, where: Path) -> str:
    return f"docker-archive:{where}/archive.tar" if program == "buildah" else f"{where}/archive.tar"
