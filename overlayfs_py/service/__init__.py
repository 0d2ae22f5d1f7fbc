"""The daemon of a mount: start, readiness, control socket, signals, systemd, clean end."""
