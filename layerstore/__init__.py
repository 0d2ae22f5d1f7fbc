"""Images the way docker users know them, on a store that is a plain OCI image layout.

Every verb of the command line is a function here::

    image_id = layerstore.import_("rootfs.tar.gz", "base", root="store")
    name = layerstore.create("base", root="store")
    path = layerstore.mount(name, root="store")
    ...
    layerstore.commit(name, "base:changed", message="more of it", root="store")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerstore.verbs.commit import commit as commit
    from layerstore.verbs.cp import cp as cp
    from layerstore.verbs.create import create as create
    from layerstore.verbs.df import df as df
    from layerstore.verbs.df import df_details as df_details
    from layerstore.verbs.diff import diff as diff
    from layerstore.verbs.export import export as export
    from layerstore.verbs.fsck import fsck as fsck
    from layerstore.verbs.images import history as history
    from layerstore.verbs.images import images as images
    from layerstore.verbs.import_ import import_ as import_
    from layerstore.verbs.info import info as info
    from layerstore.verbs.info import version as version
    from layerstore.verbs.inspect import inspect as inspect
    from layerstore.verbs.load import load as load
    from layerstore.verbs.login import kept_login as kept_login
    from layerstore.verbs.login import login as login
    from layerstore.verbs.login import logout as logout
    from layerstore.verbs.mount import mount as mount
    from layerstore.verbs.mount import umount as umount
    from layerstore.verbs.prune import prune as prune
    from layerstore.verbs.ps import ps as ps
    from layerstore.verbs.ps import rename as rename
    from layerstore.verbs.ps import rm as rm
    from layerstore.verbs.pull import pull as pull
    from layerstore.verbs.push import push as push
    from layerstore.verbs.save import save as save
    from layerstore.verbs.search import search as search
    from layerstore.verbs.tag import rmi as rmi
    from layerstore.verbs.tag import tag as tag
    from layerstore.verbs.tags import local_tags as local_tags
    from layerstore.verbs.tags import remote_tags as remote_tags

# Where each verb is; imported when it is first used, so that the fast ones start fast.
_VERBS = {
    "commit": "commit",
    "cp": "cp",
    "create": "create",
    "df": "df",
    "df_details": "df",
    "diff": "diff",
    "export": "export",
    "fsck": "fsck",
    "history": "images",
    "images": "images",
    "import_": "import_",
    "info": "info",
    "inspect": "inspect",
    "kept_login": "login",
    "load": "load",
    "local_tags": "tags",
    "login": "login",
    "logout": "login",
    "mount": "mount",
    "prune": "prune",
    "ps": "ps",
    "pull": "pull",
    "push": "push",
    "remote_tags": "tags",
    "rename": "ps",
    "rm": "ps",
    "rmi": "tag",
    "save": "save",
    "search": "search",
    "tag": "tag",
    "umount": "mount",
    "version": "info",
}

__all__ = [*_VERBS]


def __getattr__(name: str) -> Any:
    if name not in _VERBS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    verb = getattr(import_module(f"layerstore.verbs.{_VERBS[name]}"), name)
    globals()[name] = verb
    return verb


def __dir__() -> list[str]:
    return sorted({*globals(), *_VERBS})
