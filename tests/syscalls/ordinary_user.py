"""An ordinary user who may mount through fusermount3, whatever mode this machine gave /dev/fuse.

fusermount3 opens /dev/fuse as the user, and only udev makes it accessible to everybody. So the user gets a
mount namespace with a device of its own, and an *area* whose mounts both namespaces share: what the user
mounts below it is seen here as well.
"""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UID = 65534
_FUSE_DEVICE = os.makedev(10, 229)

_ENTER = """
area=$1; shift
mount --make-private / 2>/dev/null; mount --make-private /dev 2>/dev/null
mount --bind "$area/dev/fuse" /dev/fuse || exit 125
exec setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"
"""


def why_not() -> str | None:
    """What keeps this machine from having such a user, if anything."""
    if os.geteuid():
        return "needs root"
    program = shutil.which("fusermount3")
    if program is None or not os.stat(program).st_mode & stat.S_ISUID:
        return "needs a setuid fusermount3"
    if not os.path.exists("/dev/fuse") or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return "needs /dev/fuse, unshare and setpriv"
    return None


@contextmanager
def shared_area() -> Iterator[Path]:
    """A directory that everybody can enter; all mounts below it are gone afterwards."""
    area = Path(tempfile.mkdtemp(prefix="mount-"))
    try:
        area.chmod(0o755)
        _run("mount", "--bind", area, area)
        _run("mount", "--make-shared", area)
        (area / "dev").mkdir()
        _run("mount", "-t", "tmpfs", "-o", "mode=0755,dev", "tmpfs", area / "dev")
        os.mknod(area / "dev" / "fuse", stat.S_IFCHR, _FUSE_DEVICE)
        os.chmod(area / "dev" / "fuse", 0o666)
        yield area
    finally:
        # Detaching the area takes along what is mounted on it; -R would have to read the names.
        subprocess.run(["umount", "-l", area], check=False, capture_output=True, timeout=30)
        shutil.rmtree(area)


def as_user(area: Path) -> list[str]:
    """The words to put before a command to run it as the ordinary user of `area`."""
    return ["unshare", "--mount", "--propagation", "unchanged", "--", "sh", "-c", _ENTER, "sh", str(area)]


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)
