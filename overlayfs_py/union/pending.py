"""Renames that take several system calls where the file system has no renameat2 flags, and how the next mount
ends those that a crash interrupted.

``WORK/pending`` holds the one that is under way: ``paths`` says which names of the upper it is about,
``moved`` is what is between two names. The mount never shows a state in between, as the union does one
thing after the other. See docs/decisions/0024.

The record comes first and is durable, so whatever a crash leaves half done is named in it. Only one rename is
under way at a time: with the record in place nothing else is begun.
"""

import contextlib
import errno
import os
from collections.abc import Iterator

from overlayfs_py.errors import LayerError
from overlayfs_py.syscalls.trees import remove_tree
from overlayfs_py.union.layer import Layer, Real
from overlayfs_py.union.workdir import WorkDir

_PATHS, _MOVED = b"paths", b"moved"


class Pending:
    """The record of one work directory. `durable`: it has to survive a crash of the machine."""

    def __init__(self, work: WorkDir, upper: Layer, *, durable: bool) -> None:
        self._upper = upper
        self._durable = durable
        self._real = work.layer.root.child(b"pending")
        self._where = work.layer.path

    def swap(self, first: Real, second: Real) -> None:
        """Exchange two names; `first` is in the upper, `second` there or in the work directory.

        At any moment a crash leaves what `finish` turns into the old state or the new one:

        1. `first` -> `moved`. The name `first` is free: `finish` moves it back there. The old state.
        2. `second` -> `first`. Only `second` is free: `finish` moves it there. The new state. (If `second` is
           in the work directory it is not in the record, and `moved`, which belongs there, is removed.)
        3. `moved` -> `second`. Nothing is left to do but to remove the record.

        If a step fails the ones before it are taken back.
        """
        first_fd, first_name = first.at()
        second_fd, second_name = second.at()
        with self._recorded([first, second] if self._in_upper(second) else [first]) as fd:
            os.rename(first_name, _MOVED, src_dir_fd=first_fd, dst_dir_fd=fd)
            try:
                os.rename(second_name, first_name, src_dir_fd=second_fd, dst_dir_fd=first_fd)
            except BaseException:
                os.rename(_MOVED, first_name, src_dir_fd=fd, dst_dir_fd=first_fd)
                raise
            try:
                os.rename(_MOVED, second_name, src_dir_fd=fd, dst_dir_fd=second_fd)
            except BaseException:
                os.rename(first_name, second_name, src_dir_fd=first_fd, dst_dir_fd=second_fd)
                os.rename(_MOVED, first_name, src_dir_fd=fd, dst_dir_fd=first_fd)
                raise

    def leave(self, whiteout: Real, old: Real, new: Real) -> None:
        """Rename `old` to `new`, both in the upper, and put `whiteout` from the work directory at `old`.

        1. `whiteout` -> `moved`. Nothing has changed: `old` is taken, so `finish` removes the whiteout.
        2. `old` -> `new`. The name `old` is free: `finish` puts the whiteout there. The new state.
        3. `moved` -> `old`. Done.
        """
        old_fd, old_name = old.at()
        new_fd, new_name = new.at()
        made_fd, made_name = whiteout.at()
        with self._recorded([old]) as fd:
            os.rename(made_name, _MOVED, src_dir_fd=made_fd, dst_dir_fd=fd)
            try:
                os.rename(old_name, new_name, src_dir_fd=old_fd, dst_dir_fd=new_fd)
            except BaseException:
                os.rename(_MOVED, made_name, src_dir_fd=fd, dst_dir_fd=made_fd)
                raise
            os.rename(_MOVED, old_name, src_dir_fd=fd, dst_dir_fd=old_fd)

    def _in_upper(self, real: Real) -> bool:
        """Whether a name is below the upper's root. Its layer does not say: what was copied up keeps that of
        the work directory.
        """
        top = real
        while top.parent is not None:
            top = top.parent
        return top is self._upper.root

    @contextlib.contextmanager
    def _recorded(self, reals: list[Real]) -> Iterator[int]:
        """Yield the descriptor of ``pending``; within, its record names `reals`.

        The record is synced before anything moves, unless volatile: after a crash of the machine a rename
        without its record would be lost. It stays when something failed half way, and then nothing else is
        begun (EIO): the next mount ends it. A record that was cut off names nothing; nothing had moved.
        """
        fd = self._open()
        record = b"".join(real.layer_path() + b"\0" for real in reals)
        try:
            record_fd = os.open(_PATHS, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=fd)
        except FileExistsError:
            raise OSError(errno.EIO, "an interrupted rename has to be ended by the next mount") from None
        try:
            try:
                os.write(record_fd, record)
                if self._durable:
                    os.fsync(record_fd)
            finally:
                os.close(record_fd)
            yield fd
        finally:
            if not _exists(fd, _MOVED):
                os.unlink(_PATHS, dir_fd=fd)

    def _open(self) -> int:
        try:
            return self._real.dir_fd()
        except FileNotFoundError:
            parent_fd, name = self._real.at()
            os.mkdir(name, 0o700, dir_fd=parent_fd)
            return self._real.dir_fd()

    def finish(self) -> None:
        """End what a crash interrupted: taken back, or done where it had come further. LayerError when the
        upper was changed in between so that neither can be.
        """
        try:
            fd = self._real.dir_fd()
        except FileNotFoundError:
            return
        record = _read(fd)
        if _exists(fd, _MOVED) and not self._put(fd, record):
            raise LayerError(
                f"workdir {os.fsdecode(self._where)}: an interrupted rename cannot be ended: the upper was "
                "changed since; put pending/moved where it belongs (see pending/paths) and remove pending"
            )
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_PATHS, dir_fd=fd)

    def _put(self, fd: int, paths: list[bytes]) -> bool:
        """Put what is between two names to the first of `paths` that is free. If none is, a single path means
        that the rename was done, and what is left over goes. False: the upper was changed, and neither is
        right.
        """
        for path in paths:
            real = self._upper.root
            for name in path.split(b"/")[1:]:
                real = real.child(name)
            try:
                parent_fd, name = real.at()
            except OSError:
                return False
            if not _exists(parent_fd, name):
                os.rename(_MOVED, name, src_dir_fd=fd, dst_dir_fd=parent_fd)
                return True
        if len(paths) > 1:
            return False
        try:
            os.unlink(_MOVED, dir_fd=fd)
        except (IsADirectoryError, PermissionError):
            if not paths:
                return False
            remove_tree(_MOVED, dir_fd=fd)
        return True


def _read(fd: int) -> list[bytes]:
    """The record's paths; none when it is missing or was not complete, so that nothing had begun."""
    try:
        record_fd = os.open(_PATHS, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    except FileNotFoundError:
        return []
    with os.fdopen(record_fd, "rb") as record:
        return record.read().split(b"\0")[:-1]


def _exists(fd: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
