"""The native engine: the FUSE kernel protocol itself, spoken over /dev/fuse by one plain thread."""
