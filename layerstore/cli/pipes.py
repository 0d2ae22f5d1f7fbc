"""Archives on standard input and output; refuses a terminal and a closed stream."""

import sys
from typing import IO

import click

from layerstore.cli.interrupts import InterruptibleInput, standard_input
from overlayfs_py import streams


def data_in(instead: str) -> InterruptibleInput:
    """Return standard input for reading an archive; raises UsageError that says what to do `instead`."""
    _check(sys.stdin, 0, "standard input", instead)
    return standard_input()


def data_out(instead: str) -> IO[bytes]:
    """Return standard output for writing an archive; raises UsageError that says what to do `instead`."""
    _check(sys.stdout, 1, "standard output", instead)
    return sys.stdout.buffer


def _check(stream: IO[str], fd: int, name: str, instead: str) -> None:
    if stream.isatty():
        raise click.UsageError(f"{name} is a terminal: {instead}")
    if streams.was_closed(fd):
        raise click.UsageError(f"{name} is closed: {instead}")
