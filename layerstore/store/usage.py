"""What things take on disk: allocated blocks, a hard-linked file once, no link followed."""

import os
import stat
from contextlib import suppress
from pathlib import Path


def file_size(path: Path) -> int:
    """What one file takes; 0 when it has gone."""
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0


def tree_size(top: Path) -> int:
    """What a directory takes with all below it; what vanishes or may not be read meanwhile is not counted."""
    total = file_size(top)
    linked: set[int] = set()
    pending = [os.fsencode(top)]
    while pending:
        with (
            suppress(FileNotFoundError, PermissionError, NotADirectoryError),
            os.scandir(pending.pop()) as entries,
        ):
            for entry in entries:
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(entry.path)
                    elif status.st_nlink > 1:
                        if status.st_ino in linked:
                            continue
                        linked.add(status.st_ino)
                    total += status.st_blocks * 512
    return total
