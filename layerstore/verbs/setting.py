"""What all verbs share: the store they work on, and where their remarks go."""

import os
from collections.abc import Callable
from pathlib import Path

from layerstore import environment
from layerstore.errors import LayerstoreError
from layerstore.store.store import Store

Progress = Callable[[int], None]
Measured = Callable[[int, int], None]  # bytes done, bytes in all
Note = Callable[[str], None]
Root = str | os.PathLike[str] | None


def open_store(root: Root, *, make: bool = False) -> Store:
    """The store at `root`, by default the environment's. Where there is none, `make` makes one; else it is an
    empty one.
    """
    if root is not None and not os.fspath(root):
        raise LayerstoreError("the path of the store is empty")
    return Store.open(environment.default_root() if root is None else Path(root), make=make)


def noting(note: Note | None) -> Note:
    """Where remarks go: to the caller's function, else to the log."""
    if note is not None:
        return note
    import logging  # the command has a place of its own for remarks, and starts 3 ms sooner

    return logging.getLogger("layerstore").warning
