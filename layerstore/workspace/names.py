"""Workspace names: their grammar, and generated ones."""

import re
import secrets

from layerstore.errors import InvalidReference

_GRAMMAR = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,126}[A-Za-z0-9_-]|[A-Za-z0-9]", re.ASCII)


def _words(text: str) -> list[str]:
    return text.split()


_ADJECTIVES = _words(
    """
    amber agile ample azure basic bold brave breezy bright brisk calm candid clever cosy crisp curious
    deft eager early earnest easy fair fancy fleet fluent fresh frosty gentle glad golden grand happy
    hardy honest humble jolly keen kind light lively lucid lucky mellow merry mild modest neat nimble
    noble plain proud quick quiet ready rustic serene sharp silver smooth snug solid spry steady sunny
    swift tidy tranquil vivid warm wise witty zesty
    """
)
_NOUNS = _words(
    """
    acorn anchor anvil badger beacon birch bridge brook canyon cedar clover comet coral cove crane delta
    drum ember falcon fern ferry fjord forge fox garnet glacier grove gull harbor hazel heron island ivy
    juniper kestrel lantern lark ledge lichen linden loom maple marten meadow mill moss oak orchard
    otter owl paddle pebble pine plover pond quarry quartz quill raven reed ridge river robin rowan
    saddle sail sparrow spruce summit thicket thistle tide timber trout tundra valley walnut willow wren
    """
)


def made_up() -> str:
    """Return a generated name such as ``quiet_otter``."""
    return f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_NOUNS)}"


def could_be(name: str) -> bool:
    """Whether a name follows the grammar."""
    return _GRAMMAR.fullmatch(name) is not None


def check(name: str) -> str:
    """Return the name; InvalidReference when it does not follow the grammar."""
    if not could_be(name):
        raise InvalidReference(
            f"invalid name {name!r}: use letters, digits, '_', '.' and '-', beginning with a letter or digit"
        )
    return name
