"""Starting the command as its callers do, and looking at what it left."""

import contextlib
import fcntl
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests import rawcalls
from tests.mounts import COMMAND, Layers, LowerLayers
from tests.waiting import wait_until

TIMEOUT = 60.0


def overlayfs_py(*words: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [str(COMMAND), *map(str, words)]
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT, check=False, **more
    )
    return done


def pyctl(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = COMMAND.with_name("overlayfs-pyctl")
    return subprocess.run(
        [str(program), *map(str, words)], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


@contextlib.contextmanager
def found_by_mount_8() -> Iterator[None]:
    """The command where mount.fuse3 finds it, which has no PATH of ours; over one that is installed there.

    For one test at a time, also of those that run from another checkout.
    """
    link = Path("/usr/local/bin/overlayfs-py")
    fd = os.open(link.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        made = not os.path.lexists(link)
        if made:
            link.symlink_to(COMMAND)
        else:
            subprocess.run(["mount", "--bind", COMMAND, link], check=True, timeout=TIMEOUT)
        try:
            yield
        finally:
            if made:
                link.unlink()
            else:
                subprocess.run(["umount", link], check=True, timeout=TIMEOUT)
    finally:
        os.close(fd)


@contextlib.contextmanager
def cleared(*mountpoints: Path) -> Iterator[None]:
    """Whatever happens inside, nothing is mounted there afterwards."""
    try:
        yield
    finally:
        for mountpoint in mountpoints:
            while rawcalls.is_mounted(os.fsencode(mountpoint)):
                rawcalls.umount(os.fsencode(mountpoint), rawcalls.MNT_DETACH)


def is_mounted(layers: Layers) -> bool:
    return rawcalls.is_mounted(os.fsencode(layers.merged))


def daemon_pid(layers: Layers) -> int:
    """The process that serves the mount, found as a user would."""
    (found,) = (
        m for m in json.loads(pyctl("list", "--json").stdout) if m["mountpoint"] == str(layers.merged)
    )
    return int(found["pid"])


def wait_gone(pid: int, seconds: float = 20.0) -> None:
    """Wait until a process that is not our child has ended."""
    pid_fd = os.pidfd_open(pid) if _alive(pid) else -1
    wait_until(lambda: not _alive(pid), what=f"the end of {pid}", seconds=seconds)
    if pid_fd >= 0:
        os.close(pid_fd)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def one_line(result: subprocess.CompletedProcess[str], *says: str, program: str = "overlayfs-py") -> None:
    """A failure as users want it: status 1 and one line that names what is wrong."""
    assert result.returncode == 1, result
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith(f"{program}: ")
    for words in says:
        assert words in result.stderr


def options(layers: LowerLayers, *more: str) -> Sequence[str]:
    return ["-o", ",".join([layers.options(), *more])]
