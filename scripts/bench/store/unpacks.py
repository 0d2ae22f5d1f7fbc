"""One image, as an archive and as a layout, on a fresh disk: until its files can be read."""

from collections.abc import Callable
from pathlib import Path

from stage import unmount

from store.measure import OURS, Cost, run

# (disk, archive, layout, name of the image in both)
Unpack = Callable[[Path, Path, Path, str], Cost]


def layerstore(disk: Path, archive: Path, layout: Path, name: str) -> Cost:
    """`load`, then the first mount, which unpacks."""
    program = (OURS, "--root", disk / "store")
    point = disk / "mounted"
    point.mkdir()
    cost = run(*program, "load", "-q", "-i", archive)
    cost += run(*program, "mount", "--read-only", name, point)
    if not any(point.iterdir()):
        raise SystemExit("bench: layerstore mounted nothing")
    unmount(point)
    return cost


def umoci(disk: Path, archive: Path, layout: Path, name: str) -> Cost:
    """From the layout: it reads no archives."""
    return run("umoci", "unpack", "--image", f"{layout}:{name}", disk / "bundle")


def podman(disk: Path, archive: Path, layout: Path, name: str) -> Cost:
    """Into storage of the overlay driver, unpacked there."""
    for directory in ("root", "run", "tmp"):
        (disk / directory).mkdir()
    program = ("podman", "--root", disk / "root", "--runroot", disk / "run", "--storage-driver", "overlay")
    return run(*program, "load", "-q", "-i", archive, env={"TMPDIR": str(disk / "tmp")})


CONTENDERS: dict[str, Unpack] = {"layerstore": layerstore, "umoci": umoci, "podman": podman}
