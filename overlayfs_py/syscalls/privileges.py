"""Linux capabilities and user namespaces of a process, as /proc tells them."""

CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_FSETID = 4
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21

_EVERYBODY = [b"0", b"0", b"4294967295"]


def status_of(pid: int | str = "self") -> dict[bytes, bytes]:
    """Return /proc/PID/status as a dict; OSError when the process is gone or not visible."""
    with open(f"/proc/{pid}/status", "rb") as status:
        return {name: value.strip() for name, _, value in (line.partition(b":") for line in status)}


def has_capability(number: int, status: dict[bytes, bytes] | None = None) -> bool:
    """Whether a capability is effective, if only in a user namespace: this process's, or by `status`.

    OSError without a /proc.
    """
    found = status_of() if status is None else status
    return bool(int(found.get(b"CapEff", b"0"), 16) >> number & 1)


def in_first_user_namespace() -> bool:
    """Whether the user namespace of this process has all ids, as the first one has; OSError without /proc."""
    with open("/proc/self/uid_map", "rb") as uid_map:
        return uid_map.read().split() == _EVERYBODY


def is_administrator() -> bool:
    """Whether CAP_SYS_ADMIN is effective outside of user namespaces: trusted.* xattrs, backing files."""
    return in_first_user_namespace() and has_capability(CAP_SYS_ADMIN)
