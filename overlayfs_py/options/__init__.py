"""Mount options: frozen records, the table of all options, readers for mount strings and TOML files."""

from overlayfs_py.options.parse import escape, parse_options, split_options
from overlayfs_py.options.records import IdRange, MountOptions, Options, ServiceOptions, UnionOptions

__all__ = [
    "IdRange",
    "MountOptions",
    "Options",
    "ServiceOptions",
    "UnionOptions",
    "escape",
    "parse_options",
    "split_options",
]
