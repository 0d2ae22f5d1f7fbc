"""The number of files in benchmarks and comparisons: the one place that reads FILES.

Unset, each benchmark and comparison has its own numbers, which are quick. `FILES=200000` in the environment
puts that many in the place of each, in benchmarks and in the comparisons of tests/oracle alike.
"""

import os

FILES = int(os.environ.get("FILES", "0"))


def files(usual: int) -> int:
    """The number of files to use; `usual` is the quick default."""
    return FILES or usual


def patience(usual: int) -> int:
    """Seconds to wait for work with that many files."""
    return usual * 30 if FILES else usual


def prefix() -> str:
    """The beginning of a command line that repeats this run."""
    return f"FILES={FILES} " if FILES else ""
