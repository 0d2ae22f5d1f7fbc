"""``-c INSTRUCTION``: the Dockerfile instructions that `import` and `commit` take, applied to an image's
config.

Works on the JSON object named ``config`` inside an image configuration and returns a changed copy;
fields it does not know stay as they are.
"""

import posixpath
import re
import signal
from collections.abc import Callable, Iterable
from typing import Any

from layerstore.errors import checked_text
from layerstore.image import words
from layerstore.image.words import InvalidInstruction

Config = dict[str, Any]

_DEFAULT_SHELL = ["/bin/sh", "-c"]
# What stands before the last colon is for a host, as in a run's -p, and means nothing in an image.
_PORT = re.compile(
    r"(?:(?:[\d.]*:)?[\d-]*:)?(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII | re.IGNORECASE
)
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNIT_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_SHORTEST = 10**6  # nanoseconds between two looks at a container's health
_HEALTH_TIMES = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def apply(config: Config, changes: Iterable[str]) -> Config:
    """The config after these instructions; InvalidInstruction repeats the one that is wrong.

    As docker, but for what docker would silently drop or ignore: that is refused, or does what it says.
    """
    result = dict(config)
    cmd_set = False
    changes = [checked_text(change, "-c") for change in changes]
    lines = list(words.logical_lines(changes))
    if changes and not lines:
        raise InvalidInstruction(f"-c {changes[0]!r}: no instruction in it")
    for line in lines:
        name, *arguments = line.split(maxsplit=1)
        name, rest = name.upper(), arguments[0].strip() if arguments else ""
        action = _ACTIONS.get(name)
        if action is None:
            raise InvalidInstruction(f"-c {line!r}: {name} is not one of {', '.join(_ACTIONS)}")
        try:
            action(result, rest)
        except InvalidInstruction as error:
            raise InvalidInstruction(f"-c {line!r}: {error}") from None
        if name == "ENTRYPOINT" and "Entrypoint" in result and not cmd_set:
            result.pop("Cmd", None)  # the old command was meant for the old entry point
        cmd_set = cmd_set or name == "CMD"
    _inherit_health(result, config)
    return result


def _inherit_health(result: Config, parent: Config) -> None:
    """What a new check does not say stays as it was."""
    old, new = parent.get("Healthcheck"), result.get("Healthcheck")
    if old and new is not None and new is not old:
        result["Healthcheck"] = {**{key: old[key] for key in old if key != "Test"}, **new}


def environment(config: Config) -> dict[str, str]:
    """The config's Env as a mapping."""
    return {name: value for name, _, value in (entry.partition("=") for entry in config.get("Env") or [])}


def parse_duration(text: str) -> int:
    """Go's duration (``1m30s``) in nanoseconds."""
    if text == "0":
        return 0
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidInstruction(f"{text!r} is not a duration such as 30s or 1m30s")
    return sum(round(float(number) * _UNIT_NS[unit]) for number, unit in parts)


def _command(config: Config, rest: str) -> list[str]:
    exec_form = words.json_words(rest)
    if exec_form is not None:
        return exec_form
    return [*(config.get("Shell") or _DEFAULT_SHELL), rest] if rest else []


def _cmd(config: Config, rest: str) -> None:
    config["Cmd"] = _command(config, rest)


def _entrypoint(config: Config, rest: str) -> None:
    command = _command(config, rest)
    if command:
        config["Entrypoint"] = command
    else:
        config.pop("Entrypoint", None)


def _env(config: Config, rest: str) -> None:
    _need(rest)
    env = environment(config)
    entries = list(config.get("Env") or [])
    for name, value in words.name_values(rest, env):
        entry, at = (
            f"{name}={value}",
            next((i for i, e in enumerate(entries) if e.split("=")[0] == name), None),
        )
        if at is None:
            entries.append(entry)
        else:
            entries[at] = entry
    config["Env"] = entries


def _label(config: Config, rest: str) -> None:
    _need(rest)
    config["Labels"] = {**(config.get("Labels") or {}), **dict(words.name_values(rest, environment(config)))}


def _expose(config: Config, rest: str) -> None:
    _need(rest)
    ports = dict(config.get("ExposedPorts") or {})
    for word in words.expanded_words(rest, environment(config)):
        found = _PORT.fullmatch(word)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not found or not first <= last <= 65535:
            raise InvalidInstruction(f"{word!r} is not a port, a range of ports or PORT/PROTOCOL")
        ports |= {f"{port}/{(found[3] or 'tcp').lower()}": {} for port in range(first, last + 1)}
    config["ExposedPorts"] = ports


def _volume(config: Config, rest: str) -> None:
    _need(rest)
    env = environment(config)
    exec_form = words.json_words(rest)
    paths = (
        words.expanded_words(rest, env) if exec_form is None else [words.expand(w, env) for w in exec_form]
    )
    if not paths or not all(path.strip() for path in paths):
        raise InvalidInstruction("a volume needs a path")
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}


def _user(config: Config, rest: str) -> None:
    _need(rest)
    user = words.expand(rest, environment(config))
    if not user:
        raise InvalidInstruction("the user is empty")
    config["User"] = user


def _workdir(config: Config, rest: str) -> None:
    _need(rest)
    path = words.expand(rest, environment(config))
    if not path:
        raise InvalidInstruction("the path is empty")
    if not path.startswith("/"):  # an absolute one stays as it was written
        joined = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "", path))
        path = "/" + joined.lstrip("/")
    config["WorkingDir"] = path


def _stopsignal(config: Config, rest: str) -> None:
    word = _one_word(config, rest)
    name = word.upper() if word.upper().startswith("SIG") else f"SIG{word.upper()}"
    realtime = re.fullmatch(r"SIGRTM(IN(\+\d+)?|AX(-\d+)?)", name)
    known = word.isdigit() and 0 < int(word) <= signal.SIGRTMAX
    if not known and not realtime and name not in signal.Signals.__members__:
        raise InvalidInstruction(f"{word!r} is not a signal")
    config["StopSignal"] = word


def _onbuild(config: Config, rest: str) -> None:
    _need(rest)
    trigger = rest.split()[0].upper()
    if trigger in {"ONBUILD", "FROM", "MAINTAINER"}:
        raise InvalidInstruction(f"{trigger} is not allowed as an ONBUILD trigger")
    config["OnBuild"] = [*(config.get("OnBuild") or []), rest]


def _healthcheck(config: Config, rest: str) -> None:
    check: Config = {}
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        rest = rest.strip()
        name, _, value = flag[2:].partition("=")
        if name in _HEALTH_TIMES:
            check[_HEALTH_TIMES[name]] = parse_duration(value)
            if check[_HEALTH_TIMES[name]] < _SHORTEST:
                raise InvalidInstruction(f"{flag!r} is less than a millisecond")
        elif name == "retries" and value.isdigit() and int(value) > 0:
            check["Retries"] = int(value)
        else:
            raise InvalidInstruction(f"unknown or wrong flag {flag!r}")
    kind, _, command = rest.partition(" ")
    if kind.upper() == "NONE" and not command.strip() and not check:
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if kind.upper() != "CMD" or not command.strip():
        raise InvalidInstruction("HEALTHCHECK needs CMD and a command, or NONE alone")
    exec_form = words.json_words(command.strip())
    if exec_form == []:
        raise InvalidInstruction("HEALTHCHECK CMD needs a command")
    test = ["CMD-SHELL", command.strip()] if exec_form is None else ["CMD", *exec_form]
    config["Healthcheck"] = {"Test": test, **check}


def _need(rest: str) -> None:
    if not rest:
        raise InvalidInstruction("an argument is missing")


def _one_word(config: Config, rest: str) -> str:
    expanded = words.expanded_words(rest, environment(config))
    if len(expanded) != 1 or not expanded[0]:
        raise InvalidInstruction("exactly one argument is needed")
    return expanded[0]


_ACTIONS: dict[str, Callable[[Config, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
