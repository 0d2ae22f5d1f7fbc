"""``overlayfs_py.mount()``: a mount in a child process, for Python programs.

The child serves in the foreground, and stops when this process ends or closes its socket to the child.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from types import TracebackType

from overlayfs_py.errors import ConfigError, MountError
from overlayfs_py.options import escape, parse_options, split_options
from overlayfs_py.service.report import wait_for_report
from overlayfs_py.service.subprocesses import running
from overlayfs_py.syscalls.trees import remove_tree

StrPath = str | os.PathLike[str]

_STOP_TIMEOUT = 60.0


class ChildMount:
    """A live mount on `mountpoint`; leaving the ``with`` block unmounts it."""

    def __init__(self, mountpoint: str, process: "subprocess.Popen[bytes]", scratch: str | None) -> None:
        self.mountpoint = mountpoint
        self._process = process
        self._scratch = scratch  # holds a throw-away upper; removed at the end

    @property
    def pid(self) -> int:
        """The process that serves the mount."""
        return self._process.pid

    def unmount(self) -> None:
        """Unmount, and wait until the layers are released; detach a mount that is in use. Idempotent."""
        try:
            if self._process.poll() is None:
                self._process.terminate()
            status = self._process.wait(_STOP_TIMEOUT)
        finally:
            if (ours := _PARENT_ENDS.pop(self._process.pid, None)) is not None:
                ours.close()
            if self._scratch is not None:
                _remove(self._scratch)
                self._scratch = None
        if status:
            raise MountError(f"the daemon of {self.mountpoint} exited with status {status}")

    def __enter__(self) -> "ChildMount":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unmount()


def mount(
    *,
    lower: Sequence[StrPath],
    upper: StrPath | None = None,
    work: StrPath | None = None,
    mountpoint: StrPath,
    read_only: bool = False,
    **options: str | float | bool,
) -> ChildMount:
    """Mount `lower` (topmost first) under `upper` and return when the mount answers.

    Without `upper`, changes go to a throw-away directory that is removed with the mount; with `read_only`
    there are none. `options` are mount options by name: ``metacopy=True, timeout=5``. ConfigError or
    MountError says what is wrong; nothing is left mounted then.
    """
    _check(lower, options)
    if (upper is None) != (work is None):
        raise ConfigError("upper and work belong together: give both or neither")
    scratch = None
    if upper is None and not read_only:
        scratch = tempfile.mkdtemp(prefix="overlayfs-py-")
        upper, work = os.path.join(scratch, "upper"), os.path.join(scratch, "work")
        os.mkdir(upper)
        os.mkdir(work)
    words = [f"lowerdir+={escape(os.fspath(path))}" for path in lower]
    if upper is not None and work is not None:
        words += [f"upperdir={escape(os.fspath(upper))}", f"workdir={escape(os.fspath(work))}"]
    if read_only:
        words.append("ro")
    words += [word for name, value in options.items() if (word := _word(name, value))]
    try:
        return ChildMount(os.fspath(mountpoint), _start(words, os.fspath(mountpoint)), scratch)
    except BaseException:
        if scratch is not None:
            _remove(scratch)
        raise


def _remove(scratch: str) -> None:
    with contextlib.suppress(OSError):
        remove_tree(os.fsencode(scratch))


def _check(lower: Sequence[StrPath], options: Mapping[str, str | float | bool]) -> None:
    """Raise ConfigError at once for options that the child would refuse."""
    words = [f"lowerdir+={escape(os.fspath(path))}" for path in lower]
    words += [word for name, value in options.items() if (word := _word(name, value))]
    parse_options([pair for word in words for pair in split_options(word)], mountpoint=b"/")


def _word(name: str, value: str | float | bool) -> str:
    """Return one option as text: a flag by its name, an on/off option as on or off."""
    from overlayfs_py.options.table import ROWS, Kind

    row = ROWS.get(name)
    if isinstance(value, bool):
        if row is not None and row.kind is Kind.ONE_OF:
            return f"{name}={'on' if value else 'off'}"
        return name if value else ""
    return f"{name}={escape(value) if isinstance(value, str) else value}"


def _start(words: Sequence[str], mountpoint: str) -> "subprocess.Popen[bytes]":
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "overlayfs_py", "--parent-fd", str(theirs.fileno())]
    for word in words:
        command += ["-o", word]
    command += ["--", mountpoint]
    try:
        with theirs, running(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]) as process:
            theirs.close()  # so that end of file means that the child has exited
            wait_for_report(ours.fileno(), lambda: _status(process))
            _PARENT_ENDS[process.pid] = ours
            return process
    except BaseException:
        ours.close()
        raise


# Sockets that stay open while this process lives; their end of file stops the children.
_PARENT_ENDS: dict[int, socket.socket] = {}


def _status(process: "subprocess.Popen[bytes]") -> int:
    code = process.wait()
    return -code if code < 0 else code << 8
