"""What an image's configuration says, in the keys and the order of ``docker inspect``.

docker shows every field of its records, empty or not; scripts and templates ask for them.
"""

from typing import Any

from layerstore import model
from layerstore.image.image import Image

NO_TIME = "0001-01-01T00:00:00Z"  # how Go writes that there is none

# docker's container.Config: each field with what it is when the image does not say. One of _OPTIONAL is then
# left out.
_CONFIG: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "ExposedPorts": None,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Healthcheck": None,
    "ArgsEscaped": False,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "NetworkDisabled": False,
    "MacAddress": "",
    "OnBuild": None,
    "Labels": None,
    "StopSignal": "",
    "StopTimeout": None,
    "Shell": None,
}
_OPTIONAL = frozenset(
    {
        "ExposedPorts",
        "Healthcheck",
        "ArgsEscaped",
        "NetworkDisabled",
        "MacAddress",
        "StopSignal",
        "StopTimeout",
        "Shell",
    }
)


def document(image: Image) -> dict[str, Any]:
    """From ``Comment`` to ``Os``: what stands in the configuration itself."""
    document = model.parse_document(image.raw_config)
    steps = image.config.steps
    shown: dict[str, Any] = {
        "Comment": document.get("comment") or (steps[-1].comment if steps else ""),
        "Created": image.created or NO_TIME,
        "Container": document.get("container") or "",
        "ContainerConfig": runtime(document.get("container_config") or {}),
        "DockerVersion": document.get("docker_version") or "",
        "Author": image.config.author or "",
        "Config": None if document.get("config") is None else runtime(document["config"]),
        "Architecture": image.config.architecture,
    }
    if image.config.variant:
        shown["Variant"] = image.config.variant
    shown["Os"] = image.config.os
    if version := document.get("os.version"):
        shown["OsVersion"] = version
    return shown


def runtime(config: Any) -> dict[str, Any]:
    """How a container of the image starts: all that docker knows, then what only others know."""
    if not isinstance(config, dict):
        return runtime({})
    known = {key: config.get(key, usual) for key, usual in _CONFIG.items()}
    shown = {key: value for key, value in known.items() if value or key not in _OPTIONAL}
    return {**shown, **{key: value for key, value in config.items() if key not in _CONFIG}}
