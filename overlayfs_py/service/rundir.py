"""The run directory: one control socket for each mount, named by a hash of the mount point.

Below /tmp another user may have taken the name. Then the daemon uses another name there that only its user
can have made, and clients find it by the same rule.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import xxhash

_NAME = b"overlayfs-py"
_SUFFIX = b".sock"
_TEMPORARY = b"/tmp"
_LONGEST_ADDRESS = 107  # bytes, unix(7)


def default_run_dir(environ: Mapping[str, str], uid: int) -> bytes:
    """Return the directory of this user's control sockets; daemon and clients get the same one."""
    if uid == 0 and os.access(b"/run", os.W_OK):
        return os.path.join(b"/run", _NAME)
    own = os.fsencode(environ.get("XDG_RUNTIME_DIR", "")) or b"/run/user/%d" % uid
    if os.path.isdir(own) and os.access(own, os.W_OK):
        return os.path.join(own, _NAME)
    return _temporary(uid)


def make_run_dir(path: bytes) -> None:
    """Make the directory with access for its owner only.

    PermissionError when the path is another user's, or no directory.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not _is_own_directory(path):
            raise PermissionError(1, "not a directory of this user", path) from None
        if stat.S_IMODE(os.lstat(path).st_mode) & 0o077:
            os.chmod(path, 0o700)


def places_for(run_dir: bytes) -> Iterator[bytes]:
    """Yield the directories to try for a control socket, best first; the last has an unguessable name."""
    yield run_dir
    if _is_default(run_dir):
        yield from (place for place in _temporaries() if place != run_dir)
        yield b"%s-%s" % (_temporary(os.geteuid()), os.urandom(8).hex().encode())


def socket_path(run_dir: bytes, mountpoint: bytes, pid: int) -> bytes:
    """Return the path of a daemon's socket; the pid distinguishes mounts of several mount namespaces."""
    return os.path.join(run_dir, b"%s-%d%s" % (_digest(mountpoint), pid, _SUFFIX))


@contextmanager
def address_of(path: bytes) -> Iterator[bytes]:
    """Yield the socket's address: its path, or a shorter one that is valid inside the block."""
    if len(path) <= _LONGEST_ADDRESS:
        yield path
        return
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield b"/proc/self/fd/%d/%s" % (fd, name)
    finally:
        os.close(fd)


def sockets(run_dir: bytes, mountpoint: bytes | None = None, pid: int | None = None) -> Iterator[bytes]:
    """Yield the existing control sockets: of one mount point, of one daemon, or all."""
    prefix = _digest(mountpoint) + b"-" if mountpoint is not None else b""
    suffix = b"-%d%s" % (pid, _SUFFIX) if pid is not None else _SUFFIX
    for place in _places_of(run_dir):
        try:
            names = sorted(os.listdir(place))
        except OSError:
            continue
        for name in names:
            if name.startswith(prefix) and name.endswith(suffix):
                yield os.path.join(place, name)


def _places_of(run_dir: bytes) -> Iterator[bytes]:
    """Yield the directories that daemons with this first choice may have used."""
    if not run_dir.startswith(_TEMPORARY + b"/") or _is_own_directory(run_dir) or not _is_default(run_dir):
        yield run_dir
    if _is_default(run_dir):
        yield from (place for place in _temporaries() if place != run_dir)


def _is_default(run_dir: bytes) -> bool:
    return os.path.basename(run_dir) == _NAME or run_dir == _temporary(os.geteuid())


def _temporary(uid: int) -> bytes:
    return b"%s/%s-%d" % (_TEMPORARY, _NAME, uid)


def _temporaries() -> list[bytes]:
    """Return this user's directories below /tmp, the usual one first; it may not exist yet."""
    usual = _temporary(os.geteuid())
    with suppress(OSError):
        names = (os.path.join(_TEMPORARY, name) for name in os.listdir(_TEMPORARY))
        others = sorted(path for path in names if path.startswith(usual + b"-") and _is_own_directory(path))
        return [usual, *others] if not os.path.lexists(usual) or _is_own_directory(usual) else others
    return [usual]


def _is_own_directory(path: bytes) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _digest(mountpoint: bytes) -> bytes:
    return xxhash.xxh3_64_hexdigest(mountpoint).encode()
