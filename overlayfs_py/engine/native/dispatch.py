"""From a message to its answer: find the row and the handler, map errors, delay answers.

It needs no device: messages are bytes, and answers go to `send`, so tests and the fuzzer use it directly.
"""

import errno
import functools
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from inspect import CO_VARARGS
from types import CodeType

from overlayfs_py.engine.base import ErrorTranslator, wants_descriptors
from overlayfs_py.engine.native import gate, message, wire
from overlayfs_py.engine.native.attributes import AttributeRequests
from overlayfs_py.engine.native.deferral import FROZEN, Busy, Postponed
from overlayfs_py.engine.native.directories import DirectoryRequests, handed_out
from overlayfs_py.engine.native.durability import DurabilityRequests
from overlayfs_py.engine.native.files import FileRequests
from overlayfs_py.engine.native.forgetting import ForgetRequests
from overlayfs_py.engine.native.message import MalformedMessage, Request
from overlayfs_py.engine.native.names import NameRequests
from overlayfs_py.engine.native.negotiation import Negotiated, SessionOptions, VersionRefused, negotiate
from overlayfs_py.engine.native.opens import OpenRequests
from overlayfs_py.engine.native.pipes import Body, Piped
from overlayfs_py.engine.native.state import Handler, SessionState
from overlayfs_py.errors import OUT_OF_SPACE, fail

log = logging.getLogger("overlayfs_py.engine.native")

# Opcodes answered with ENOSYS; the kernel never sends them again after that.
REFUSED = {
    "OPEN": "opens then need no request (benchmarks: open+read+close, repeated)",
    "OPENDIR": "as OPEN, and listings stay cached (benchmarks: list 10,000 names, repeated)",
    "CREATE": "MKNOD makes the file, and no OPEN follows (benchmarks: create+write+close)",
    "FLUSH": "no data is held back until a close",
    "ACCESS": "the kernel checks permissions itself",
    "GETLK": "the kernel keeps locks itself",
    "SETLK": "the kernel keeps locks itself",
    "SETLKW": "the kernel keeps locks itself",
    "BMAP": "blocks belong to the layers",
    "POLL": "files are always ready",
}


_OPENING = {"OPEN", "CREATE", "TMPFILE"}
_header = wire.OUT_HEADER.pack


class SessionEnd(Exception):
    """The session ended, or could not begin; the text says why if that is an error."""


class Dispatcher:
    """Answers messages. `send` takes the parts of one answer; False: the kernel no longer waits for it.

    `requested` is what INIT should negotiate; `agreed` is called with the result before the next message.
    """

    def __init__(
        self,
        state: SessionState,
        send: Callable[..., bool],
        requested: SessionOptions,
        *,
        agreed: Callable[[Negotiated], None] = lambda session: None,
        debug: bool = False,
    ) -> None:
        self._state = state
        self._send = send
        self._requested = requested
        self._agreed = agreed
        self._debug = debug
        self._errors = ErrorTranslator()
        self.opens = OpenRequests(state)
        self._handlers = self._find_handlers(no_open=requested.no_open)
        self._thawed: dict[int, Handler] | None = None
        self._spared_for = 0  # the last request that was repeated after all cached descriptors were closed
        # For `statistics`: messages by opcode; refusals by name and errno.
        self.counts = [0] * (max(wire.OPS) + 1)
        self.refusals: Counter[tuple[str, int]] = Counter()

    def _find_handlers(self, *, no_open: bool) -> dict[int, Handler]:
        state = self._state
        homes = (
            {} if no_open else _methods(self.opens),
            self._protocol_handlers(),
            _methods(NameRequests(state)),
            _methods(ForgetRequests(state.forgotten)),
            _methods(AttributeRequests(state)),
            _methods(FileRequests(state)),
            _methods(DurabilityRequests(state)),
            _methods(DirectoryRequests(state)),
        )
        return {row.opcode: _handler(row, homes) for row in wire.OPS.values()}

    def _protocol_handlers(self) -> dict[str, Handler]:
        """Return the handlers of the session itself, and of the opcodes that this engine refuses."""
        found: dict[str, Handler] = {name.lower(): _refuse for name in REFUSED}
        for handler in (self.init, self.interrupt, self.destroy, self.notify_reply):
            found[handler.__name__] = handler
        return found

    # -- one message ---------------------------------------------------------------------------

    def serve(self, buffer: bytearray | bytes, length: int) -> None:
        """Answer the message in the first `length` bytes of `buffer`, now or later."""
        try:
            request = message.parse(buffer, length)
        except MalformedMessage as error:
            if error.code != errno.ENOSYS:
                log.warning("malformed message: %s", error)
            if error.unique:
                self._send(message.refusal(error.unique, error.code))
            return
        opcode = request.op.opcode
        self.counts[opcode] += 1
        if self._debug:
            log.debug("%r", request)
        try:
            body = self._handlers[opcode](request, *request.arguments)
        except Postponed as later:
            self._postpone(later, request, bytes(buffer[:length]))
        except Busy as busy:
            again = functools.partial(self._again, request.unique, bytes(buffer[:length]))
            self._state.deferrals.expect(request.unique)
            self._state.deferrals.after(busy.node, again)
        except SessionEnd:
            raise
        except Exception as error:
            if self._made_room(request, error):
                self._once_more(buffer, length)
            elif self._others_hold_descriptors(error):
                self._state.deferrals.expect(request.unique)
                copy = bytes(buffer[:length])
                self._state.deferrals.after_any(lambda: self._again(request.unique, copy))
            else:
                self._refuse(request, error)
        else:
            if isinstance(body, int):
                self.refusals[request.op.name, body] += 1
                self._send(message.refusal(request.unique, body))
            elif request.op.answered:
                self._answer(request, body or b"")

    def _answer(self, request: Request, body: Body) -> None:
        if self._state.listings.stale:
            # A copy: other requests use the buffers meanwhile.
            kept = body.taken_back() if isinstance(body, Piped) else bytes(body)
            self._after_listings(lambda: self._answer(request, kept))
            return
        if not self._send(_header(16 + len(body), 0, request.unique), body):
            self._unwanted(request, body)

    def _unwanted(self, request: Request, body: Body) -> None:
        """The kernel dropped the answer: take back what it handed out, since no FORGET or RELEASE will."""
        if isinstance(body, Piped):
            return
        if request.op.name in _OPENING and self.opens:
            self.opens.give_up(body)
        if request.op.hands_out:
            self._state.take_back(wire.ENTRY_OUT.unpack_from(body)[0], 1)
        elif request.op.name == "READDIRPLUS":
            for nodeid in handed_out(body):
                self._state.take_back(nodeid, 1)

    def _made_room(self, request: Request, error: Exception) -> bool:
        """Free blocks or descriptors after a full disk or an exhausted process; whether to try again.

        Nodes that the kernel has forgotten may hold both.
        """
        if isinstance(error, OSError) and error.errno in OUT_OF_SPACE:
            return self._state.forgotten.clear()
        if not wants_descriptors(error) or self._spared_for == request.unique:
            return False
        self._spared_for = request.unique  # closing what the second try opens would not help
        return self._state.forgotten.clear() | self._state.overlay.spare_descriptors()

    def _others_hold_descriptors(self, error: Exception) -> bool:
        """Whether workers hold descriptors that the request lacks: it is repeated when one has ended."""
        return wants_descriptors(error) and self._state.deferrals.running > 0

    def _refuse(self, request: Request, error: Exception) -> None:
        if self._state.listings.stale:  # it copied something up before it failed
            self._after_listings(lambda: self._refuse(request, error))
            return
        code = self._errors.reply_error(request.op.name, error)
        self.refusals[request.op.name, code] += 1
        if self._debug:
            log.debug("  #%d: %s", request.unique, errno.errorcode.get(code, code))
        if request.op.answered:
            self._send(message.refusal(request.unique, code))

    # -- answers that come later ---------------------------------------------------------------

    def _postpone(self, later: Postponed, request: Request, copy: bytes) -> None:
        deferrals = self._state.deferrals
        deferrals.expect(request.unique)
        deferrals.start(later.work, lambda error: self._settle(later, request, copy, error), later.node)

    def _settle(self, later: Postponed, request: Request, copy: bytes, failure: BaseException | None) -> None:
        """A worker has finished: answer or repeat the request, then the requests that waited for it."""
        deferrals = self._state.deferrals
        body, error = None, None
        try:
            body = later.settle(failure)
        except Exception as caught:
            error = None if self._made_room(request, caught) else caught
        waiting = deferrals.release(later.node)
        if error is not None:
            if deferrals.claim(request.unique):
                self._refuse(request, error)
        elif body is None:
            self._again(request.unique, copy)
        elif deferrals.claim(request.unique):
            self._answer(request, body)
        for then in waiting:
            then()

    def _again(self, unique: int, copy: bytes) -> None:
        if self._state.deferrals.claim(unique):
            self._once_more(copy, len(copy))

    def _once_more(self, message: bytearray | bytes, length: int) -> None:
        self.counts[wire.IN_HEADER.unpack_from(message)[1]] -= 1  # it was counted on arrival
        self.serve(message, length)

    def _after_listings(self, then: Callable[[], None]) -> None:
        """Send the answer once the kernel has dropped its stale listings.

        It cannot be interrupted any more, since the request is carried out.
        """
        state = self._state
        stale, state.listings.stale = state.listings.stale, []
        state.deferrals.start(lambda: state.notices.drop_pages(stale), lambda _: then())

    # -- frozen --------------------------------------------------------------------------------

    def freeze(self, *, write_back: bool) -> None:
        """Hold changing requests until `thaw`; may be called again with another `write_back`.

        `write_back`: pages changed through mappings may still be written.
        """
        if self._thawed is None:
            self._thawed = self._handlers
        self._handlers = gate.closed(self._thawed, write_back=write_back)
        self._state.deferrals.hold()

    def thaw(self) -> None:
        """Carry out the held requests in order; idempotent."""
        if self._thawed is not None:
            self._handlers, self._thawed = self._thawed, None
            for again in self._state.deferrals.release(FROZEN):
                again()

    # -- the session itself --------------------------------------------------------------------

    def init(
        self, request: Request, major: int, minor: int, max_readahead: int, flags: int, rest: memoryview
    ) -> bytes:
        try:
            session = negotiate(major, minor, max_readahead, flags, rest, self._requested)
        except VersionRefused as error:
            self._send(message.refusal(request.unique, errno.EPROTO))
            raise SessionEnd(str(error)) from None
        if session is None:
            return wire.INIT_OUT.pack(wire.MAJOR, wire.MINOR, *(0,) * 11)
        self._handlers = self._find_handlers(no_open=session.has(wire.Init.NO_OPEN_SUPPORT))
        self._agreed(session)
        return session.reply

    def interrupt(self, request: Request, unique: int) -> None:
        """Answer EINTR to a waiting request; a copy in progress continues, for the next request."""
        if self._state.deferrals.claim(unique):
            self._send(message.refusal(unique, errno.EINTR))

    def destroy(self, request: Request) -> bytes:
        return b""

    def notify_reply(self, request: Request, payload: memoryview) -> None:
        """The answer to NOTIFY_RETRIEVE, which this engine never sends."""


def _handler(row: wire.Op, homes: Sequence[Mapping[str, Handler]]) -> Handler:
    """Return the first handler for the row; ValueError if there is none, or if its arguments do not match."""
    for home in homes:
        handler = home.get(row.handler)
        if handler is None:
            continue
        code: CodeType = getattr(handler, "__func__", handler).__code__
        # Not inspect.signature, which takes 8 ms for all of them (benchmarks: start to a usable mount).
        takes = code.co_argcount - (handler is not _refuse) - 1  # besides self and the request
        if takes != row.arity and not (code.co_flags & CO_VARARGS and takes < row.arity):
            raise ValueError(f"{row.name} has {row.arity} arguments, its handler takes {takes}")
        return handler
    raise ValueError(f"{row.name} has no handler")


def _refuse(request: Request, *arguments: object) -> bytes:
    fail(errno.ENOSYS)


def _methods(home: object) -> dict[str, Handler]:
    """Return the handlers of an object by name."""
    return {name: getattr(home, name) for name in vars(type(home)) if not name.startswith("_")}
