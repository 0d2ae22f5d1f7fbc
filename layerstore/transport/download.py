"""One blob from a registry into the store: resumed where it broke off, whenever that was."""

from __future__ import annotations

import re

import httpx

from layerstore.errors import DigestMismatch
from layerstore.model import Descriptor
from layerstore.store import partials
from layerstore.store.partials import Partial
from layerstore.store.store import Store
from layerstore.transport.base import Report
from layerstore.transport.errors import Transient
from layerstore.transport.registry import Repository
from layerstore.transport.retry import Retry

_PROGRESS = 64 << 10  # bytes that make an attempt that failed worth another
_RANGE = re.compile(r"bytes (\d{1,19})-")


def download(repository: Repository, store: Store, descriptor: Descriptor, report: Report) -> None:
    """Get a blob unless the store has it. DigestMismatch when the registry's is another than described."""
    total = descriptor.size
    with partials.resume(store, descriptor) as partial:
        if partial is None:
            report(descriptor.digest, "present", total, total)
            return
        left_over = partial.size > 0
        while True:
            _fill(repository, partial, report)
            try:
                partial.publish(store)
                break
            except DigestMismatch:
                # What an earlier run left may have been damaged since; what came just now was not.
                if not left_over:
                    raise
                left_over = False
        report(descriptor.digest, "done", total, total)


def _fill(repository: Repository, partial: Partial, report: Report) -> None:
    """Bring a partial to its full size, over as many connections as it takes."""
    digest, total = partial.descriptor.digest, partial.descriptor.size
    retry = Retry(
        f"cannot get the blob {digest} of {repository.name}",
        repository.client.options,
        repository.client.stop,
    )
    while partial.size < total:
        before = partial.size
        try:
            _receive(repository, partial, report)
        except Transient as error:
            if partial.size - before >= _PROGRESS:
                retry.progressed()
            report(digest, "retrying", partial.size, total)
            retry.pause(error)


def _receive(repository: Repository, partial: Partial, report: Report) -> None:
    """One connection's worth of bytes."""
    digest, total = partial.descriptor.digest, partial.descriptor.size
    stop = repository.client.stop
    with repository.client.once(repository.blob(digest, partial.size)) as response:
        _position(partial, response)
        report(digest, "moving", partial.size, total)
        for data in response.iter_raw():
            stop.check()
            partial.append(data)
            report(digest, "moving", partial.size, total)
    if partial.size < total:
        raise Transient(f"the registry sent {partial.size} of {total} bytes")


def _position(partial: Partial, response: httpx.Response) -> None:
    """Make the partial fit what the registry is about to send."""
    if response.status_code == 416:
        partial.restart()
        raise Transient("416 the registry cannot send the rest", status=416)
    if response.status_code == 206:
        match = _RANGE.match(response.headers.get("content-range", ""))
        if match is not None and int(match[1]) == partial.size:
            return
        partial.restart()
        raise Transient("206 the registry sends another range than was asked for", status=206)
    if partial.size:
        partial.restart()  # it sends everything
