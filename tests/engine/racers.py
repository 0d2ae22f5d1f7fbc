"""The processes of test_races.py: those who ask for attributes all the time, and the one who changes them.

The mount and the upper are compared during a truce, when all lookers rest. While the kernel takes new
attributes in, it counts them as known before the last of them is written (fuse_change_attributes_common), so
that a look at just that moment, perhaps one in 10,000, sees old ones, which the next look does not. Of that
no file system knows. What an engine answers for are old ones that stay, and those do stay in a truce: nobody
asks again.
"""

import contextlib
import ctypes
import mmap
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

LOOKERS = 2
_PATIENCE = 20.0  # seconds
_AT_FDCWD, _AT_STATX_FORCE_SYNC, _STATX_BASIC_STATS = -100, 0x2000, 0x7FF

_libc = ctypes.CDLL(None, use_errno=True)


class Truce:
    """What all share, a page of a file: which truce it is (0: none), and which one each looker keeps."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._shared = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self._last = 0

    def rest(self, looker: int) -> bool:
        """Whether `looker` has to rest. It says that it does."""
        number = self._shared[0]
        self._shared[1 + looker] = number
        return number != 0

    def call(self) -> None:
        self._last = self._last % 255 + 1
        self._shared[0] = self._last

    def wait(self) -> None:
        """Until everybody keeps it: what was under way has been taken in."""
        end = time.monotonic() + _PATIENCE
        while any(self._shared[1 + looker] != self._last for looker in range(LOOKERS)):
            if time.monotonic() > end:
                raise TimeoutError("a looker does not come to rest")
            time.sleep(1e-4)

    def end(self) -> None:
        self._shared[0] = 0


def look(shared: str, looker: str, path: str, how: str) -> None:
    """Be told the attributes, whether or not the kernel knows them. Where that takes the inode's lock it is
    for one looker: the next one in the queue would be told the new ones, and mend what is wrong.
    """
    truce, number = Truce(shared), int(looker)
    buffer, name = ctypes.create_string_buffer(256), os.fsencode(path)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    while True:
        if truce.rest(number) or (how != "ask" and number):
            time.sleep(1e-4)
        elif how == "ask":
            _libc.statx(_AT_FDCWD, name, _AT_STATX_FORCE_SYNC, _STATX_BASIC_STATS, buffer)
        elif how == "set":
            os.chmod(name, 0o700)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name + b".link")
            if not truce.rest(number):
                _link(name)


def _link(name: bytes) -> None:
    """The kernel counts too few names, none even, if somebody's stat(2) comes between an unlink and what the
    kernel makes of it; until the next stat (decision 0019).
    """
    try:
        os.link(name, name + b".link")
    except FileNotFoundError:
        os.stat(name)


def pause() -> None:
    """Take the lookers' processor away from time to time, so that answers wait to be taken in."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    while True:
        end = time.monotonic() + 2e-3
        while time.monotonic() < end:
            pass
        time.sleep(5e-4)


class Changes:
    """Each is made again and again, back and forth, with `n` counting; `path` is what it changes."""

    def __init__(self, directory: Path, subject: str) -> None:
        self.path = directory / subject
        self._file, self._new, self._other = (directory / name for name in ("file", "new", "other"))

    def entries(self, n: int) -> None:
        (os.unlink if n % 2 else os.mknod)(self._new)

    def directories(self, n: int) -> None:
        (os.rmdir if n % 2 else os.mkdir)(self._new)

    def links(self, n: int) -> None:
        if n % 2:
            os.unlink(self._new)
        else:
            os.link(self._file, self._new)

    def renames(self, n: int) -> None:
        os.rename(self._file, self._other)
        os.rename(self._other, self._file)

    def attributes(self, n: int) -> None:
        os.setxattr(self.path, "user.x", b"")
        os.removexattr(self.path, "user.x")

    def modes(self, n: int) -> None:
        os.chmod(self.path, 0o700 + n % 2)

    def contents(self, n: int) -> None:
        with open(self._file, "r+b", buffering=0) as file:
            file.write(bytes(n % 50 + 1))

    def mapped(self, n: int) -> None:
        """Written back when the mapping goes, not locked as by msync(2)."""
        with open(self._file, "r+b") as file, mmap.mmap(file.fileno(), mmap.PAGESIZE) as pages:
            pages[n % 99] = n % 256


# How long after a change old attributes may be seen.
_SECONDS = {"mapped": 3.0}


def told(path: Path) -> dict[str, int]:
    """The attributes that the mount and the upper must agree on."""
    st = os.lstat(path)
    names = ["st_mode", "st_mtime_ns", "st_ctime_ns"]
    if not path.is_dir():
        names += ["st_size", "st_nlink"]
    return {name: getattr(st, name) for name in names}


def change(shared: str, merged: str, upper: str, subject: str, name: str, times: str) -> None:
    """Print what was wrong, a line for each time."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    truce, changes = Truce(shared), Changes(Path(merged), subject)
    ours, theirs = Path(merged) / subject, Path(upper) / subject
    for n in range(int(times)):
        before = told(theirs)
        if n % 2:  # else who is quick may still ask, and be told the new ones
            truce.call()
        getattr(changes, name)(n)
        truce.call()
        truce.wait()
        right, found = told(theirs), told(ours)
        end = time.monotonic() + _SECONDS.get(name, 0)
        while found != right and time.monotonic() < end:
            found = told(ours)
        if found != right:
            time.sleep(0.1)
            still = "still so later" if told(ours) != right else "right later"
            print(f"{name} {n}:", *_differences(found, right, before), still)
        truce.end()
        time.sleep(n % 5 * 3e-4)


def _differences(found: dict[str, int], right: dict[str, int], before: dict[str, int]) -> list[str]:
    return [
        f"{field} is {found[field]} in the mount, {right[field]} in the upper ({before[field]} before);"
        for field in right
        if found[field] != right[field]
    ]


if __name__ == "__main__":
    parts: dict[str, Callable[..., None]] = {"look": look, "pause": pause, "change": change}
    parts[sys.argv[1]](*sys.argv[2:])
