"""docs/options.md, made from the rows that the parser reads: ``python -m overlayfs_py.options.manual``."""

from overlayfs_py.options.table import GROUPS, Kind, Row

_HEAD = """\
# Mount options

Given to `overlayfs-py -o`, `mount -t fuse.overlayfs-py -o`, in fstab, or as keys of a configuration file
in `/etc/overlayfs-py`. Commas separate options, colons separate lower directories; a backslash before a
comma, a colon or itself takes its meaning away. Empty options and those starting with `x-` are passed
over. An option that is not here is an error that names it.

This table is made from the parser's own (`python -m overlayfs_py.options.manual`), and a test compares them.
"""

# Work, the data path that is best for it, and why; medians of docs/benchmarks.md, and of four-byte appends.
_DATA_PATHS = (
    (
        "many small files: reading, package managers, images' own programs",
        "`cached`",
        "opening what is known costs nothing: 2.6 µs to open, read and close again (passthrough 17.6, "
        "kernel 3.5)",
    ),
    (
        "files written in small pieces: compilers, archivers, logs",
        "`writeback`",
        "writes are collected: 50 C files compiled in 668 ms (cached 693, passthrough 709, kernel 678), "
        "1,590,000 four-byte appends a second",
    ),
    (
        "databases, disks of virtual machines, O_DIRECT; stores into mappings on a disk that may be full",
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
`cached` asks the daemon for each write(2), and the upper has it when the call returns: 12,600 four-byte
appends a second (kernel 864,000). Whoever appends so little at a time is better off with one of the
others, or with a buffer. More figures are in [benchmarks](benchmarks.md); what `writeback` keeps back, and
until when, in [decision 0021](decisions/0021-data-writeback.md).
"""


def render() -> str:
    """The whole page."""
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
    """The option as it is written."""
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
    """What becomes of it, in a few words."""
    if row.kind is Kind.ONE_OF and not row.target:
        return "accepted; other values are an error"
    return {Kind.SILENT: "accepted", Kind.WARNED: "accepted with a warning", Kind.REFUSED: "error"}.get(
        row.kind, "honoured"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(render(), end="")
