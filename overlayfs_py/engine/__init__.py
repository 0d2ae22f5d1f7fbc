"""Engines: thin adapters between `union.Overlay` and FUSE.

`open_engine` imports only the engine that is needed.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from overlayfs_py.engine.base import Engine, EngineCapabilities, EngineStatistics
from overlayfs_py.errors import EngineUnavailable
from overlayfs_py.options import ServiceOptions

if TYPE_CHECKING:
    from overlayfs_py.union.overlay import Overlay

__all__ = ["ENGINES", "Engine", "EngineCapabilities", "EngineStatistics", "open_engine"]

# The module of each engine; its `create(overlay, options)` makes the engine.
ENGINES = {
    "pyfuse3": "overlayfs_py.engine.libfuse.engine",
    "native": "overlayfs_py.engine.native.engine",
}
# `auto` takes the first of these that works on this machine (decision 0015).
_PREFERENCE = ("native", "pyfuse3")
# What to do when the module of an engine cannot be imported.
_REMEDY = {
    "pyfuse3": "; install it with: pip install 'overlayfs-py[pyfuse3]'"
    " (needs gcc, pkg-config, libfuse3-dev and Python's headers)",
}

log = logging.getLogger("overlayfs_py.engine")


def open_engine(overlay: "Overlay", options: ServiceOptions) -> Engine:
    """Return the engine for `options`, not attached to a mount yet; EngineUnavailable says what is
    missing.
    """
    if options.engine != "auto":
        return _create(options.engine, overlay, options)
    reasons = []
    for name in _PREFERENCE:
        try:
            engine = _create(name, overlay, options)
        except EngineUnavailable as error:
            reasons.append(str(error))
            continue
        if reasons:
            engine.capabilities = replace(engine.capabilities, fallback="; ".join(reasons))
            log.warning("engine=auto uses %s: %s", name, engine.capabilities.fallback)
        return engine
    raise EngineUnavailable("; ".join(reasons))


def _create(name: str, overlay: "Overlay", options: ServiceOptions) -> Engine:
    module = ENGINES.get(name)
    if module is None:
        raise EngineUnavailable(f"engine={name} does not exist in this version: use engine=auto")
    try:
        create: Callable[[Overlay, ServiceOptions], Engine] = import_module(module).create
    except ImportError as error:
        raise EngineUnavailable(f"engine={name} is not available: {error}{_REMEDY.get(name, '')}") from error
    return create(overlay, options)
