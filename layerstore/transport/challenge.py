"""``WWW-Authenticate``: the kind of authorization that a registry requires (RFC 9110, section 11)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

_PARAMETER = re.compile(
    r'\s*,?\s*([A-Za-z0-9_-]{1,64})\s*=\s*(?:"((?:[^"\\]|\\.){0,4096})"|([^\s,"]{0,4096}))'
)
_SCHEME = re.compile(r"\s*,?\s*([A-Za-z0-9_-]{1,64})(?=\s|,|$)(?!\s*=)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme that a registry accepts, with its parameters."""

    scheme: Literal["basic", "bearer"]
    parameters: dict[str, str] = field(default_factory=dict)


def parse(headers: Sequence[str]) -> Challenge | None:
    """Return the best of all challenges, Bearer before Basic; None without a known scheme."""
    found = [challenge for header in headers for challenge in _of_header(header[:16384])]
    return min(found, key=lambda challenge: challenge.scheme != "bearer", default=None)


def _of_header(text: str) -> list[Challenge]:
    found: list[Challenge] = []
    at = 0
    while (match := _SCHEME.match(text, at)) is not None:
        name, at = match[1].lower(), match.end()
        parameters: dict[str, str] = {}
        while (pair := _PARAMETER.match(text, at)) is not None:
            quoted = pair[2]
            value = pair[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters[pair[1].lower()] = value
            at = pair.end()
        if name == "basic":
            found.append(Challenge("basic", parameters))
        elif name == "bearer":
            found.append(Challenge("bearer", parameters))
    return found
