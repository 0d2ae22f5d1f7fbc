"""The run directory and the names in it: one control socket a mount, found by the mount point's hash."""

import os
import stat
from collections.abc import Iterator, Mapping

import xxhash

_NAME = b"overlayfs-py"
_SUFFIX = b".sock"


def default_run_dir(environ: Mapping[str, str], uid: int) -> bytes:
    """Where this user's control sockets are: the same answer for the daemon and for who looks for it."""
    if uid == 0 and os.access(b"/run", os.W_OK):
        return os.path.join(b"/run", _NAME)
    own = os.fsencode(environ.get("XDG_RUNTIME_DIR", "")) or b"/run/user/%d" % uid
    if os.path.isdir(own) and os.access(own, os.W_OK):
        return os.path.join(own, _NAME)
    return b"/tmp/%s-%d" % (_NAME, uid)


def make_run_dir(path: bytes) -> None:
    """Make the directory, for its owner only; PermissionError when somebody else made it first."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(1, "the run directory belongs to somebody else", path) from None


def socket_path(run_dir: bytes, mountpoint: bytes, pid: int) -> bytes:
    """The control socket of the daemon `pid`; the pid keeps mounts of other mount namespaces apart."""
    return os.path.join(run_dir, b"%s-%d%s" % (_digest(mountpoint), pid, _SUFFIX))


def sockets(run_dir: bytes, mountpoint: bytes | None = None, pid: int | None = None) -> Iterator[bytes]:
    """The control sockets there are: of one mount point, of one daemon, or all."""
    prefix = _digest(mountpoint) + b"-" if mountpoint is not None else b""
    suffix = b"-%d%s" % (pid, _SUFFIX) if pid is not None else _SUFFIX
    try:
        names = sorted(os.listdir(run_dir))
    except OSError:
        return
    for name in names:
        if name.startswith(prefix) and name.endswith(suffix):
            yield os.path.join(run_dir, name)


def _digest(mountpoint: bytes) -> bytes:
    return xxhash.xxh3_64_hexdigest(mountpoint).encode()
