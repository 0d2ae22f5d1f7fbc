"""The command line: ``layerstore [--root DIR] VERB ...``. Parses words and prints results, nothing else."""

from typing import NoReturn

from layerstore.cli import interrupts
from overlayfs_py import streams


def main() -> NoReturn:
    """Run the command line and exit with 0, or print one line to stderr and exit with 1, or 2 for usage."""
    interrupts.install()  # first: loading the rest takes most of the time of many verbs
    streams.prepare()

    from layerstore.cli import program

    program.run()
