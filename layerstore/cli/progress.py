"""Show a progress bar on a terminal, and nothing elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import click

quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress bar.")


class ProgressBar(Protocol):
    """Called with the number of bytes done so far and, where known, the number in all."""

    def __call__(self, done: int, total: int | None = None, /) -> None: ...


@contextmanager
def progress(what: str, total: int | None = None, *, quiet: bool = False) -> Iterator[ProgressBar | None]:
    """Yield the function to report progress to; None when there is no bar."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    # rich takes longer to import than most verbs take to run.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task: Any = bar.add_task(what, total=total)

        def report(done: int, total: int | None = None, /) -> None:
            bar.update(task, completed=done, total=total)

        yield report
