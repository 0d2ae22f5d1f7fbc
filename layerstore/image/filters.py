"""``--filter KEY=VALUE`` on images, as docker's listings and prune understand it.

Values of one key are alternatives for ``reference``, and all hold for every other key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from layerstore import reference
from layerstore.errors import LayerstoreError
from layerstore.image import find, human, instructions
from layerstore.image.find import FoundImage
from layerstore.image.words import InvalidInstruction
from layerstore.store.store import Store

LISTED = ("before", "dangling", "label", "reference", "since", "until")
PRUNED = ("label", "label!", "until")

ImageTest = Callable[[FoundImage, "str | None"], bool]  # an image under one of its names, or nameless

_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
_LOCAL_TIMES = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H", "%Y-%m-%d")


class InvalidFilter(LayerstoreError):
    """A filter that there is not, or whose value says nothing; the message repeats it."""


def parse(texts: Sequence[str], allowed: Sequence[str], store: Store) -> ImageTest:
    """The test that an image must pass. InvalidFilter for a wrong one, NotFound for an image it names."""
    tests: list[ImageTest] = []
    patterns: list[str] = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not value or key not in allowed:
            raise InvalidFilter(f"invalid filter {text!r}: write KEY=VALUE with one of {', '.join(allowed)}")
        if key == "reference":
            patterns.append(value)
        else:
            tests.append(_MAKERS[key](text, value, store))
    if patterns:
        tests.append(lambda found, name: any(matches(name, pattern) for pattern in patterns))
    return lambda found, name: all(test(found, name) for test in tests)


def matches(name: str | None, pattern: str) -> bool:
    """Whether ``REPOSITORY[:TAG]`` fits, with ``*``, ``?`` and ``[...]``, which never stand for a slash."""
    if name is None:
        return False
    try:
        ref = reference.parse(name)
        candidates = {ref.repository, ref.familiar}
    except LayerstoreError:
        candidates = {name}  # other tools write a tag alone
    wanted = re.compile(_expression(pattern))
    return any(wanted.fullmatch(candidate) for candidate in candidates)


def moment(text: str, now: datetime | None = None) -> datetime:
    """A time as docker takes one: a date with or without a time, seconds since 1970, or a duration ago."""
    now = now or datetime.now(UTC)
    if re.fullmatch(r"\d{1,18}(\.\d{1,9})?", text):
        try:
            return datetime.fromtimestamp(float(text), UTC)
        except (ValueError, OverflowError, OSError):
            raise InvalidFilter(f"not a time: {text!r}") from None
    for form in _LOCAL_TIMES:
        try:
            return datetime.strptime(text, form).astimezone()
        except ValueError:
            continue
    when = human.parse_time(text) if "T" in text else None
    if when is not None:
        return when
    try:
        return now - timedelta(microseconds=instructions.parse_duration(text) // 1000)
    except (InvalidInstruction, OverflowError):
        raise InvalidFilter(f"not a time: {text!r} (write 24h, 2024-01-31 or 2024-01-31T10:00:00Z)") from None


def created(found: FoundImage) -> datetime:
    """When an image was made; one that does not say so is older than all."""
    return human.parse_time(found.image.created) or datetime.fromtimestamp(0, UTC)


def labels(found: FoundImage) -> dict[str, str]:
    return dict((found.image.config.config or {}).get("Labels") or {})


def truth(text: str, value: str) -> bool:
    """What the value of the filter `text` says."""
    wanted = _BOOLEANS.get(value.lower())
    if wanted is None:
        raise InvalidFilter(f"invalid filter {text!r}: true or false")
    return wanted


def _dangling(text: str, value: str, store: Store) -> ImageTest:
    wanted = truth(text, value)
    return lambda found, name: (name is None) is wanted


def _label(text: str, value: str, store: Store) -> ImageTest:
    key, equals, content = value.partition("=")

    def test(found: FoundImage, name: str | None) -> bool:
        own = labels(found)
        return key in own and (not equals or own[key] == content)

    return test


def _no_label(text: str, value: str, store: Store) -> ImageTest:
    has = _label(text, value, store)
    return lambda found, name: not has(found, name)


def _before(text: str, value: str, store: Store) -> ImageTest:
    limit = created(find.find(store, value))
    return lambda found, name: created(found) < limit


def _since(text: str, value: str, store: Store) -> ImageTest:
    limit = created(find.find(store, value))
    return lambda found, name: created(found) > limit


def _until(text: str, value: str, store: Store) -> ImageTest:
    limit = moment(value)
    return lambda found, name: created(found) < limit


_MAKERS: dict[str, Callable[[str, str, Store], ImageTest]] = {
    "before": _before,
    "dangling": _dangling,
    "label": _label,
    "label!": _no_label,
    "since": _since,
    "until": _until,
}


def _expression(pattern: str) -> str:
    """Go's path.Match as a regular expression."""
    out, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[" and (end := pattern.find("]", at + 1)) > 0:
            inside, at = pattern[at:end], end + 1
            negated = inside.startswith(("^", "!"))
            body = re.sub(r"([\\\[\]&~|^])", r"\\\1", inside[negated:])
            out += f"[{'^' if negated else ''}{body}]"
        elif char == "\\" and at < len(pattern):
            out += re.escape(pattern[at])
            at += 1
        else:
            out += re.escape(char)
    return out
