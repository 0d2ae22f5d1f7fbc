"""A process that is root over its user's files, in a user namespace, and its client for `as_owner`.

A request is a descriptor and a call to make with it; an answer is an errno and a result. The process ends
with its parent, or after some seconds without a request.
"""

import contextlib
import ctypes
import errno
import os
import pickle
import socket
import sys
from struct import Struct
from typing import Any

from overlayfs_py.errors import fail
from overlayfs_py.syscalls.calls import Call, perform

_IDLE_SECONDS = 10.0
_ANSWER_SECONDS = 30.0
_READY = b"ready"
_MOST = 1 << 17  # bytes of a message; an extended attribute has at most 64 KiB
_FD = Struct("=i")
_CLONE_NEWUSER = 0x10000000

_Answer = tuple[int, Any]  # an errno, a result


class _Client:
    """Starts the process when it is needed; each of our processes has its own.

    Several threads may use it, and may be interrupted: each request has its own socket for the answer.
    """

    def __init__(self) -> None:
        self._pid = -1
        self._socket: socket.socket | None = None

    def ask(self, dir_fd: int, call: Call) -> tuple[bool, Any]:
        """Make the call in the process; return (True, result), or (False, None) if it may not make the call
        either, or cannot run. OSError: the call failed.
        """
        if self._pid != os.getpid():
            self._start()
        answer = self._try(dir_fd, call)
        if answer is None and self._socket is not None:  # it has ended since the last request
            self._start()
            answer = self._try(dir_fd, call)
        if answer is None or answer[0] == errno.EACCES:
            return False, None
        number, result = answer
        if number:
            fail(number)
        return True, result

    def _try(self, dir_fd: int, call: Call) -> _Answer | None:
        asked = self._socket
        if asked is None:
            return None
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with answers, contextlib.suppress(OSError):
            with theirs:
                socket.send_fds(asked, [pickle.dumps(call)], [dir_fd, theirs.fileno()])
            answers.settimeout(_ANSWER_SECONDS)
            message, fds = _receive(answers)
            if message:
                number, result = pickle.loads(message)
                return number, fds[0] if fds else result
        return None

    def _start(self) -> None:
        """Start the process; leave no socket if it does not answer."""
        if self._socket is not None:
            self._socket.close()
        self._pid, self._socket = os.getpid(), None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.suppress(OSError):
            _spawn(theirs)
            ours.settimeout(_ANSWER_SECONDS)
            if ours.recv(len(_READY)) == _READY:
                self._socket = ours
        if self._socket is None:
            ours.close()


def _receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Receive a message and its descriptors, close-on-exec, which socket.recv_fds does not support."""
    room = socket.CMSG_SPACE(2 * _FD.size)
    message, came, _, _ = connection.recvmsg(_MOST, room, socket.MSG_CMSG_CLOEXEC)
    return message, [fd for _, _, data in came for (fd,) in _FD.iter_unpack(data)]


def _spawn(theirs: socket.socket) -> None:
    """Run `serve` in a process whose standard input is this socket, and close the socket here."""
    actions = [
        (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    command = [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"]
    with theirs:
        pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=actions)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)  # only the intermediate child; the process is a grandchild


def serve() -> None:
    """Run the process: answer until the requests end."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # the caller's parent may wait for end of file of a pipe
    os.chdir("/")
    with contextlib.suppress(OSError), socket.socket(fileno=0) as asked:
        _enter()
        asked.settimeout(_IDLE_SECONDS)
        asked.send(_READY)
        while True:
            message, fds = _receive(asked)
            if not fds:
                return
            dir_fd, answers_fd = fds
            try:
                with socket.socket(fileno=answers_fd) as answers, contextlib.suppress(BrokenPipeError):
                    _answer(answers, dir_fd, pickle.loads(message))
            finally:
                os.close(dir_fd)


def _enter() -> None:
    """Become root over our own files by a user namespace; OSError where that is not allowed."""
    uid, gid = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _answer(answers: socket.socket, dir_fd: int, call: Call) -> None:
    try:
        result = perform(dir_fd, call)
    except OSError as error:
        answers.send(pickle.dumps((error.errno or errno.EIO, None)))
        return
    if not isinstance(result, int):
        answers.send(pickle.dumps((0, result)))
        return
    try:
        socket.send_fds(answers, [pickle.dumps((0, None))], [result])
    finally:
        os.close(result)


ask = _Client().ask
