"""Where `save` and `export` write to: a file that appears whole or not at all, or a stream."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from layerstore.errors import LayerstoreError

Target = str | os.PathLike[str] | IO[bytes]


@contextmanager
def open_output(target: Target) -> Iterator[IO[bytes]]:
    """A file to write; a path gets its name when all has been written, and a device or pipe is written to."""
    if not isinstance(target, str | os.PathLike):
        yield target
        target.flush()
        return
    path = Path(os.path.realpath(target))
    if _is_special(path):
        with open(path, "wb") as file:
            yield file
        return
    try:
        fd, temp = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    except FileNotFoundError:
        raise LayerstoreError(f"no such directory: {path.parent}") from None
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o666 & ~_umask())
            yield file
            file.flush()
            os.fsync(fd)
        os.rename(temp, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temp)
        raise


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise LayerstoreError(f"{path} is a directory")
    return not stat.S_ISREG(mode)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
