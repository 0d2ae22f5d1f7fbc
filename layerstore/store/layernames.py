"""The names of unpacked layers in ``layers/``.

A layer whose content is the same over any other layers is there once, under its diffID, for all images that
have it. One whose content depends on them (a directory that its tar only implies, a hard link into a layer
below) has a directory for each stack, named by the stack's chainID; without layers below, where that equals
the diffID, by the diffID and ``.base``.

Older stores had everything under the diffID. Such a directory is set aside, with the suffix ``.old`` (or
``.old.1``): it is not trusted, but used once a check has shown that it equals the layer.
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
    """The possible names of one layer of an image."""

    diff_id: Digest
    own: str  # in this stack alone

    @property
    def shared(self) -> str:
        return self.diff_id.hex

    @property
    def old(self) -> str:
        return self.diff_id.hex + SET_ASIDE

    def find(self, store: Store) -> Path | None:
        """Return the layer's directory; None when it is not unpacked."""
        if not store.knows_its_layers:
            return None  # and could not be written to, or it would
        for name in (self.own, self.shared):
            path = store.layers / name
            if path.is_dir():
                return path
        return None

    def expect(self, store: Store) -> Path:
        """Return the same, or the directory that it will most likely have."""
        return self.find(store) or store.layers / self.shared


def places_of(diff_ids: Iterable[Digest]) -> Iterator[Place]:
    """Return the places of an image's layers, bottom first."""
    for diff_id, chain_id in chain_ids(diff_ids):
        yield Place(diff_id, chain_id.hex if chain_id != diff_id else f"{diff_id.hex}.base")


def is_place(name: str) -> bool:
    """Whether a layer may have this name."""
    return _NAME.fullmatch(name) is not None


def is_set_aside(name: str) -> bool:
    """Whether this was set aside from an older store."""
    return is_place(name) and SET_ASIDE in name


def digest_in(name: str) -> Digest:
    """Return the diffID or chainID in such a name."""
    return Digest(f"sha256:{name[:64]}")


def all_names(store: Store) -> list[str]:
    """Return the names in ``layers/``, sorted."""
    return list(filter(is_place, store.names(store.layers)))
