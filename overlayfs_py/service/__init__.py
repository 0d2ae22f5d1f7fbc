"""The daemon around a mount: start, readiness, control socket, signals, systemd, clean end."""
