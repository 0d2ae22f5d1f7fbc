"""``search``: the repositories that a registry has."""

from collections.abc import Callable, Sequence
from itertools import islice

import msgspec

from layerstore import reference
from layerstore.callbacks import Note, note_or_log
from layerstore.errors import InvalidReference, checked_text
from layerstore.image.filters import InvalidFilter, truth
from layerstore.transport import remote
from layerstore.transport import search as registry_search
from layerstore.transport.base import RegistryOptions, Stop
from layerstore.transport.hosts import DOCKER_HUB
from layerstore.transport.search import SearchResult

DEFAULT_LIMIT = 25
_FILTERS = ("is-automated", "is-official", "stars")


def search(
    term: str,
    *,
    limit: int = DEFAULT_LIMIT,
    filters: Sequence[str] = (),
    options: RegistryOptions | None = None,
    note: Note | None = None,
) -> list[SearchResult]:
    """Return repositories with `term` in their names, most stars first; ``HOST/TERM`` searches that registry
    instead of docker.io, and returns names with the host.

    `filters`: ``stars=N`` (at least), ``is-official=BOOL``, ``is-automated=BOOL``; all of them hold.
    """
    tests = [_test(text) for text in filters]
    domain, word = _split(checked_text(term, "the term"))
    with remote.open_registry(
        domain, word, options or RegistryOptions(), Stop(), note_or_log(note)
    ) as client:
        found = registry_search.search(client, domain, word, limit)
        hits = list(islice((hit for hit in found if all(test(hit) for test in tests)), limit))
    if domain != DOCKER_HUB:
        hits = [msgspec.structs.replace(hit, name=f"{domain}/{hit.name}") for hit in hits]
    return sorted(hits, key=lambda hit: -hit.star_count)


def _split(term: str) -> tuple[str, str]:
    """Return the registry's domain and the search term, split by the rule for references."""
    first, slash, rest = term.partition("/")
    if not slash or not reference.is_host(first):
        domain, word = DOCKER_HUB, term
    elif not reference.is_domain(first):
        raise InvalidReference(f"not a registry's host name: {first!r}")
    else:
        domain, word = first, rest
    if domain in {DOCKER_HUB, f"index.{DOCKER_HUB}"}:
        domain, word = DOCKER_HUB, word.removeprefix("library/")
        if not word:
            raise InvalidReference("a search term is needed")
    return domain, word


def _test(text: str) -> Callable[[SearchResult], bool]:
    key, _, value = text.partition("=")
    if key not in _FILTERS or not value:
        raise InvalidFilter(f"invalid filter {text!r}: write KEY=VALUE with one of {', '.join(_FILTERS)}")
    if key == "stars":
        if not value.isdecimal():
            raise InvalidFilter(f"invalid filter {text!r}: a number of stars is needed")
        return lambda hit: hit.star_count >= int(value)
    wanted = truth(text, value)
    if key == "is-official":
        return lambda hit: hit.is_official is wanted
    return lambda hit: hit.is_automated is wanted
