"""How much the comparisons do: quick and the same each time in `make test`, long and new in `make fuzz`."""

import os
import time
from collections.abc import Iterator

from hypothesis import HealthCheck, Phase, settings


def machine_settings(examples: int) -> settings:
    """The state machine's settings; shrinking is left to `minimise`, which knows how to drop operations."""
    return settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        derandomize=not fuzzing(),
        database=None,
        phases=[Phase.generate],
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )


def fuzzing() -> bool:
    """Whether this is the long run."""
    return os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"


def fuzz_seeds() -> Iterator[int]:
    """Seeds until FUZZ_MINUTES are over, from FUZZ_SEED or from the clock; the first is printed."""
    first = int(os.environ.get("FUZZ_SEED", str(time.time_ns() // 10**9 * 100_000)))
    print(f"\nwalks from FUZZ_SEED={first}", flush=True)
    end = time.monotonic() + 60 * float(os.environ.get("FUZZ_MINUTES", "30")) / 3
    seed = first
    while time.monotonic() < end:
        yield seed
        seed += 1
    print(f"{seed - first} walks", flush=True)
