"""What the native engine is to reach: limits for the ratios of the main run, and a few absolute ones."""

from dataclasses import dataclass

import memory
from scale import files

START = "start to a usable mount"


@dataclass(frozen=True)
class Goal:
    """Limits for the time of every row whose name begins with one of `rows`, of a peer's time."""

    rows: tuple[str, ...]
    kernel: float
    peer: float
    kernel_cached: float | None = None  # where data=cached has another limit than data=passthrough

    def limit(self, base: str, ours: str) -> float:
        if base != "kernel":
            return self.peer
        return self.kernel_cached if self.kernel_cached and ours != "passthrough" else self.kernel


GOALS = (
    Goal(("open+read+close, repeated",), kernel=1.2, peer=0.15),
    Goal(
        ("stat, repeated", "missing name, repeated", f"list {files(10_000):,} names, repeated"),
        kernel=1.2,
        peer=1.0,
    ),
    Goal(("scandir+stat of",), kernel=1.2, peer=1.0),
    Goal(("stat, first", "missing name, first"), kernel=4, peer=0.6),
    Goal(("open+read+close, first",), kernel=2, peer=0.8),
    Goal(("create+write+close", "rename", "unlink", "mkdir+rmdir"), kernel=4, peer=0.8),
    Goal(("copy-up by",), kernel=1.5, peer=0.9),
    Goal(("tar -x", "rm -rf"), kernel=4, peer=0.7),
    Goal(("sequential read", "4 KiB random read"), kernel=1.1, kernel_cached=4, peer=1.0),
    Goal(("sequential write + fsync", "4 KiB random write"), kernel=1.2, kernel_cached=3, peer=0.7),
    Goal(("python start", "git status", "compile"), kernel=1.1, peer=0.9),
)

# Row: the highest value that reaches the goal.
LIMITS = {
    START: 350.0,
    "list 100,000 names, first": 1000.0,
    memory.FULL: 120.0 * memory.KNOWN / 100_000,
    memory.BACK: 1.2,
}

# The contenders that the goals are for.
HELD_TO = ("cached", "passthrough", "volatile", "writeback")


def goal_of(row: str) -> Goal | None:
    return next((goal for goal in GOALS if row.startswith(goal.rows)), None)
