"""How many files everything is measured and compared with: the one place where FILES is read.

Unset, each benchmark and comparison has its own numbers, which are quick. `FILES=200000` in the environment
puts that many in the place of each, in benchmarks and in the comparisons of tests/oracle alike.
"""

import os

FILES = int(os.environ.get("FILES", "0"))


def files(usual: int) -> int:
    """How many files to take where `usual` is what is quick."""
    return FILES or usual


def patience(usual: int) -> int:
    """Seconds to wait for what is done with that many."""
    return usual * 30 if FILES else usual


def prefix() -> str:
    """What a command line of this run begins with."""
    return f"FILES={FILES} " if FILES else ""
