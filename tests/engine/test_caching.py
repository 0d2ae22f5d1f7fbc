"""How long the kernel may keep what it got: the option `timeout`."""

import pytest

from overlayfs_py.engine.caching import cache_policy


@pytest.mark.parametrize("timeout", [0.5, 60.0, 86400.0])
def test_everything_is_kept_as_long_as_the_option_says(timeout: float) -> None:
    """Names, attributes, missing names alike: only the mount changes its layers."""
    policy = cache_policy(timeout)
    assert (policy.entry, policy.attr, policy.negative) == (timeout,) * 3
    assert policy.keep_pages


def test_nothing_is_kept_of_layers_that_others_change() -> None:
    """timeout=0: neither answers nor pages outlive their use."""
    policy = cache_policy(0)
    assert (policy.entry, policy.attr, policy.negative) == (0, 0, 0)
    assert not policy.keep_pages
