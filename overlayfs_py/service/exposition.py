"""Format figures of mounts as text, for people and in Prometheus's text exposition format 0.0.4."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from overlayfs_py.errors import for_people

Figures = Mapping[str, Any]


class _Metric(NamedTuple):
    """One metric family; `figure` names the figure it shows."""

    name: str
    kind: str
    figure: str
    help: str


_PREFIX = "overlayfs_py_"
_METRICS = (
    _Metric("start_time_seconds", "gauge", "started", "When the daemon started, since the epoch."),
    _Metric("frozen", "gauge", "frozen", "1 while the mount is frozen."),
    _Metric("held_requests", "gauge", "held", "Requests that wait until the mount is thawed."),
    _Metric("nodes", "gauge", "nodes", "Inodes that the kernel holds."),
    _Metric("open_files", "gauge", "open_files", "Open files, if the engine handles opens."),
    _Metric(
        "open_directories", "gauge", "open_directories", "Open directories, if the engine handles opens."
    ),
    _Metric("copy_ups_running", "gauge", "copies_running", "Long copy-ups in progress."),
    _Metric("copy_ups_total", "counter", "copied_up", "Inodes copied up."),
    _Metric("copied_up_bytes_total", "counter", "copied_bytes", "Bytes of file contents copied up."),
    _Metric("cpu_seconds_total", "counter", "cpu_seconds", "Processor time of the daemon."),
    _Metric("resident_memory_bytes", "gauge", "resident_bytes", "Memory of the daemon."),
    _Metric("open_fds", "gauge", "open_fds", "Descriptors the daemon has open."),
)


def prometheus(mounts: Sequence[Figures]) -> str:
    """Return one exposition for all mounts; each sample has the label ``mountpoint``."""
    lines: list[str] = []
    for metric in _METRICS:
        samples = [_sample(metric.name, found, found[metric.figure]) for found in mounts]
        lines += _family(metric.name, metric.kind, metric.help, samples)
    lines += _family("requests_total", "counter", "Requests, by operation.", _by_operation(mounts))
    lines += _family("request_errors_total", "counter", "Requests refused, by errno.", _by_errno(mounts))
    lines += _family(
        "info",
        "gauge",
        "What serves the mount.",
        [_sample("info", m, 1, version=m["version"], engine=m["engine"], data=m["data"]) for m in mounts],
    )
    return "\n".join(lines) + "\n"


def readable(found: Figures) -> str:
    """Return the figures of one mount for people; operations by count, each with its errors."""
    lines = [
        f"{name}: {for_people(_shown(found[name]))}" for name in found if name not in ("operations", "errors")
    ]
    for operation, count in sorted(found["operations"].items(), key=lambda item: -item[1]):
        refused = ", ".join(f"{code} {number}" for code, number in found["errors"].get(operation, {}).items())
        lines.append(f"  {operation:<20} {count:>12}" + (f"  {refused}" if refused else ""))
    return "\n".join(lines)


def _by_operation(mounts: Sequence[Figures]) -> Iterator[str]:
    for found in mounts:
        for operation, count in found["operations"].items():
            yield _sample("requests_total", found, count, operation=operation)


def _by_errno(mounts: Sequence[Figures]) -> Iterator[str]:
    for found in mounts:
        for operation, counts in found["errors"].items():
            for code, count in counts.items():
                yield _sample("request_errors_total", found, count, operation=operation, errno=code)


def _family(name: str, kind: str, text: str, samples: Sequence[str] | Iterator[str]) -> list[str]:
    return [f"# HELP {_PREFIX}{name} {text}", f"# TYPE {_PREFIX}{name} {kind}", *samples]


def _sample(name: str, found: Figures, value: float, **labels: str) -> str:
    pairs = {"mountpoint": found["mountpoint"], **labels}
    shown = ",".join(f'{label}="{_quoted(text)}"' for label, text in pairs.items())
    return f"{_PREFIX}{name}{{{shown}}} {int(value) if isinstance(value, bool) else value}"


def _quoted(text: str) -> str:
    """Return a label's value: UTF-8 with three characters escaped, other bytes as ``\\xNN``."""
    text = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
