"""Platforms as docker writes them (``linux/arm64/v8``), and which manifest of several is for one.

The order in which one stands in for another is containerd's (its ``platforms.Only``), which docker uses; how
names are written is normalized as there.
"""

from __future__ import annotations

import platform as machine
import re
from collections.abc import Iterable, Iterator, Sequence

from layerstore import media
from layerstore.errors import InvalidReference, OtherPlatforms
from layerstore.model import Descriptor, ImageConfig, Platform

_SAME = {
    # What machines and people say: architecture, and variant where the word says that too.
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
    "loongarch64": ("loong64", ""),
}
_USUAL = {"amd64": "v1", "arm64": "v8", "arm": "v7"}  # the variant that is meant when none is said
_OLDEST = {"amd64": 1, "arm64": 8, "arm": 5}
_VARIANT = re.compile(r"v(\d{1,2})(?:\.(\d))?")
_PART = re.compile(r"[a-z0-9_.-]+")
_OS = re.compile(r"([a-z0-9_.-]+)(?:\(([a-z0-9_.-]+)\))?")
_REFERENCE_TYPE = "vnd.docker.reference.type"  # buildx's mark on what it lists beside the images

_Kind = tuple[str, str]  # architecture and variant


def host_architecture() -> str:
    """This machine in GOARCH words."""
    return host().architecture


def host() -> Platform:
    """This machine."""
    name = machine.machine()
    architecture, variant = _SAME.get(name, (name, ""))
    return Platform(os="linux", architecture=architecture, variant=variant)


def parse(text: str) -> Platform:
    """``OS[(VERSION)]/ARCH[/VARIANT]``, or ``ARCH`` alone for Linux."""
    parts = text.lower().split("/")
    if len(parts) == 1:
        parts.insert(0, "linux")
    system = _OS.fullmatch(parts[0])
    if len(parts) > 3 or system is None or not all(map(_PART.fullmatch, parts[1:])):
        raise InvalidReference(f"not a platform: {text!r} (write OS/ARCH[/VARIANT], as linux/arm64)")
    architecture, variant = _SAME.get(parts[1], (parts[1], ""))
    variant = parts[2] if len(parts) == 3 else variant
    return Platform(os=system[1], os_version=system[2] or "", architecture=architecture, variant=variant)


def parse_optional(text: str | None) -> Platform | None:
    """What an option says, None when it was not given."""
    return None if text is None else parse(text)


def shown(platform: Platform) -> str:
    system = f"{platform.os}({platform.os_version})" if platform.os_version else platform.os
    return "/".join(filter(None, [system, platform.architecture, platform.variant]))


def of_config(config: ImageConfig) -> Platform:
    """What an image says it runs on."""
    return Platform(os=config.os, architecture=config.architecture, variant=config.variant or "")


def said_by(entry: Descriptor) -> Platform | None:
    """The platform that an index gives an entry; None when it says none."""
    return entry.platform if entry.platform is not None and entry.platform.architecture else None


def may_be_image(entry: Descriptor) -> bool:
    """Whether an entry of an index can be an image, by what the index says: attestations, signatures and
    other artifacts are not.
    """
    platform = entry.platform
    return not (
        (platform is not None and "unknown" in {platform.os, platform.architecture})
        or _REFERENCE_TYPE in (entry.annotations or {})
        or entry.artifact_type not in {"", *media.CONFIGS}
    )


def rank(offered: Platform, wanted: Platform) -> tuple[bool, int] | None:
    """How well an image for the one suits the other, less is better; None: it does not run there."""
    if (offered.os or "linux") != wanted.os or not _is_version(offered.os_version, wanted.os_version):
        return None
    kind = _kind(offered.architecture, offered.variant)
    order = list(_stand_ins(*_kind(wanted.architecture, wanted.variant)))
    if kind in order:
        position = order.index(kind)
    elif kind[0] == wanted.architecture and not wanted.variant and kind[0] not in _USUAL:
        position = len(order)  # nobody knows what its variants mean
    else:
        return None
    needs_more = not set(offered.os_features) <= set(wanted.os_features)
    return needs_more, position


def best(entries: Iterable[Descriptor], wanted: Platform) -> Descriptor | None:
    """The entry that suits a platform best, the first of equals; None when none says that it does."""
    ranked = [
        (order, entry)
        for entry in entries
        if may_be_image(entry)
        and (said := said_by(entry)) is not None
        and (order := rank(said, wanted)) is not None
    ]
    return min(ranked, key=lambda pair: pair[0])[1] if ranked else None


def choose(entries: Sequence[Descriptor], wanted: Platform, what: str) -> Descriptor:
    """The entry for a platform: that, else what runs there, else one that says none. OtherPlatforms."""
    found = best(entries, wanted)
    if found is None:
        found = next((entry for entry in entries if may_be_image(entry) and said_by(entry) is None), None)
    if found is None:
        offered = sorted({shown(e.platform) for e in entries if e.platform and may_be_image(e)})
        raise OtherPlatforms(
            f"{what} has no image for {shown(wanted)}; it has {', '.join(offered) or 'none'}"
        )
    return found


def _kind(architecture: str, variant: str) -> _Kind:
    """Architecture and variant as they are compared: words of one meaning made one."""
    architecture, implied = _SAME.get(architecture.lower(), (architecture.lower(), ""))
    variant = variant.lower() or implied or _USUAL.get(architecture, "")
    return architecture, f"v{variant}" if variant[:1].isdigit() and architecture in _USUAL else variant


def _stand_ins(architecture: str, variant: str) -> Iterator[_Kind]:
    """What runs on an architecture's variant, the best first."""
    yield architecture, variant
    number = _VARIANT.fullmatch(variant)
    if number is not None and architecture in _OLDEST:
        for older in _older(architecture, int(number[1]), int(number[2] or 0)):
            yield architecture, older
    if architecture == "amd64":
        yield "386", ""
    elif architecture == "arm64":
        yield from _stand_ins("arm", "v8")


def _older(architecture: str, major: int, minor: int) -> Iterator[str]:
    """The variants before one, newest first. arm64's v9.N has all that v8.(N+5) has."""
    last_before = minor + 5 if architecture == "arm64" else 0
    while (major, minor) > (_OLDEST[architecture], 0):
        major, minor = (major, minor - 1) if minor else (major - 1, last_before)
        yield f"v{major}.{minor}" if minor else f"v{major}"


def _is_version(offered: str, wanted: str) -> bool:
    """Whether an ``os.version`` is the one asked for, or a build of it."""
    return not wanted or not offered or f"{offered}.".startswith(f"{wanted}.")
