"""Who takes part: how each is mounted, found among the processes and unmounted. One row each."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stage import Stage, unmount

ROOT = Path(__file__).resolve().parents[2]
# As users start it: compiled modules are kept.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
OURS = str(ROOT / ".venv/bin/overlayfs-py")
KERNEL, PEER = "kernel", "fuse-overlayfs"


class CannotMount(Exception):
    """A contender does not mount this stack; str() is what it printed."""


@dataclass(frozen=True)
class Contender:
    """`command` returns when the mount is usable; `options` are added to the three directories."""

    name: str
    command: tuple[str, ...]
    options: str = ""
    daemon: bool = True
    only: tuple[str, ...] = ()  # beginnings of rows' names; none given: all
    version: tuple[str, ...] = ()

    def takes(self, row: str) -> bool:
        return not self.only or row.startswith(self.only)

    def describe(self) -> str:
        """Its version and options, for the document."""
        if not self.version:
            return os.uname().release
        done = subprocess.run(self.version, capture_output=True, text=True)
        lines = (done.stdout or done.stderr).strip().splitlines()
        said = next((line for line in lines if "overlayfs" in line), "?").split(":")[-1]
        return f"{said.replace('version', '').strip()} {self.options}".strip()


def _ours(name: str, options: str, only: tuple[str, ...] = ()) -> Contender:
    return Contender(name, (OURS,), options, only=only, version=(OURS, "--version"))


_WRITES = ("sequential write", "4 KiB random write", "compile")

CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(KERNEL, ("mount", "-t", "overlay", "overlay"), daemon=False),
        Contender(PEER, ("fuse-overlayfs",), version=("fuse-overlayfs", "--version")),
        _ours("cached", "engine=native,data=cached"),
        _ours("passthrough", "engine=native,data=passthrough"),
        _ours("pyfuse3", "engine=pyfuse3"),
        _ours("volatile", "engine=native,data=cached,volatile", only=("copy-up", "rename of a lower")),
        _ours("writeback", "engine=native,data=writeback", only=_WRITES),
        _ours("default", ""),
        _ours("calm", "engine=native,data=cached,poll=0,awake=off"),
    )
}


@dataclass
class Mounted:
    """A running contender: the seconds its start took and its processes (none for the kernel)."""

    start_seconds: float
    pids: tuple[int, ...]

    def rss_mib(self) -> float:
        """Resident memory of the daemon now."""
        return sum(self._status("VmRSS")) / 1024

    def wakeups(self) -> int:
        """How often its threads have gone to sleep so far."""
        return sum(self._status("voluntary_ctxt_switches"))

    def processor_ms(self) -> float:
        """Processor time of all its threads so far."""
        total = 0
        for pid in self.pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e6

    def _status(self, field: str) -> Iterator[int]:
        for pid in self.pids:
            tasks = [Path(f"/proc/{pid}")] if field == "VmRSS" else Path(f"/proc/{pid}/task").iterdir()
            for task in tasks:
                for line in (task / "status").read_text().splitlines():
                    if line.startswith(field + ":"):
                        yield int(line.split()[1])


@contextmanager
def mounted(contender: Contender, stage: Stage) -> Iterator[Mounted]:
    """Mount `contender` over `stage`; unmount and wait for its daemon at the end. CannotMount."""
    begin = time.perf_counter()
    _start(contender, stage)
    pids: tuple[int, ...] = ()
    try:
        # Usable: a lookup is answered. (A listing would be work: fuse-overlayfs reads all that it lists.)
        os.access(stage.mountpoint / "no-such-name", os.F_OK)
        seconds = time.perf_counter() - begin
        if contender.daemon:
            pids = daemons_of(stage.mountpoint)
        yield Mounted(seconds, pids)
    finally:
        unmount(stage.mountpoint)
        for pid in pids:
            wait_gone(pid)


def _start(contender: Contender, stage: Stage) -> None:
    """Run its command until it returns; CannotMount when it leaves no mount."""
    options = f"lowerdir={':'.join(stage.lowers)},upperdir={stage.upper},workdir={stage.work}"
    if contender.options:
        options += "," + contender.options
    device = stage.mountpoint.stat().st_dev
    done = subprocess.run(
        [*contender.command, "-o", options, str(stage.mountpoint)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        env=ENVIRONMENT,
        cwd=stage.disk,
    )
    if done.returncode or stage.mountpoint.stat().st_dev == device:
        said = done.stderr.strip().splitlines()
        raise CannotMount(said[0] if said else f"exit status {done.returncode}")


def daemons_of(mountpoint: Path) -> tuple[int, ...]:
    """The processes whose command line names `mountpoint`."""
    wanted = os.fsencode(mountpoint)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted in words:
                found.append(int(entry.name))
    if not found:
        raise CannotMount(f"no daemon serves {mountpoint}")
    return tuple(found)


def wait_gone(pid: int, seconds: float = 60) -> None:
    """umount(8) returns before a FUSE daemon has closed the layers."""
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
