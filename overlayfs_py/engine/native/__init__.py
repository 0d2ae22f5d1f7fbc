"""The native engine: the FUSE kernel protocol on /dev/fuse, served by one plain thread."""
