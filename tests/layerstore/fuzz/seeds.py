"""Which cases a run tries: the same few in `make test`, new ones for minutes in `make fuzz-layers`."""

import os
import time
from collections.abc import Iterator

SHORT = range(1, 400)


def seeds(share: float) -> Iterator[int]:
    """Seeds for `share` of FUZZ_MINUTES, from FUZZ_SEED or from the clock; the first is printed."""
    first = int(os.environ.get("FUZZ_SEED", str(time.time_ns() // 10**9 * 1_000_000)))
    print(f"\ncases from FUZZ_SEED={first}", flush=True)
    end = time.monotonic() + share * 60 * float(os.environ.get("FUZZ_MINUTES", "30"))
    seed = first
    while time.monotonic() < end:
        yield seed
        seed += 1
