"""Sizes and times read as docker's do."""

from datetime import UTC, datetime

import pytest

from layerstore.environment import format_time
from layerstore.image import human


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (9034, "9.03kB"), (117_000_000, "117MB"),
     (1_240_000_000, "1.24GB"),
     (999_999, "1000kB"), (74_800_000, "74.8MB")],
)  # fmt: skip
def test_size(count: int, text: str) -> None:
    assert human.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"),
     (150, "2 minutes"), (3600, "About an hour"), (3 * 3600, "3 hours"), (47 * 3600, "47 hours"),
     (50 * 3600, "2 days"), (15 * 86400, "2 weeks"), (70 * 86400, "2 months"), (800 * 86400, "2 years")],
)  # fmt: skip
def test_duration(seconds: int, text: str) -> None:
    assert human.duration(seconds) == text


def test_times() -> None:
    assert human.parse_time("2026-11-22T06:11:42.424232473Z") == datetime(
        2026, 11, 22, 6, 11, 42, 424232, UTC
    )
    assert human.parse_time("2026-11-22T06:11:42+02:00") == datetime(2026, 11, 22, 4, 11, 42, tzinfo=UTC)
    assert human.parse_time("0001-01-01T00:00:00Z") is not None
    assert human.parse_time("yesterday") is None
    assert human.ago(None) == "N/A"
    assert human.ago("2026-11-22T06:00:00Z", datetime(2026, 11, 22, 9, tzinfo=UTC)) == "3 hours ago"
    assert format_time(1_700_000_000_120_000_000) == "2023-11-14T22:13:20.12Z"
    assert format_time(0) == "1970-01-01T00:00:00Z"
