"""Real messages, as tests/wire keeps them (see capturing.py)."""

from pathlib import Path

WIRE = Path(__file__).resolve().parents[2] / "wire"


def captured() -> dict[str, bytes]:
    """Message by opcode name."""
    return {path.stem.partition("-")[2].upper(): read(path) for path in sorted(WIRE.glob("*.hex"))}


def read(path: Path) -> bytes:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return bytes.fromhex("".join(lines))
