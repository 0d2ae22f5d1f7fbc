"""Who takes part: how each is mounted, found among the processes and unmounted. One row each."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stage import Stage, unmount

ROOT = Path(__file__).resolve().parents[2]
# As users start it: compiled modules are kept.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
OURS = str(ROOT / ".venv/bin/overlayfs-py")


@dataclass(frozen=True)
class Contender:
    """`command` returns when the mount is usable; `options` are added to the three directories."""

    name: str
    command: tuple[str, ...]
    options: str = ""
    daemon: bool = True
    only: tuple[str, ...] = ()  # workloads by name; none given: all
    version: tuple[str, ...] = field(default=())

    def takes(self, workload: str) -> bool:
        return not self.only or workload in self.only

    def describe(self) -> str:
        """The version line of the document."""
        if not self.version:
            return os.uname().release
        done = subprocess.run(self.version, capture_output=True, text=True)
        lines = (done.stdout or done.stderr).strip().splitlines()
        return next((line for line in lines if "overlayfs" in line), "?").split(":")[-1].strip()


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("kernel", ("mount", "-t", "overlay", "overlay"), daemon=False),
        Contender("fuse-overlayfs", ("fuse-overlayfs",), version=("fuse-overlayfs", "--version")),
        Contender("overlayfs-py", (OURS,), version=(OURS, "--version")),
        Contender("pyfuse3", (OURS,), options="engine=pyfuse3", version=(OURS, "--version")),
        Contender("native", (OURS,), options="engine=native", version=(OURS, "--version")),
        Contender(
            "overlayfs-py volatile",
            (OURS,),
            options="volatile",
            version=(OURS, "--version"),
            only=("start", "copy-up of 1,000 small files", "copy-up of a 256 MiB file"),
        ),
    )
}


@dataclass
class Mounted:
    """A running contender: the seconds its start took and, for a daemon, its process."""

    start_seconds: float
    pid: int | None

    def rss_kib(self) -> int | None:
        """Resident memory of the daemon now."""
        if self.pid is None:
            return None
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return None


@contextmanager
def mounted(contender: Contender, stage: Stage) -> Iterator[Mounted]:
    """Mount `contender` over `stage`; unmount and wait for its daemon at the end."""
    options = f"lowerdir={stage.lower},upperdir={stage.upper},workdir={stage.work}"
    if contender.options:
        options += "," + contender.options
    device = stage.mountpoint.stat().st_dev
    begin = time.perf_counter()
    done = subprocess.run(
        [*contender.command, "-o", options, str(stage.mountpoint)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        env=ENVIRONMENT,
    )
    if done.returncode or stage.mountpoint.stat().st_dev == device:
        raise SystemExit(f"bench: {contender.name} does not mount: {done.stderr.strip()}")
    seconds = time.perf_counter() - begin
    pid = daemon_of(stage.mountpoint) if contender.daemon else None
    try:
        yield Mounted(seconds, pid)
    finally:
        unmount(stage.mountpoint)
        if pid is not None:
            wait_gone(pid)


def daemon_of(mountpoint: Path) -> int:
    """The process whose command line names `mountpoint`."""
    wanted = os.fsencode(mountpoint)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted in words:
                return int(entry.name)
    raise SystemExit(f"bench: no daemon serves {mountpoint}")


def wait_gone(pid: int, seconds: float = 20) -> None:
    """umount(8) returns before a FUSE daemon has closed the layers."""
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
