"""Who may keep set-user-ID and set-group-ID bits of a file they change."""

import os

import pytest

from overlayfs_py.engine.setid import in_group, may_keep_setid, without_setid


@pytest.mark.parametrize(
    ("mode", "after"), [(0o4755, 0o755), (0o2755, 0o755), (0o2745, 0o2745), (0o6711, 0o711), (0o644, 0o644)]
)
def test_without_setid(mode: int, after: int) -> None:
    assert without_setid(mode) == after


def test_setgid_without_execution_is_for_members() -> None:
    assert without_setid(0o2745, member=False) == 0o745
    assert without_setid(0o6666, member=True) == 0o2666


def test_who_may_keep_setid() -> None:
    assert not may_keep_setid(1000, os.getpid())
    assert may_keep_setid(0, 2**22 + 1)  # a process we cannot see, but root


def test_group_membership() -> None:
    assert in_group(5, 5, 0)
    assert all(in_group(gid, -1, os.getpid()) for gid in os.getgroups())
    assert not in_group(987654, 0, os.getpid())
