"""Open the store of an operation: the one that the caller names, else the environment's."""

import os
from pathlib import Path

from layerstore import environment
from layerstore.errors import LayerstoreError
from layerstore.store.store import Store

RootPath = str | os.PathLike[str] | None


def open_store(root: RootPath, *, make: bool = False) -> Store:
    """Open the store at `root`, by default the environment's.

    Where there is none, `make` creates it; without `make` the result is an empty store, and nothing is
    written.
    """
    if root is not None and not os.fspath(root):
        raise LayerstoreError("the path of the store is empty")
    return Store.open(environment.default_root() if root is None else Path(root), make=make)
