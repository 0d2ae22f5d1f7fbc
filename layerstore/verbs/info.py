"""``info`` and ``version``: this store, this machine, this program."""

import os
import platform
from typing import Any

import overlayfs_py
from layerstore.image import find, platforms
from layerstore.image.find import FoundImage
from layerstore.store import layers
from layerstore.store.opening import RootPath, open_store
from layerstore.workspace import mounting
from layerstore.workspace.record import all_workspaces

_INDEX = "https://index.docker.io/v1/"


def info(*, root: RootPath = None) -> dict[str, Any]:
    """Return facts about the store and the machine, under docker's keys where docker has one."""
    store = open_store(root)
    states = [mounting.state_of(workspace) for workspace in all_workspaces(store, [])]
    mounted = sum(state == "mounted" for state in states)
    images: list[FoundImage] = find.all_images(store, [])
    return {
        "Containers": len(states),
        "ContainersRunning": mounted,
        "ContainersPaused": 0,
        "ContainersStopped": len(states) - mounted,
        "Images": len({found.image.id for found in images}),
        "Driver": "overlayfs-py",
        "DriverStatus": [["userxattr", str(layers.uses_userxattr(store)).lower()]],
        "KernelVersion": platform.release(),
        "OperatingSystem": _operating_system(),
        "OSType": "linux",
        "Architecture": platform.machine(),
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "Name": platform.node(),
        "DockerRootDir": str(store.root),
        "IndexServerAddress": _INDEX,
        "ServerVersion": overlayfs_py.__version__,
    }


def version() -> dict[str, Any]:
    """Return the versions of docker's two parts, client and server, which are one program here."""
    shown = {
        "Version": overlayfs_py.__version__,
        "PythonVersion": platform.python_version(),
        "KernelVersion": platform.release(),
        "Os": "linux",
        "Arch": platforms.host_architecture(),
    }
    return {"Client": shown, "Server": {"Engine": "layerstore", **shown}}


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
