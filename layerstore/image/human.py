"""Sizes and times as docker writes them for people."""

from datetime import UTC, datetime

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def size(count: int, digits: int = 3) -> str:
    """``0B``, ``9.03kB``, ``117MB``, ``1.24GB``: three digits (docker has some with four), powers of 1000."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.{digits}g}{_UNITS[unit]}" if value < 999.5 else f"{value:.0f}{_UNITS[unit]}"


def binary_size(count: int) -> str:
    """``3.828GiB``: four digits, powers of 1024, as docker shows memory."""
    value, units = float(count), list(_BINARY_UNITS)
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.4g}{units[0]}"


def duration(seconds: float) -> str:
    """``About an hour``, ``3 weeks``."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < _MINUTE:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if whole < _HOUR:
        minutes = whole // _MINUTE
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = (whole + _HOUR // 2) // _HOUR
    if hours == 1:
        return "About an hour"
    for count, below, unit in ((hours, 48, "hours"), (hours // 24, 14, "days"), (hours // 168, 9, "weeks")):
        if count < below:
            return f"{count} {unit}"
    return f"{hours // 720} months" if hours < 2 * 365 * 24 else f"{hours // (24 * 365)} years"


def ago(created: str | None, now: datetime | None = None) -> str:
    """How long ago an RFC 3339 time was; ``N/A`` when there is none."""
    when = parse_time(created)
    if when is None:
        return "N/A"
    passed = (now or datetime.now(UTC)) - when
    return f"{duration(passed.total_seconds())} ago"


def local(created: str | None) -> str:
    """An RFC 3339 time as docker's CreatedAt has it."""
    when = parse_time(created)
    return "N/A" if when is None else when.astimezone().strftime("%Y-%m-%d %H:%M:%S %z %Z")


def rfc3339(created: str | None) -> str:
    """An RFC 3339 time to the second and in local time, as docker's history has it."""
    when = parse_time(created)
    return "" if when is None else when.astimezone().isoformat(timespec="seconds").replace("+00:00", "Z")


def parse_time(text: str | None) -> datetime | None:
    """RFC 3339 to microseconds; None for what is not a time (images carry all sorts)."""
    if not text:
        return None
    head, dot, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))] if dot else ""
    try:
        when = datetime.fromisoformat(head + rest[len(digits) :] if dot else head)
    except ValueError:
        return None
    when = when.replace(microsecond=int(digits[:6].ljust(6, "0")) if digits else 0)
    return when if when.tzinfo else when.replace(tzinfo=UTC)
