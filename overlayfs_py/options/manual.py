"""Make docs/options.md from the rows that the parser reads: ``python -m overlayfs_py.options.manual``."""

from overlayfs_py.options.table import GROUPS, Kind, Row

_HEAD = """\
# Mount options

Use them with `overlayfs-py -o`, `mount -t fuse.overlayfs-py -o`, in fstab, or as keys of a configuration
file in `/etc/overlayfs-py`. Commas separate options, colons separate lower directories; a backslash escapes a
comma, a colon or a backslash. Empty options and options that begin with `x-` are ignored. An option that is
not listed here is an error that names it.

`python -m overlayfs_py.options.manual` makes this page from the parser's own table; a test compares them.
"""

# Kind of work, best data path, reason. The figures are medians of docs/benchmarks.md and of four-byte
# appends.
_DATA_PATHS = (
    (
        "many small files: reading, package managers, programs of images",
        "`cached`",
        "opening a known file sends no request: 2.6 µs to open, read and close again (passthrough 17.6, "
        "kernel 3.5)",
    ),
    (
        "files written in small pieces: compilers, archivers, logs",
        "`writeback`",
        "the kernel collects writes: 50 C files compiled in 668 ms (cached 693, passthrough 709, kernel "
        "678), 1,590,000 four-byte appends a second",
    ),
    (
        "databases, disks of virtual machines, O_DIRECT; stores into mappings on a disk that may run full",
        "`passthrough`",
        "the kernel itself reads and writes the layer's file: 4 KiB at random in 7.8 µs (cached and "
        "writeback 25, kernel 8.8), 755,000 four-byte appends a second",
    ),
    (
        "much data in few files",
        "`passthrough`, `writeback`",
        "273 and 233 MB/s of sequential writes (cached 118, kernel 299)",
    ),
)
_OF_CACHED = """\
With `cached` each write(2) is a request, and the upper has the data when the call returns: 12,600 four-byte
appends a second (kernel 864,000). For such small appends use another data path, or a buffer in the program.
[Benchmarks](benchmarks.md) has more figures; [decision 0021](decisions/0021-data-writeback.md) says which
data `writeback` holds back, and until when.
"""


def render() -> str:
    """Return the whole page."""
    parts = [_HEAD]
    for title, rows in GROUPS.items():
        parts += [f"\n## {title}\n", "| option | what happens | meaning |", "| --- | --- | --- |"]
        parts += [f"| `{_cell(form(row))}` | {effect(row)} | {_cell(row.meaning)} |" for row in rows]
        if any(row.name == "data" for row in rows):
            parts += ["\n### Which data path\n", "| work | best | because |", "| --- | --- | --- |"]
            parts += [f"| {' | '.join(path)} |" for path in _DATA_PATHS]
            parts += ["", _OF_CACHED.rstrip("\n")]
    return "\n".join(parts) + "\n"


def form(row: Row) -> str:
    """Return the option as users write it."""
    if row.kind in (Kind.FLAG, Kind.SILENT, Kind.WARNED, Kind.REFUSED):
        return row.name
    if row.kind is Kind.ONE_OF:
        return f"{row.name}={'|'.join(row.values)}"
    placeholder = {
        Kind.LOWERS: "DIR[:DIR...][::DIR...]",
        Kind.DIRECTORY: "DIR",
        Kind.INTEGER: "N",
        Kind.SECONDS: "SECONDS",
        Kind.TEXT: "TEXT",
        Kind.ID_MAP: "LAYER:MOUNT:SIZE[:...]",
    }
    return f"{row.name}={placeholder[row.kind]}"


def effect(row: Row) -> str:
    """Say in a few words what the parser does with the option."""
    if row.kind is Kind.ONE_OF and not row.target:
        return "accepted; other values are an error"
    return {Kind.SILENT: "accepted", Kind.WARNED: "accepted with a warning", Kind.REFUSED: "error"}.get(
        row.kind, "honoured"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(render(), end="")
