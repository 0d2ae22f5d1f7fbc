"""The command line: ``layerstore [--root DIR] VERB ...``. Parses words, prints results; decides nothing
about images.
"""

from typing import NoReturn

from layerstore.cli import interrupts
from overlayfs_py import streams


def main() -> NoReturn:
    """Run the command line and exit: 0, or with one line on stderr 1, 2 for a usage error."""
    interrupts.install()  # before the rest is loaded, which takes most of the time of many verbs
    streams.prepare()

    from layerstore.cli import program

    program.run()
