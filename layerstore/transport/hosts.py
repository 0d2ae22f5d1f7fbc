"""Names of hosts: whether one is this machine, and the real host of docker.io."""

from __future__ import annotations

import ipaddress

DOCKER_HUB = "docker.io"
_HUB_API = "registry-1.docker.io"


def is_loopback(host: str) -> bool:
    """Whether a host (without port) is this machine (localhost, 127.0.0.0/8, ::1), without a DNS query."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def without_port(domain: str) -> str:
    """Return the host of ``host[:port]``; an IPv6 address stays in brackets."""
    if domain.startswith("["):
        return domain.partition("]")[0] + "]"
    return domain.partition(":")[0]


def api_host(domain: str) -> str:
    """Return the host of a domain's registry."""
    return _HUB_API if domain in {DOCKER_HUB, f"index.{DOCKER_HUB}"} else domain
