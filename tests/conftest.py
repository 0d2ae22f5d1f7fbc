"""Fixtures every test directory shares: layers, our mounts, the kernel's, and what they need."""

import os
import signal
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests import workers
from tests.mounts import (
    KernelMount,
    Layers,
    LowerLayers,
    OverlayMount,
    engines,
    make_layers,
    quick_ground,
    scratch,
)

Mounter = Callable[..., OverlayMount]


def pytest_configure(config: pytest.Config) -> None:
    """SIGTERM, as timeout(1) and CI send it, ends tests as Ctrl-C does: their mounts are unmounted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What is ignored, as under nohup(1), programs under test would ignore too; a handler they do not inherit.
    for number in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _ignore)
    if workers.is_worker():
        signal.signal(signal.SIGHUP, _ignore)  # they end with who started them
        workers.take_interrupts()
        if os.geteuid() == 0:
            workers.take_own_mounts()
    if getattr(config.option, "numprocesses", None):
        config.pluginmanager.register(workers.Overseer())


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


@pytest.hookimpl(tryfirst=True)
def pytest_keyboard_interrupt() -> None:
    if workers.is_worker():
        workers.ignore_interrupts()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot do, saying which ability is missing; the slowest tests come first."""
    lacking = []
    if os.geteuid() != 0:
        lacking.append(("root", "needs root"))
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        lacking.append(("fuse", "needs /dev/fuse"))
    for item in items:
        for marker, reason in lacking:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
    if workers.is_worker():
        items.sort(key=_order)


def _order(item: pytest.Item) -> int:
    """Workers should end at the same time, and those that run alone wait for everybody."""
    return 2 if item.get_closest_marker("alone") else 0 if item.get_closest_marker("slow") else 1


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside the test's time limit
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """In a parallel run each test waits for its turn."""
    if not workers.is_worker():
        return (yield)
    with workers.turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture(scope="session")
def ground() -> Iterator[Path]:
    """A quick file system for tests that make many stacks: scratch(under=ground)."""
    with quick_ground() as path:
        yield path


@pytest.fixture
def where() -> Iterator[Path]:
    """A directory of the test's own on a file system fit for an upper; gone afterwards, mounts too."""
    with scratch() as path:
        yield path


@pytest.fixture
def layers(where: Path) -> Layers:
    """One lower, upper, work, merged; all empty."""
    return make_layers(where)


@pytest.fixture(params=engines())
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine there is."""
    return str(request.param)


@pytest.fixture
def mount(engine: str) -> Iterator[Mounter]:
    """mount(layers, options) -> a live OverlayMount of the engine at hand; unmounted at the end."""
    with ExitStack() as stack:

        def start(layers: LowerLayers, options: Mapping[str, str] | None = None, **more: Any) -> OverlayMount:
            return stack.enter_context(OverlayMount(layers, options or {}, engine=engine, **more))

        yield start


@pytest.fixture
def mounted(layers: Layers, mount: Mounter) -> OverlayMount:
    """`layers`, mounted without options."""
    return mount(layers)


@pytest.fixture
def kernel_overlay() -> Iterator[Callable[..., KernelMount]]:
    """kernel_overlay(layers, options) -> a live kernel overlayfs mount; unmounted at the end."""
    with ExitStack() as stack:

        def start(layers: LowerLayers, options: Mapping[str, str] | None = None) -> KernelMount:
            return stack.enter_context(KernelMount(layers, options))

        yield start
