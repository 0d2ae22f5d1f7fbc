"""What all verbs share: the store they work on, and where their remarks go."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from layerstore import environment
from layerstore.store.store import Store

Progress = Callable[[int], None]
Measured = Callable[[int, int], None]  # bytes done, bytes in all
Note = Callable[[str], None]
Root = str | os.PathLike[str] | None

_log = logging.getLogger("layerstore")


def open_store(root: Root) -> Store:
    """The store at `root`, by default the environment's."""
    return Store.open(environment.default_root() if root is None else Path(root))


def noting(note: Note | None) -> Note:
    """Where remarks go: to the caller's function, else to the log."""
    return note or _log.warning
