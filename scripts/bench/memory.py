"""Resident memory of a daemon that knows 100,000 inodes, and after the kernel has forgotten them."""

import contextlib
import time
from pathlib import Path

from contenders import Contender, Mounted, mounted
from material import small_files
from operations import file_names, stat_all
from scale import files
from stage import Stage

KNOWN = files(100_000)
DIRECTORY, FILL = "d100k", small_files(KNOWN, b"")  # the one that a workload lists, too
START = "memory at the start"
FULL = f"memory with {KNOWN:,} known inodes"
BACK = "memory after they are forgotten, of that at the start"
ROWS = ((START, "MiB"), (FULL, "MiB"), (BACK, "×"))


def measure_memory(contender: Contender, stage: Stage) -> dict[str, float]:
    """A figure for each of ROWS, from a mount of its own."""
    with stage.beside("memory") as place, mounted(contender, place) as mount:
        time.sleep(0.5)
        start = mount.rss_mib()
        with contextlib.chdir(place.mountpoint / DIRECTORY):
            stat_all(file_names(KNOWN))
        full = mount.rss_mib()
        Path("/proc/sys/vm/drop_caches").write_text("2")
        return {START: start, FULL: full, BACK: steady_rss(mount) / start}


_STEADY = 3  # seconds; giving back begins a second after the forgets


def steady_rss(mount: Mounted, seconds: float = 15) -> float:
    """Resident memory once it no longer changes: the daemon handles forgets one after the other."""
    deadline = time.monotonic() + seconds
    last, since = mount.rss_mib(), time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - since < _STEADY:
        time.sleep(0.1)
        if (now := mount.rss_mib()) != last:
            last, since = now, time.monotonic()
    return last
