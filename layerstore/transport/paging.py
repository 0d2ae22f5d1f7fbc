"""Read lists that a registry returns page by page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from layerstore import limits, model
from layerstore.errors import LimitExceeded
from layerstore.transport.auth import Scopes
from layerstore.transport.client import Call, Client

_MAX_PAGES = 1000


def pages(client: Client, url: str, what: str, scopes: Scopes) -> Iterator[dict[str, Any]]:
    """Yield the documents of a list, by the registry's links from one to the next; `what` begins messages."""
    further: str | None = url
    for _ in range(_MAX_PAGES):
        if further is None:
            return
        call = Call(method="GET", url=further, what=what, scopes=scopes, ok=frozenset({200}))
        response, raw = client.call(call, limits.current().max_document)
        yield model.parse_document(raw)
        link = response.links.get("next", {}).get("url")
        further = None if link is None else str(client.target(response.url, link))
    raise LimitExceeded(f"{what}: the list has more than {_MAX_PAGES} pages")
