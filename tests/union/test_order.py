"""The order of names: every reader's place in it stays good, whatever changes."""

import random

import pytest

from overlayfs_py.union import order
from overlayfs_py.union.order import NameOrder

Cookies = dict[bytes, int]


def names(count: int, prefix: bytes = b"n") -> list[bytes]:
    return [b"%s%d" % (prefix, n) for n in range(count)]


def listed(found: NameOrder, cookie: int = 0, most: int = 7) -> list[tuple[int, bytes]]:
    """All behind `cookie`, read in parts."""
    rows = []
    while part := found.after(cookie, most):
        assert len(part) <= most
        rows += part
        cookie = part[-1][0]
    return rows


def check(found: NameOrder, expected: set[bytes], before: Cookies) -> Cookies:
    """Each name once, in the order of cookies, which are those of before; the cookies."""
    rows = listed(found, most=100)
    cookies = [row[0] for row in rows]
    assert cookies == sorted(set(cookies))
    assert all(2 < cookie < 1 << 63 for cookie in cookies)
    assert sorted(row[1] for row in rows) == sorted(expected)
    now = {name: cookie for cookie, name in rows}
    assert all(now[name] == cookie for name, cookie in before.items() if name in now)
    return now


@pytest.fixture(params=[1 << 36, 1 << 12, 64, 16], ids=["usual", "some twins", "many twins", "twins only"])
def numbers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many different numbers names have."""
    values: int = request.param
    monkeypatch.setattr(order, "_made_from", lambda name: hash(name) % values * 8 | 4)
    return values


@pytest.mark.parametrize("count", [0, 1, 600, 5000])
def test_changes(numbers: int, count: int) -> None:
    count = min(count, 4 * numbers)
    there = set(names(count))
    found = NameOrder(there)
    cookies = check(found, there, {})
    chance = random.Random(count)
    for n in range(40):
        for name in chance.sample(sorted(there), min(len(there), 20)):
            found.remove(name)
            there.remove(name)
            del cookies[name]
        for name in names(chance.randrange(1, 150 if numbers > 64 else 3), b"new%d." % n):
            found.add(name)
            there.add(name)
        cookies = check(found, there, cookies)


def test_growing_and_shrinking() -> None:
    found = NameOrder()
    there = names(20_000)
    for name in there:
        found.add(name)
    check(found, set(there), {})
    for name in there:
        found.remove(name)
    assert found.after(0, 10) == []


def test_what_changes_before_it_is_complete(numbers: int) -> None:
    there = names(min(10_000, 4 * numbers))
    found, steps = NameOrder.begun(there)
    expected = set(there)
    for n, _ in enumerate(steps):
        assert found._later is not None
        found.remove(there[n])
        found.add(b"new%d" % n)
        expected ^= {there[n], b"new%d" % n}
    assert found._later is None
    check(found, expected, {})


def test_behind_the_last() -> None:
    found = NameOrder(names(10))
    assert found.after((1 << 64) - 1, 5) == []
    assert [row[1] for row in listed(found, most=1)] == [row[1] for row in listed(found, most=100)]
