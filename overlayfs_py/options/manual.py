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


def render() -> str:
    """The whole page."""
    parts = [_HEAD]
    for title, rows in GROUPS.items():
        parts += [f"\n## {title}\n", "| option | what happens | meaning |", "| --- | --- | --- |"]
        parts += [f"| `{_cell(form(row))}` | {effect(row)} | {_cell(row.meaning)} |" for row in rows]
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
