"""Fixtures every test directory shares: layers, our mounts, the kernel's, and what they need."""

import os
import re
import signal
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import workers
from tests.mounts import KernelMount, Layers, OverlayMount, engines, make_layers, quick_ground, scratch

Mounter = Callable[..., OverlayMount]


def pytest_configure() -> None:
    """SIGTERM, as timeout(1) and CI send it, ends tests as Ctrl-C does: their mounts are unmounted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if workers.is_worker() and os.geteuid() == 0:
        workers.take_own_mounts()


@pytest.hookimpl(tryfirst=True)
def pytest_keyboard_interrupt() -> None:
    """With workers, their mounts are unmounted as well."""
    if workers.is_worker():
        workers.ignore_interrupts()
    else:
        workers.end_workers()


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


# Tests that one worker does one after the other: they share what starts slowly, or one place of the machine.
TOGETHER = (
    r"tests/packaging/test_service_unit\.py::TestUnderSystemd",  # a booted machine
    r"tests/packaging/test_install\.py",  # an installation
    r"tests/layerstore/test_docker\.py",  # a dockerd
    # the command in /usr/local/bin
    r"tests/service/test_remount\.py::test_(mount_8|source|fstab)|tests/test_cli\.py::test_mount_8$",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """The main process hands out each test, and those of a row of TOGETHER as one.

    Its own option for that, --dist loadgroup, does nothing with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((row for row in TOGETHER if re.match(row, nodeid)), nodeid)

    return Scheduling(config, log)


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


@pytest.fixture(params=engines() or [pytest.param("none", marks=pytest.mark.skip(reason="no engine yet"))])
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine there is."""
    return str(request.param)


@pytest.fixture
def mount(engine: str) -> Iterator[Mounter]:
    """mount(layers, options) -> a live OverlayMount of the engine at hand; unmounted at the end."""
    with ExitStack() as stack:

        def start(layers: Layers, options: Mapping[str, str] | None = None, **more: bool) -> OverlayMount:
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

        def start(layers: Layers, options: Mapping[str, str] | None = None) -> KernelMount:
            return stack.enter_context(KernelMount(layers, options))

        yield start
