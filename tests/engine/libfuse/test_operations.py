"""The requests that pyfuse3 calls: each has a handler, and the gate knows all that change something.

What they answer is tested through mounts, by every test of tests/engine that has the fixture `engine`:
pyfuse3's reply objects and contexts come from the kernel's requests only.
"""

import inspect

import pytest

pyfuse3 = pytest.importorskip("pyfuse3")

from overlayfs_py.engine.base import CHANGING  # noqa: E402
from overlayfs_py.engine.libfuse.operations import HANDLERS, OverlayOperations  # noqa: E402

# Of pyfuse3's requests those that the kernel's caches or checks answer, or that no overlay has.
_LEFT_OUT = {"access", "flush", "fsyncdir", "init", "poll", "stacktrace"}


def test_every_request_of_pyfuse3_has_a_handler() -> None:
    offered = {
        name
        for name, method in vars(pyfuse3.Operations).items()
        if not name.startswith("_") and callable(method)
    }
    assert offered - set(HANDLERS) <= _LEFT_OUT
    assert set(HANDLERS) <= offered


@pytest.mark.parametrize("name", sorted(HANDLERS))
def test_a_handler_takes_what_pyfuse3_gives(name: str) -> None:
    """The same arguments in the same order: pyfuse3 calls it by position."""
    ours = list(inspect.signature(getattr(OverlayOperations, name)).parameters)
    theirs = list(inspect.signature(getattr(pyfuse3.Operations, name)).parameters)
    assert len(ours) == len(theirs)


def test_what_changes_something_is_known_by_its_name() -> None:
    """pyfuse3 has no handler for the rest of what changes something (fallocate, copy_file_range, tmpfile)."""
    missing = CHANGING - set(HANDLERS)
    assert missing == {"tmpfile", "rename2", "fallocate", "copy_file_range", "copy_file_range_64"}
