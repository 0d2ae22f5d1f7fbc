"""Killing the daemon at a chosen moment, and judging what it left behind."""

import contextlib
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests import snapshots
from tests.mounts import KernelMount, Layers, OverlayMount
from tests.oracle.deviations import normalise_facts
from tests.oracle.stacks import Stack
from tests.snapshots import Facts

ANY = Stack(lowers=())


@contextlib.contextmanager
def killed_at(pid: int, syscall_number: int) -> Iterator[None]:
    """Within, the process dies on entering that many system calls from now on."""
    tracer = subprocess.Popen(
        ["strace", "-f", "-q", "-o", "/dev/null", "-e", f"inject=all:signal=SIGKILL:when={syscall_number}"]
        + ["-p", str(pid)],
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_traced(pid)
        yield
    finally:
        # Not gently: strace may wait for ever for a thread that died with its process.
        tracer.kill()
        tracer.wait(20)


def _wait_traced(pid: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            status = (thread / "status").read_text()
            if "TracerPid:\t0\n" in status:
                break
        else:
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
    assert layers.work is not None
    assert layers.upper is not None
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
