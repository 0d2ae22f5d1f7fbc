"""Archives on standard input and output: never a terminal, and never a stream that the caller has closed."""

import sys
from typing import IO

import click

from layerstore.cli.interrupts import InterruptibleInput, standard_input
from overlayfs_py import streams


def data_in(instead: str) -> InterruptibleInput:
    """Standard input to read an archive from; UsageError with what to do `instead` when there is none."""
    _check(sys.stdin, 0, "standard input", instead)
    return standard_input()


def data_out(instead: str) -> IO[bytes]:
    """Standard output to write an archive to; UsageError with what to do `instead` when it goes nowhere."""
    _check(sys.stdout, 1, "standard output", instead)
    return sys.stdout.buffer


def _check(stream: IO[str], fd: int, name: str, instead: str) -> None:
    if stream.isatty():
        raise click.UsageError(f"{name} is a terminal: {instead}")
    if streams.was_closed(fd):
        raise click.UsageError(f"{name} is closed: {instead}")
