"""Platforms, pauses, workers: the parts that need no registry."""

import email.utils
import threading
import time
from functools import partial

import httpx
import pytest

from layerstore.digest import Digest
from layerstore.errors import InvalidReference, NotFound
from layerstore.image import platforms
from layerstore.model import Descriptor, Platform
from layerstore.transport.base import RegistryOptions, Stop
from layerstore.transport.errors import RegistryError, Stopped, Transient
from layerstore.transport.retry import Retry, asked_wait
from layerstore.transport.workers import run_all


def entries(*texts: str) -> list[Descriptor]:
    return [
        Descriptor(
            media_type="x",
            digest=Digest.of(text.encode()),
            size=number,
            platform=platforms.parse(text) if text else None,
        )
        for number, text in enumerate(texts)
    ]


def test_platforms() -> None:
    assert platforms.parse("arm64") == Platform(os="linux", architecture="arm64")
    assert platforms.parse("Linux/x86_64") == Platform(os="linux", architecture="amd64")
    assert platforms.shown(platforms.parse("linux/arm/v7")) == "linux/arm/v7"
    for text in ("", "/", "linux/", "a/b/c/d", "//"):
        with pytest.raises(InvalidReference, match="not a platform"):
            platforms.parse(text)


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("arm", ["linux/arm64", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], 3),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v6"], 1),
        ("arm64", ["linux/amd64", "linux/arm64/v9", "linux/arm64"], 2),
        ("linux/arm64/v8", ["linux/amd64", "linux/arm64"], 1),
        ("amd64", ["windows/amd64", "linux/amd64"], 1),
        ("amd64", ["", "linux/amd64"], 1),
        ("amd64", ["linux/arm64", ""], 1),
    ],
)
def test_choosing(wanted: str, offered: list[str], chosen: int) -> None:
    """The variant asked for, else the usual one; an entry without a platform only when nothing else fits."""
    assert platforms.choose(entries(*offered), platforms.parse(wanted), "x").size == chosen


def test_nothing_to_choose() -> None:
    for offered in ([], ["linux/arm/v7"], ["windows/arm"]):
        with pytest.raises(NotFound, match="x has no image for linux/arm/v6; it has"):
            platforms.choose(entries(*offered), platforms.parse("linux/arm/v6"), "x")


def test_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """They grow, progress sets them back, and there is an end."""
    slept: list[float] = []
    stop = Stop()
    monkeypatch.setattr(stop, "sleep", slept.append)
    retry = Retry("cannot", RegistryOptions(attempts=4, backoff=1), stop)
    for _ in range(3):
        retry.pause(Transient("x"))
    assert 0.75 <= slept[0] <= 1.25 < 1.5 <= slept[1] <= 2.5 < 3 <= slept[2] <= 5
    with pytest.raises(RegistryError, match=r"cannot: x \(gave up after 4 attempts\)"):
        retry.pause(Transient("x"))
    retry.progressed()
    retry.pause(Transient("x", after=20))
    assert slept[-1] == 20
    with pytest.raises(RegistryError, match="requests a pause of 61 seconds"):
        retry.pause(Transient("x", after=61))


def test_retry_after() -> None:
    def wait(text: str) -> float | None:
        return asked_wait(httpx.Response(429, headers={"Retry-After": text}))

    assert wait("7") == 7
    soon = wait(email.utils.formatdate(time.time() + 30, usegmt=True))
    assert soon is not None
    assert 25 < soon <= 31
    assert wait(email.utils.formatdate(5, usegmt=True)) == 0
    assert [wait(text) for text in ("", "-1", "soon", "9" * 500 + "x")] == [None] * 4


def test_workers() -> None:
    """The first failure is told, what had not begun is not, and what is under way is stopped."""
    stop = Stop()
    done: list[int] = []
    run_all([partial(done.append, n) for n in range(20)], 3, stop)
    assert sorted(done) == list(range(20))
    run_all([], 3, stop)
    started = threading.Event()

    def wait_for_ever() -> None:
        started.set()
        stop.sleep(60)

    def fail() -> None:
        started.wait(10)
        raise ValueError("first")

    begun = time.monotonic()
    with pytest.raises(ValueError, match="first"):
        run_all([wait_for_ever, fail, lambda: done.append(99)], 2, stop)
    assert time.monotonic() - begun < 5
    assert 99 not in done
    with pytest.raises(Stopped):
        stop.check()
