"""One process for each user and tree: it is that user, and it alone touches the tree."""

import contextlib
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from typing import NamedTuple

from tests.oracle.operations import Interpreter, Outcome
from tests.oracle.vfs import LateCopyVfs, OsVfs, become

ANSWER_TIMEOUT = 20.0


class User(NamedTuple):
    """Who operations run as."""

    uid: int
    gid: int
    groups: tuple[int, ...]


USERS = (User(0, 0, ()), User(1000, 1000, (1000, 2000)), User(1001, 1001, (1001, 2000)))


class Hung(AssertionError):
    """An operation did not come back."""


class Worker:
    """A process that runs operations as a user; `attach` gives it another tree.

    `late_copies`: the tree copies up at the first write, not at the open for it.
    """

    def __init__(self, user: User, *, late_copies: bool = False) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, user, late_copies), daemon=True)
        self._process.start()
        theirs.close()

    def attach(self, root: bytes | None) -> None:
        """Forget the old tree's open files; None: hold nothing, so that it can be unmounted."""
        self._ask(("attach", root))

    def run(self, name: str, arguments: tuple[object, ...]) -> Outcome:
        return self._ask((name, *arguments))

    def _ask(self, message: tuple[object, ...]) -> Outcome:
        self._pipe.send(message)
        if not self._pipe.poll(ANSWER_TIMEOUT):
            raise Hung(f"no answer to {message!r} in {ANSWER_TIMEOUT} s")
        try:
            kind, value = self._pipe.recv()
        except EOFError:
            raise AssertionError(
                f"the process died in {message!r}, exit code {self._process.exitcode}"
            ) from None
        if kind == "crash":
            raise AssertionError(f"{message!r}: {value}")
        return (kind, value)

    def stop(self) -> None:
        """End the process; one that hangs in a dead mount is killed."""
        with contextlib.suppress(OSError):
            self._pipe.send(("stop",))
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(10)
        self._pipe.close()


def _serve(pipe: Connection, user: User, late_copies: bool) -> None:
    # Descriptors of the parent's, as a lock on a work directory, must not live on here.
    os.closerange(3, pipe.fileno())
    os.closerange(pipe.fileno() + 1, 1 << 16)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    become(user.uid, user.gid, list(user.groups))
    interpreter: Interpreter | None = None
    while True:
        name, *arguments = pipe.recv()
        if name == "stop":
            return
        try:
            if name == "attach":
                interpreter = _attach(interpreter, arguments[0], late_copies)
                pipe.send(("ok", None))
            else:
                assert interpreter is not None
                pipe.send(interpreter.run(name, tuple(arguments)))
        except Exception as error:
            pipe.send(("crash", f"{type(error).__name__}: {error}"))


def _attach(previous: Interpreter | None, root: bytes | None, late_copies: bool) -> Interpreter | None:
    if previous is not None:
        previous.close_all()
    if root is None:
        return None
    vfs = LateCopyVfs(root) if late_copies else OsVfs(root)
    vfs.umask(0o022)
    return Interpreter(vfs)
