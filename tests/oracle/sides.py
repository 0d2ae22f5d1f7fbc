"""The two sides of a comparison: each has a tree on which users run operations."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from tests import rawcalls
from tests.mounts import KernelMount, Layers, OverlayMount
from tests.oracle import crowd
from tests.oracle.operations import Outcome
from tests.oracle.workers import USERS, Hung, Worker
from tests.snapshots import DirReader, Reader, Status


class Side(Protocol):
    """What a comparison needs of a file system."""

    name: str
    moves_times: bool  # times of directories move by themselves

    def start(self, layers: Layers, options: Mapping[str, str]) -> None: ...
    def stop(self) -> None: ...
    def run(self, user: int, name: str, arguments: tuple[object, ...]) -> Outcome: ...
    def forget(self) -> None: ...
    def reader(self) -> Reader: ...
    def probe(self, path: bytes) -> Status | str: ...
    def explain(self) -> str: ...
    def end_workers(self) -> None: ...


Mount = KernelMount | OverlayMount


class MountSide:
    """A side that is a mount of the machine; its users are processes, kept from one stack to the next.

    `late_copies`: it copies up at the first write, not at the open for it. `ground`: where the crowd of files
    is kept that it knows besides, when one is asked for (FILES).
    """

    moves_times = False

    def __init__(
        self,
        name: str,
        mount: Callable[[Layers, Mapping[str, str]], Mount],
        *,
        late_copies: bool = False,
        ground: Path | None = None,
    ) -> None:
        self._ground = ground if crowd.FILES else None
        self._late_copies = late_copies
        self.name = name
        self._mount = mount
        self._mounted: Mount | None = None
        self._workers: dict[int, Worker] = {}
        self._attached: set[int] = set()

    def start(self, layers: Layers, options: Mapping[str, str]) -> None:
        if self._ground:
            layers = replace(layers, lowers=(*layers.lowers, crowd.lower(self._ground)))
        mounted = self._mount(layers, options)
        mounted.__enter__()
        self._mounted = mounted
        if self._ground:
            crowd.meet(mounted.root)

    @property
    def root(self) -> bytes:
        assert self._mounted is not None
        return self._mounted.root

    def stop(self) -> None:
        """Unmount; afterwards nothing of it is left, whatever happened before."""
        mounted, self._mounted = self._mounted, None
        try:
            for worker in self._workers.values():
                worker.attach(None)
        except (AssertionError, OSError):
            if isinstance(mounted, OverlayMount):
                mounted.kill()
            self.end_workers()
        if mounted is not None:
            mounted.__exit__(None, None, None)
        self._attached.clear()

    def run(self, user: int, name: str, arguments: tuple[object, ...]) -> Outcome:
        if user not in self._workers:
            self._workers[user] = Worker(USERS[user], late_copies=self._late_copies)
        if user not in self._attached:
            self._workers[user].attach(self.root)
            self._attached.add(user)
        try:
            return self._workers[user].run(name, arguments)
        except Hung as error:
            log = self._mounted.output() if isinstance(self._mounted, OverlayMount) else ""
            raise Hung(f"{self.name}: {error}\n{log}") from None

    def end_workers(self) -> None:
        for worker in self._workers.values():
            worker.stop()
        self._workers.clear()

    def forget(self) -> None:
        """Make the kernel drop what it remembers of this mount, as memory pressure would."""
        rawcalls.remount(self.root)

    def press(self) -> None:
        """The same at any moment, from another thread; nothing while it is not mounted."""
        mounted = self._mounted
        if mounted is not None:
            with contextlib.suppress(OSError):
                rawcalls.remount(mounted.root)

    def reader(self) -> Reader:
        return crowd.WithoutCrowd(self.root) if self._ground else DirReader(self.root)

    def probe(self, path: bytes) -> Status | str:
        try:
            return self.reader().status(path)
        except OSError as error:
            return rawcalls.errno_name(error)

    def explain(self) -> str:
        """What the daemon printed: a traceback, when there is one."""
        return self._mounted.output()[-3000:] if isinstance(self._mounted, OverlayMount) else ""


def kernel_side(name: str = "kernel", *, ground: Path | None = None, **forced: str) -> MountSide:
    """Kernel overlayfs; `forced` options make a side that is wrong on purpose."""
    return MountSide(name, lambda layers, options: KernelMount(layers, {**options, **forced}), ground=ground)


def overlay_side(engine: str, *, ground: Path | None = None) -> MountSide:
    """Ours, with the named engine."""
    return MountSide(
        f"ours[{engine}]",
        lambda layers, options: OverlayMount(layers, options, engine=engine),
        late_copies=engine in {"native", "writeback"},
        ground=ground,
    )
