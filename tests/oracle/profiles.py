"""How much the comparisons do: quick and the same each time in `make test`, long and new in `make fuzz`."""

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Iterator

from hypothesis import HealthCheck, Phase, settings

from tests.oracle.sides import MountSide


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
    end = time.monotonic() + 60 * float(os.environ.get("FUZZ_MINUTES", "30")) / 4
    seed = first
    while time.monotonic() < end:
        yield seed
        seed += 1
    print(f"{seed - first} walks", flush=True)


@contextlib.contextmanager
def memory_pressure(*sides: MountSide, every: float = 0.1, all_every: int = 30) -> Iterator[None]:
    """Within, the kernel forgets names and inodes many times a second, as when memory is short.

    Those of the sides' mounts each time; those of the whole machine, with all their pages, now and then.
    """
    over = threading.Event()

    def drop() -> None:
        for turn in itertools.count(1):
            for side in sides:
                side.press()
            if turn % all_every == 0:
                with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as control:
                    control.write("3")
            if over.wait(every):
                return

    dropper = threading.Thread(target=drop, name="memory pressure")
    dropper.start()
    try:
        yield
    finally:
        over.set()
        dropper.join()
