"""Access to files whose mode denies it even to their unprivileged owner, such as /etc/shadow with mode 0 or a
file in a closed directory (decision 0033).

A process in its own user namespace has CAP_DAC_OVERRIDE for files of its user (user_namespaces(7)): it makes
the one call and returns the opened descriptor (`owner_process`). No mode changes, so no other process sees a
wider one, and a crash leaves none. Where such namespaces are not allowed, the modes in the way are widened
for the duration of the call.

Each function tries the plain call first, so that other files cost nothing more. It takes a name in an open
directory, or b"" for the file of the descriptor (``O_PATH`` too), and follows no link. EACCES: the file or
the directory is another user's.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from overlayfs_py.syscalls import calls, openat

_O_INODE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ, _WRITE = stat.S_IRUSR, stat.S_IWUSR
_WANTED = {os.O_RDONLY: _READ, os.O_WRONLY: _WRITE, os.O_RDWR: _READ | _WRITE}
_ATTEMPTS = 3

Result = TypeVar("Result")


def open_at(dir_fd: int, name: bytes, flags: int) -> int:
    """Open an existing file; the caller owns the descriptor."""
    try:
        return calls.open_at(dir_fd, name, flags)
    except PermissionError as error:
        wanted = 0 if flags & os.O_PATH else _WANTED[flags & os.O_ACCMODE]
        return int(_insist(error, wanted, dir_fd, "open", name, flags))


def open_beneath(top_fd: int, path: bytes, flags: int) -> int:
    """As `openat.open_beneath`, also through closed directories."""
    try:
        return openat.open_beneath(top_fd, path, flags)
    except PermissionError:
        *above, last = path.split(b"/")
    with contextlib.ExitStack() as held:
        fd = top_fd
        for step in above:
            fd = open_at(fd, step, _O_INODE | os.O_DIRECTORY)
            held.pop_all().close()
            held.callback(os.close, fd)
        return open_at(fd, last, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def open_in_root(root_fd: int, path: bytes, flags: int) -> int:
    """As `openat.open_in_root`, also through closed directories where user namespaces are allowed."""
    try:
        return openat.open_in_root(root_fd, path, flags)
    except PermissionError as error:
        return int(_insist(error, None, root_fd, "open_in_root", path, flags))


def getxattr_at(dir_fd: int, name: bytes, xattr: str) -> bytes:
    """Return an xattr's value; ``user.`` xattrs require read permission, also of the owner."""
    try:
        return calls.getxattr_at(dir_fd, name, xattr)
    except PermissionError as error:
        return bytes(_insist(error, _READ, dir_fd, "getxattr", name, xattr))


def setxattr_at(dir_fd: int, name: bytes, xattr: str, value: bytes, flags: int = 0) -> None:
    """Set an xattr; ``user.`` xattrs require write permission, also of the owner."""
    try:
        calls.setxattr_at(dir_fd, name, xattr, value, flags)
    except PermissionError as error:
        _insist(error, _WRITE, dir_fd, "setxattr", name, xattr, value, flags)


def removexattr_at(dir_fd: int, name: bytes, xattr: str) -> None:
    """Remove an xattr; permissions as for `setxattr_at`."""
    try:
        calls.removexattr_at(dir_fd, name, xattr)
    except PermissionError as error:
        _insist(error, _WRITE, dir_fd, "removexattr", name, xattr)


def listxattr_at(dir_fd: int, name: bytes) -> list[str]:
    """Return the names of all xattrs."""
    return at(calls.listxattr_at, dir_fd, name)


def stat_at(dir_fd: int, name: bytes) -> os.stat_result:
    """As lstat(2)."""
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except PermissionError:
        fd = open_at(dir_fd, name, _O_INODE)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)


def readlink_at(dir_fd: int, name: bytes) -> bytes:
    """Return a symbolic link's target."""
    return at(lambda fd, name: os.readlink(name, dir_fd=fd), dir_fd, name)


def at(call: Callable[[int, bytes], Result], dir_fd: int, name: bytes) -> Result:
    """Return ``call(dir_fd, name)``; if the directory may not be searched, ``call(fd, b"")`` with an
    ``O_PATH`` descriptor of the file.
    """
    try:
        return call(dir_fd, name)
    except PermissionError as error:
        if not name or error.errno != errno.EACCES:
            raise
    fd = open_at(dir_fd, name, _O_INODE)
    try:
        return call(fd, b"")
    finally:
        os.close(fd)


def _insist(refusal: OSError, wanted: int | None, dir_fd: int, *call: Any) -> Any:
    """Repeat a refused call. `wanted`: the permission that it needs, None where a wider mode does not
    help.
    """
    if refusal.errno != errno.EACCES:
        raise refusal
    from overlayfs_py.syscalls import (
        owner_process,  # rarely needed, and importing it takes a tenth of a command's start
    )

    done, result = owner_process.ask(dir_fd, call)
    if done:
        return result
    if wanted is None:
        raise refusal
    return _with_wider_modes(refusal, wanted, dir_fd, call)


def _with_wider_modes(refusal: OSError, wanted: int, dir_fd: int, call: calls.Call) -> object:
    """Make the call with wider modes.

    Another process may do the same. A process that finds a mode wide does not restore it, so no mode stays
    wide.
    """
    for _ in range(_ATTEMPTS):
        try:
            with contextlib.ExitStack() as held:
                inode_fd = dir_fd
                if call[1]:
                    held.enter_context(_wider(dir_fd, stat.S_IXUSR))
                    inode_fd = os.open(call[1], _O_INODE, dir_fd=dir_fd)
                    held.callback(os.close, inode_fd)
                held.enter_context(_wider(inode_fd, wanted))
                return calls.perform(dir_fd, call)
        except PermissionError as error:
            if error.errno != errno.EACCES:
                raise refusal from None
    raise refusal


@contextlib.contextmanager
def _wider(fd: int, wanted: int) -> Iterator[None]:
    st = os.fstat(fd)
    mode = stat.S_IMODE(st.st_mode)
    if mode & wanted == wanted or st.st_uid != os.geteuid() or stat.S_ISLNK(st.st_mode):
        yield
        return
    os.chmod(calls.path_of(fd, b""), mode | wanted)
    try:
        yield
    finally:
        os.chmod(calls.path_of(fd, b""), mode)
