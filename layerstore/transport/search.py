"""Search for repositories: docker hub's search, which some other registries have, too, and the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import msgspec

from layerstore.errors import InvalidImage
from layerstore.transport.client import Client
from layerstore.transport.errors import RegistryError
from layerstore.transport.hosts import DOCKER_HUB
from layerstore.transport.paging import pages

_HUB_INDEX = f"https://index.{DOCKER_HUB}"
_CATALOG_SCOPE = "registry:catalog:*"


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """A repository of a registry."""

    name: str
    description: str = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _ResultPage(msgspec.Struct, frozen=True):
    results: list[SearchResult]


def search(client: Client, domain: str, term: str, limit: int) -> Iterator[SearchResult]:
    """Return a registry's results for `term`: of docker hub's search, else the repositories of the catalogue
    with it in their name.
    """
    what = f"cannot search {domain}"
    try:
        yield from _found(client, _HUB_INDEX if domain == DOCKER_HUB else "", term, limit, what)
    except (RegistryError, InvalidImage) as error:
        if domain == DOCKER_HUB or (isinstance(error, RegistryError) and not error.status):
            raise
        yield from _listed(client, term, what)


def _found(client: Client, origin: str, term: str, limit: int, what: str) -> list[SearchResult]:
    url = f"{origin}/v1/search?{urlencode({'q': term, 'n': limit})}"
    document = next(pages(client, url, what, ()))
    try:
        return msgspec.convert(document, _ResultPage).results
    except msgspec.ValidationError as error:
        raise InvalidImage(f"{what}: invalid response: {error}") from None


def _listed(client: Client, term: str, what: str) -> Iterator[SearchResult]:
    for document in pages(client, "/v2/_catalog", what, (_CATALOG_SCOPE,)):
        names: Any = document.get("repositories") or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise RegistryError(f"{what}: invalid catalogue")
        yield from (SearchResult(name=name) for name in names if term in name)
