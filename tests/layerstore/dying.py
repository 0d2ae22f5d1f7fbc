"""Run a verb in a process that dies at a chosen change to the file system, as kill -9 would have it.

Every call that changes something is a moment: the process is killed before it or, for odd moments, after it.
"""

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

_CHANGING = [
    *("chmod", "chown", "fchmod", "fchown", "fsync", "ftruncate", "link", "mkdir", "mknod", "open"),
    *("removexattr", "rename", "replace", "rmdir", "setxattr", "symlink", "unlink", "utime", "write"),
]
_NEW = os.O_CREAT | os.O_TRUNC


class _Moments:
    """Counts the changes of this process; dies at `last`."""

    def __init__(self, last: int) -> None:
        self.count = 0
        self._last = last
        self._lock = threading.Lock()

    def watch(self) -> None:
        for name in _CHANGING:
            setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **how: Any) -> Any:
            if name == "open" and not (args[1] if len(args) > 1 else how.get("flags", 0)) & _NEW:
                return real(*args, **how)
            self._moment()
            result = real(*args, **how)
            self._moment()
            return result

        return call

    def _moment(self) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._last:
                os.kill(os.getpid(), signal.SIGKILL)


def moments_of(verb: Callable[[], object]) -> int:
    """How many moments there are to die in; the verb is done afterwards."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            moments = _Moments(0)
            moments.watch()
            verb()
            os.close(ours)
            with open(theirs, "wb") as out:
                out.write(b"%d" % moments.count)
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as answer:
        count = answer.read()
    os.waitpid(child, 0)
    assert count, "the verb failed"
    return int(count)


def die_in(verb: Callable[[], object], moment: int) -> bool:
    """Whether it died at that moment; False: it was done before, as not every run is the same."""
    child = os.fork()
    if child == 0:
        try:
            _Moments(moment).watch()
            verb()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)
