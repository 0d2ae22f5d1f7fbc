"""fusermount3: libfuse's setuid program, with which unprivileged users mount and unmount."""

import os
import shutil
import socket
import struct
import subprocess

_USUAL_PATH = "/usr/local/bin:/usr/bin:/bin"  # mount(8) starts its helpers without PATH
_TIMEOUT = 60.0

_int = struct.Struct("=i")


class FusermountFailed(Exception):
    """fusermount3 failed; ``str()`` is its message, on one line."""


class FusermountMissing(FusermountFailed):
    """fusermount3 is not installed."""


def mount(mountpoint: bytes, options: bytes) -> int:
    """Mount a FUSE filesystem with fusermount3's `options`; the caller owns the /dev/fuse descriptor."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        with theirs:
            process = _start(["-o", options, "--", mountpoint], theirs.fileno())
        try:
            ours.settimeout(_TIMEOUT)
            fd = _receive(ours)
        except OSError:
            process.kill()
            fd = None
        # Only now, since fusermount3 ends once its message is read.
        message = _finish(process)
    if fd is None:
        raise FusermountFailed(message or "fusermount3 returned no descriptor")
    return fd


def unmount(mountpoint: bytes, *, lazy: bool) -> None:
    """Unmount a FUSE filesystem that this user mounted; `lazy` detaches it while it is in use."""
    process = _start(["-u", *(["-z"] if lazy else []), "--", mountpoint], None)
    message = _finish(process)
    if process.returncode:
        raise FusermountFailed(message or f"fusermount3 exited with status {process.returncode}")


def _receive(channel: socket.socket) -> int | None:
    """Receive the descriptor; None at end of file, after a failure."""
    # Not socket.recv_fds, which ignores its flags: programs started meanwhile would inherit the descriptor.
    _, messages, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(_int.size), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in messages:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return int(_int.unpack_from(data)[0])
    return None


def _start(arguments: list[str | bytes], comm_fd: int | None) -> "subprocess.Popen[bytes]":
    path = ":".join(filter(None, (os.environ.get("PATH"), _USUAL_PATH)))
    program = shutil.which("fusermount3", path=path)
    if program is None:
        raise FusermountMissing("fusermount3 is not installed (it is in the package fuse3)")
    environment = dict(os.environ)
    if comm_fd is not None:
        environment["_FUSE_COMMFD"] = str(comm_fd)
    try:
        return subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            pass_fds=() if comm_fd is None else (comm_fd,),
        )
    except OSError as error:
        raise FusermountFailed(f"cannot run {program}: {error.strerror}") from error


def _finish(process: "subprocess.Popen[bytes]") -> str:
    try:
        _, message = process.communicate(timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"fusermount3 did not finish within {_TIMEOUT:.0f} s"
    return "; ".join(message.decode(errors="backslashreplace").split("\n")).strip("; ")
