"""Killing the daemon at a chosen moment, and judging what it left behind."""

import contextlib
import os
import re
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests import snapshots
from tests.mounts import KernelMount, Layers, OverlayMount
from tests.oracle.deviations import normalise_facts
from tests.oracle.stacks import StackSpec
from tests.snapshots import Facts

ANY = StackSpec(lowers=())


# Calls that change a layer: between two of them every moment to die is the same.
_CHANGING = frozenset(
    f"{name}{variant}"
    for name, variants in {
        "open": ("at", "at2"),
        "rename": ("at", "at2"),
        "fchmod": ("", "at", "at2"),
        "fchown": ("", "at"),
        "setxattr": ("",),
        "lsetxattr": ("",),
        "fsetxattr": ("",),
        "removexattr": ("",),
        "lremovexattr": ("",),
        "fremovexattr": ("",),
        "mkdirat": ("",),
        "mknodat": ("",),
        "linkat": ("",),
        "symlinkat": ("",),
        "unlinkat": ("",),
        "utimensat": ("",),
        "ftruncate": ("",),
        "fallocate": ("",),
        "ioctl": ("",),
        "copy_file_range": ("",),
        "pwrite64": ("",),
        "fsync": ("",),
        "fdatasync": ("",),
        "syncfs": ("",),
        "writev": ("",),  # the reply
    }.items()
    for variant in variants
)


class Moment(NamedTuple):
    """On entering the `nth` such system call of a thread, counted from the tracer's coming."""

    syscall: str
    nth: int


@contextlib.contextmanager
def _traced(pid: int, *options: str) -> Iterator[None]:
    tracer = subprocess.Popen(["strace", "-f", "-q", *options, "-p", str(pid)], stderr=subprocess.DEVNULL)
    try:
        _wait_traced(pid)
        yield
    finally:
        # Not gently: strace may wait for ever for a thread that died with its process.
        tracer.kill()
        tracer.wait(20)


@contextlib.contextmanager
def recorded(pid: int, log: Path, moments: list[Moment]) -> Iterator[None]:
    """Within, the process's moments to die are noted, in order."""
    with _traced(pid, "-o", str(log)):
        yield
        _wait_quiet(log)
    counts: Counter[tuple[str, str]] = Counter()
    for line in log.read_text(errors="replace").splitlines():
        called = re.match(r"(\d+) +(\w+)\(", line)
        if called and called[2] in _CHANGING:
            counts[called[1], called[2]] += 1
            moments.append(Moment(called[2], counts[called[1], called[2]]))
    # What comes after the last reply is nobody's operation, and need not come the next time.
    while moments and moments[-1].syscall != "writev":
        moments.pop()


def _wait_quiet(log: Path) -> None:
    """strace writes a moment later than the call; the daemon is at rest when nothing more comes."""
    size, deadline = -1, time.monotonic() + 10
    while log.stat().st_size != size and time.monotonic() < deadline:
        size = log.stat().st_size
        time.sleep(0.1)


@contextlib.contextmanager
def killed_at(pid: int, moment: Moment) -> Iterator[None]:
    """Within, the process dies at that moment, if it comes."""
    inject = f"inject={moment.syscall}:signal=SIGKILL:when={moment.nth}"
    with _traced(pid, "-o", "/dev/null", "-e", inject):
        yield


def _wait_traced(pid: int) -> None:
    """Until every thread is traced; or dead, when the first system call was the one."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            states = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
            if not any("TracerPid:\t0\n" in state and "State:\tZ" not in state for state in states):
                return
        time.sleep(0.005)
    raise AssertionError("strace did not attach")


def view(root: bytes) -> dict[bytes, Facts]:
    """The merged tree; directories' times are left out, as a whiteout or a temporary name may move them."""
    seen = snapshots.directory(root)
    return {
        path: _without_dir_times(normalise_facts(path, entry, ANY, ""))
        for path, entry in snapshots.facts(seen).items()
    }


def _without_dir_times(facts: Facts) -> Facts:
    return {**facts, "mtime": None} if facts["type"] == "d" else facts


def left_behind(layers: Layers) -> list[str]:
    """What a mount must have cleaned: names in the work directory, names in the upper that no view shows."""
    stray = [f"work: {name!r}" for name in os.listdir(layers.work / "work") if name != "incompat"]
    shown = {os.path.relpath(path, layers.merged) for path in _below(layers.merged)}
    for path in _below(layers.upper):
        relative = os.path.relpath(path, layers.upper)
        if relative not in shown and not _is_whiteout(path):
            stray.append(f"upper: {relative!r}")
    return stray


def _below(top: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(top):
        yield from (Path(directory, name) for name in names + files)


def _is_whiteout(path: Path) -> bool:
    st = path.lstat()
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0


def views_after(layers: Layers, options: dict[str, str], engine: str) -> list[dict[bytes, Facts]]:
    """The tree by ours, mounted again, then by the kernel; nothing may be left behind."""
    with OverlayMount(layers, options, engine=engine) as mount:
        ours = view(mount.root)
        assert left_behind(layers) == []
    with KernelMount(layers, options) as kernel:
        return [ours, view(kernel.root)]
