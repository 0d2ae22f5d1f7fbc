"""Under which name an unpacked layer lies in ``layers/``.

A layer that is the same over any others lies there once, under its diffID, for all images that have it. One
that is not (a directory that its tar only implies, a hard link into a layer below) has a place for each
stack, under the stack's chainID; over nothing, where that is the diffID again, with ``.base`` behind it.

Stores made before there were two names had everything under the diffID. What is found there then is set
aside, with ``.old`` behind it (``.old.1``, if need be): it is believed by nobody, but taken when it proves to
be what a layer gives.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from layerstore.digest import Digest, chain_ids
from layerstore.store.store import SET_ASIDE, Store

_OLD = re.escape(SET_ASIDE) + r"(\.[0-9]+)?"
_NAME = re.compile(rf"[0-9a-f]{{64}}(\.base|{_OLD})?")


@dataclass(frozen=True, slots=True)
class Place:
    """The names that one layer of an image may have."""

    diff_id: Digest
    own: str  # in this stack alone

    @property
    def shared(self) -> str:
        return self.diff_id.hex

    @property
    def old(self) -> str:
        return self.diff_id.hex + SET_ASIDE

    def find(self, store: Store) -> Path | None:
        """Where the layer lies; None when it is not unpacked."""
        if not store.knows_its_layers:
            return None  # and could not be written to, or it would
        for name in (self.own, self.shared):
            path = store.layers / name
            if path.is_dir():
                return path
        return None

    def expect(self, store: Store) -> Path:
        """The same, or where it will most likely lie."""
        return self.find(store) or store.layers / self.shared


def places_of(diff_ids: Iterable[Digest]) -> Iterator[Place]:
    """The places of an image's layers, bottom first."""
    for diff_id, chain_id in chain_ids(diff_ids):
        yield Place(diff_id, chain_id.hex if chain_id != diff_id else f"{diff_id.hex}.base")


def is_place(name: str) -> bool:
    """Whether a layer may lie under this name."""
    return _NAME.fullmatch(name) is not None


def is_set_aside(name: str) -> bool:
    """Whether a store made before had this under a diffID."""
    return is_place(name) and SET_ASIDE in name


def digest_in(name: str) -> Digest:
    """The diffID or the chainID that such a name is made of."""
    return Digest(f"sha256:{name[:64]}")


def all_names(store: Store) -> list[str]:
    """Under which names something lies in ``layers/``, sorted."""
    return list(filter(is_place, store.names(store.layers)))
