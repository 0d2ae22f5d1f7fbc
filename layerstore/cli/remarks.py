"""Standard error: what a verb notes on its way, and the one line that says why it failed."""

from overlayfs_py.errors import say

_said: set[str] = set()


def note(line: str) -> None:
    """Print a verb's remark; each once, however many layers or tags lead to it."""
    if line not in _said:
        _said.add(line)
        say("layerstore", line)


def complain(line: str, status: int = 1) -> int:
    """Print an error as one line; returns the exit status."""
    say("layerstore", " ".join(line.split("\n")))
    return status
