"""Platforms as docker writes them (``linux/arm64/v8``), and which manifest of an index is for one."""

from __future__ import annotations

import platform as machine
import re
from collections.abc import Sequence

from layerstore.errors import InvalidReference, NotFound
from layerstore.model import Descriptor, ImageConfig, Platform

_SAME = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i386": "386",
    "i686": "386",
    "armhf": "arm",
    "loongarch64": "loong64",
}
_PART = re.compile(r"[a-z0-9_.-]+")
_DEFAULT_VARIANT = {"arm64": "v8", "arm": "v7"}


def host_architecture() -> str:
    """This machine in GOARCH words."""
    name = machine.machine()
    return _SAME.get(name, name)


def host() -> Platform:
    """This machine."""
    return Platform(os="linux", architecture=host_architecture())


def parse(text: str) -> Platform:
    """``OS/ARCH[/VARIANT]``, or ``ARCH`` alone for Linux."""
    parts = text.lower().split("/")
    if len(parts) == 1:
        parts.insert(0, "linux")
    if len(parts) > 3 or not all(map(_PART.fullmatch, parts)):
        raise InvalidReference(f"not a platform: {text!r} (write OS/ARCH[/VARIANT], as linux/arm64)")
    architecture = _SAME.get(parts[1], parts[1])
    return Platform(os=parts[0], architecture=architecture, variant=parts[2] if len(parts) == 3 else "")


def parse_optional(text: str | None) -> Platform | None:
    """What an option says, None when it was not given."""
    return None if text is None else parse(text)


def shown(platform: Platform) -> str:
    return "/".join(filter(None, [platform.os, platform.architecture, platform.variant]))


def of_config(config: ImageConfig) -> Platform:
    """What an image says it runs on."""
    return Platform(os=config.os, architecture=config.architecture, variant=config.variant or "")


def fits(offered: Platform, wanted: Platform) -> bool:
    """Whether an image for the one runs on the other."""
    same = (offered.os or "linux", offered.architecture) == (wanted.os, wanted.architecture)
    if not wanted.variant:
        return same
    usual = _DEFAULT_VARIANT.get(wanted.architecture, "")
    return same and (offered.variant or usual) == wanted.variant


def choose(entries: Sequence[Descriptor], wanted: Platform, what: str) -> Descriptor:
    """The entry of an index for a platform: the same variant, else the usual one, else any. NotFound."""
    fitting = [entry for entry in entries if entry.platform and fits(entry.platform, wanted)]
    fitting = fitting or [entry for entry in entries if entry.platform is None]
    if not fitting:
        offered = sorted({shown(e.platform) for e in entries if e.platform and e.platform.os != "unknown"})
        raise NotFound(f"{what} has no image for {shown(wanted)}; it has {', '.join(offered) or 'none'}")
    usual = wanted.variant or _DEFAULT_VARIANT.get(wanted.architecture, "")
    variants = [entry.platform.variant if entry.platform else "" for entry in fitting]
    for variant in (usual, ""):
        if variant in variants:
            return fitting[variants.index(variant)]
    return fitting[0]
