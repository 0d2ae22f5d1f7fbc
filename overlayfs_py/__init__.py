"""An overlay filesystem over FUSE: kernel overlayfs semantics in user space.

``with overlayfs_py.mount(lower=[...], upper=..., work=..., mountpoint=...) as m:`` mounts in a child process.
"""

TYPE_CHECKING = False  # importing typing takes longer than the programs' own start until they handle Ctrl-C
if TYPE_CHECKING:
    from overlayfs_py.service.child import ChildMount, mount

__version__ = "0.1.0"
__all__ = ["ChildMount", "__version__", "mount"]


def __getattr__(name: str) -> object:
    """Load `mount` on first use: layerstore imports this package, but only its lower rooms."""
    if name in ("mount", "ChildMount"):
        from overlayfs_py.service import child

        return getattr(child, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
