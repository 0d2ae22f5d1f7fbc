"""Where log messages go: stderr in the foreground, the system log in the background."""

import logging
import logging.handlers
import os
from typing import Any

from overlayfs_py.errors import for_people

_SYSLOG = "/dev/log"
# sd-daemon(3): a line's priority for the journal.
_JOURNAL_PRIORITY = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


class _Formatter(logging.Formatter):
    """Format messages as one line and tracebacks as several, all safe to print on a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return for_people(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return "\n".join(map(for_people, super().formatException(ei).splitlines()))


class _JournalFormatter(_Formatter):
    """Put the priority before every line, since the journal reads stderr line by line."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_JOURNAL_PRIORITY.get(record.levelno, 5)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def log_to_stderr(*, debug: bool, journal: bool, quiet: bool = False) -> None:
    """Log to stderr; `journal`: stderr is systemd's; `quiet`: warnings and errors only."""
    output = logging.StreamHandler()
    output.setFormatter(
        _JournalFormatter("%(message)s") if journal else _Formatter("overlayfs-py: %(message)s")
    )
    _use(output, logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO)


def log_to_syslog() -> None:
    """Log to the system log, for the background; without a system log drop all messages."""
    output: logging.Handler = logging.NullHandler()
    if os.path.exists(_SYSLOG):
        try:
            output = logging.handlers.SysLogHandler(_SYSLOG, logging.handlers.SysLogHandler.LOG_DAEMON)
            output.setFormatter(_Formatter(f"overlayfs-py[{os.getpid()}]: %(message)s"))
        except OSError:
            pass
    _use(output, logging.INFO)


def _use(output: logging.Handler, level: int) -> None:
    root = logging.getLogger()
    root.handlers[:] = [output]
    root.setLevel(level)
