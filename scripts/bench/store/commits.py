"""The same tree as the only change to an image in each contender's own form, and its commit as one layer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stage import sh

from store.measure import OURS, Cost, files, run, said_by, shell

Fill = Callable[[Path], None]


class Contender(Protocol):
    """Has a directory of its own. `commit` is what is measured; `forget` removes what it made."""

    def prepare(self) -> None: ...
    def add(self, name: str, fill: Fill) -> None: ...
    def commit(self, name: str, compression: str) -> Cost: ...
    def forget(self, name: str, compression: str) -> None: ...


@dataclass(frozen=True)
class Layerstore:
    """A workspace over an empty image; the tree is its upper."""

    disk: Path

    @property
    def program(self) -> tuple[str, ...]:
        return (OURS, "--root", str(self.disk / "store"))

    def prepare(self) -> None:
        empty = self.disk / "empty.tar"
        (self.disk / "empty").mkdir()
        sh("tar", "-C", self.disk / "empty", "-cf", empty, ".")
        sh(*self.program, "import", empty, "base")

    def add(self, name: str, fill: Fill) -> None:
        sh(*self.program, "create", "--name", name, "base")
        fill(self.upper(name))

    def upper(self, name: str) -> Path:
        return self.disk / "store/workspaces" / name / "upper"

    def commit(self, name: str, compression: str) -> Cost:
        before = files(self.layout / "blobs")
        cost = run(*self.program, "commit", "--compression", compression, name, f"{name}:{compression}")
        return cost.making(self.layout / "blobs", before)

    def forget(self, name: str, compression: str) -> None:
        if compression != "gzip":  # that is what is unpacked later
            sh(*self.program, "rmi", f"{name}:{compression}")

    @property
    def layout(self) -> Path:
        return self.disk / "store/oci"

    def save(self, name: str, compression: str, archive: Path) -> Path:
        """The commit of this name in an archive, both made unless they are there."""
        if not archive.exists():
            image = f"{name}:{compression}"
            if image not in said_by(*self.program, "images", "--format", "{{.Repository}}:{{.Tag}}").split():
                self.commit(name, compression)
            sh(*self.program, "save", "-q", "--format", "oci", "-o", archive, image)
        return archive


@dataclass(frozen=True)
class Buildah:
    """A container from scratch on the overlay driver; commits to an OCI layout, with compressed layers."""

    disk: Path

    @property
    def program(self) -> tuple[str, ...]:
        root, runroot = self.disk / "buildah/root", self.disk / "buildah/run"
        return ("buildah", "--root", str(root), "--runroot", str(runroot), "--storage-driver", "overlay")

    def prepare(self) -> None:
        (self.disk / "buildah").mkdir()

    def add(self, name: str, fill: Fill) -> None:
        sh(*self.program, "from", "--name", name, "scratch")
        merged = Path(said_by(*self.program, "mount", name))
        sh(*self.program, "umount", name)
        fill(merged.with_name("diff"))  # the upper itself: nothing is below it

    def commit(self, name: str, compression: str) -> Cost:
        target = f"oci:{self.disk}/out-{name}:x"
        temp = {"TMPDIR": str(self.disk)}
        cost = run(*self.program, "commit", "-q", "--disable-compression=false", name, target, env=temp)
        return cost.making(self.disk / f"out-{name}/blobs")

    def forget(self, name: str, compression: str) -> None:
        sh("rm", "-rf", self.disk / f"out-{name}")


@dataclass(frozen=True)
class Umoci:
    """A bundle unpacked from an empty image; repacked without refreshing it, so that it can be done again."""

    disk: Path

    def prepare(self) -> None:
        sh("umoci", "init", "--layout", self.disk / "oci")
        sh("umoci", "new", "--image", f"{self.disk}/oci:base")

    def add(self, name: str, fill: Fill, image: str = "base") -> None:
        bundle = self.disk / f"bundle-{name}"
        sh("umoci", "unpack", "--image", f"{self.disk}/oci:{image}", bundle)
        fill(bundle / "rootfs")

    def commit(self, name: str, compression: str) -> Cost:
        bundle, blobs = self.disk / f"bundle-{name}", self.disk / "oci/blobs"
        before = files(blobs)
        return run("umoci", "repack", "--image", f"{self.disk}/oci:{name}-out", bundle).making(blobs, before)

    def forget(self, name: str, compression: str) -> None:
        sh("umoci", "rm", "--image", f"{self.disk}/oci:{name}-out")
        sh("umoci", "gc", "--layout", self.disk / "oci")


def tar_and_zstd(tree: Path, out: Path) -> Cost:
    """zstd's own level (3, as ours) and all processors (as ours)."""
    made = out.with_name(out.name + ".tar.zst")
    cost = shell(f"tar -C {tree} --numeric-owner --xattrs -cf - . | zstd -q -3 -T0 -f -o {made}").making(made)
    made.unlink()
    return cost


def tar_and_sum(tree: Path, out: Path) -> Cost:
    made = out.with_name(out.name + ".tar")
    cost = shell(f"tar -C {tree} --numeric-owner --xattrs -cf {made} . && sha256sum {made}").making(made)
    made.unlink()
    return cost
