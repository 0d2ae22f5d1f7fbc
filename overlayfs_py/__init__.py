"""An overlay filesystem over FUSE: kernel overlayfs semantics in user space."""

__version__ = "0.1.0"
