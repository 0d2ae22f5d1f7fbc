"""The control socket: JSON lines in both directions, with a table of verbs from the daemon.

A request is ``{"verb": NAME, ...arguments}``, an answer ``{"ok": true, "result": ...}`` or
``{"ok": false, "error": MESSAGE}``. A connection may send several requests; callbacks that a verb puts on the
connection's ExitStack run when it closes.
"""

import errno
import json
import logging
import os
import resource
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from typing import Any

import trio

from overlayfs_py.errors import OverlayError, shown
from overlayfs_py.service.rundir import address_of, make_run_dir, places_for, socket_path

log = logging.getLogger("overlayfs_py.control")

Verb = Callable[[Mapping[str, Any], ExitStack], Awaitable[object]]
_LONGEST_REQUEST = 65536
_BACKLOG = 16
_SEND_TIMEOUT = 5.0


class ControlSocket:
    """Owns the listening socket and its name in a run directory until `close`.

    `run_dir` is tried first. OSError when no directory works; it is that of the first.
    """

    def __init__(self, run_dir: bytes, mountpoint: bytes, verbs: Mapping[str, Verb]) -> None:
        self._verbs = verbs
        first: OSError | None = None
        for place in places_for(run_dir):
            try:
                self.path = socket_path(place, mountpoint, os.getpid())
                self._listening = _listen(self.path)
                break
            except OSError as error:
                first = first or error
        else:
            assert first is not None
            raise first
        if first is not None:
            why = first.strerror or str(first)
            log.warning("control socket is in %s instead of %s: %s", shown(place), shown(run_dir), why)

    def close(self) -> None:
        """Remove the socket; idempotent."""
        if self._listening.fileno() >= 0:
            self._listening.close()
            _unlink(self.path)

    async def serve(self) -> None:
        """Answer until cancelled."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._listening.dup()))
        await trio.serve_listeners(self._converse, [listener])

    async def _converse(self, stream: trio.SocketStream) -> None:
        async with stream:
            waiting = b""
            try:
                with ExitStack() as conversation:
                    while piece := await stream.receive_some(_LONGEST_REQUEST):
                        *lines, waiting = (waiting + piece).split(b"\n")
                        for line in lines:
                            if not await self._reply(stream, line, conversation):
                                return
                        if len(waiting) > _LONGEST_REQUEST:
                            return
            except trio.BrokenResourceError:  # the client has closed the connection
                pass

    async def _reply(self, stream: trio.SocketStream, line: bytes, conversation: ExitStack) -> bool:
        """Carry out a request and send the answer, even when the daemon is ending; False: it is not read."""
        with trio.CancelScope(shield=True):
            answer = await self._answer(line, conversation)
        with trio.move_on_after(_SEND_TIMEOUT, shield=True):
            await stream.send_all(answer + b"\n")
            return True
        return False

    async def _answer(self, line: bytes, conversation: ExitStack) -> bytes:
        try:
            request = json.loads(line)
            verb = self._verbs.get(request["verb"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return _failure("expected one JSON object with a verb on each line")
        if verb is None:
            return _failure(f"unknown verb {request['verb']}; there are {', '.join(self._verbs)}")
        try:
            return json.dumps({"ok": True, "result": await verb(request, conversation)}).encode()
        except OverlayError as error:
            return _failure(str(error))
        except OSError as error:
            log.warning("control verb %s failed: %s", request["verb"], error)
            return _failure(_why_not(error))
        except Exception as error:
            log.exception("control verb %s failed", request["verb"])
            return _failure(f"internal error of the daemon: {type(error).__name__}; see its log")


def _why_not(error: OSError) -> str:
    """Say what failed in the daemon, and what helps."""
    daemon = f"the daemon (pid {os.getpid()})"
    if error.errno == errno.EMFILE:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return (
            f"{daemon} has no file descriptor left (its limit is {limit}): close files on the mount, "
            "or mount it again with a higher limit (ulimit -Hn, or LimitNOFILE= of a unit)"
        )
    if error.errno == errno.ENFILE:
        return f"{daemon} gets no file descriptor: the system has none left (sysctl fs.file-max)"
    what = error.strerror or str(error)
    return f"{daemon} failed: {what}" + (f": {_path(error.filename)}" if error.filename else "")


def _path(name: object) -> str:
    return shown(name) if isinstance(name, bytes) else str(name)


def _failure(message: str) -> bytes:
    return json.dumps({"ok": False, "error": message}).encode()


def _listen(path: bytes) -> socket.socket:
    """Return a listening socket at `path`, accessible to its owner only."""
    make_run_dir(os.path.dirname(path))
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    umask = os.umask(0o177)
    try:
        _unlink(path)  # left by a killed daemon with the same pid
        with address_of(path) as address:
            listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(umask)
    return listening


def _unlink(path: bytes) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
