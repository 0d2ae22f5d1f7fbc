"""All contenders mounted at once, each over its own fresh copy of the layers.

So a row is measured for one contender right after the other, and other load on the machine affects them all.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from complaints import complaints
from contenders import Contender, Mounted, mounted
from stage import Stage, fresh_stage


@dataclass(frozen=True)
class Runner:
    """A contender that takes part in a round, where it is mounted, and its processes."""

    contender: Contender
    stage: Stage
    mount: Mounted

    @property
    def name(self) -> str:
        return self.contender.name


@contextmanager
def lineup(contenders: list[Contender], template: Path, base: Path) -> Iterator[list[Runner]]:
    """Those that mount, in the order of `contenders`; the others are named on stderr."""
    with ExitStack() as stack:
        running = []
        for contender in contenders:
            place = base / contender.name
            place.mkdir()
            stack.callback(place.rmdir)
            with complaints(contender, "mount"):
                stage = stack.enter_context(fresh_stage(place, template))
                running.append(Runner(contender, stage, stack.enter_context(mounted(contender, stage))))
        yield running


def in_turn(running: list[Runner], turn: int) -> list[Runner]:
    """Another one first each time, so that no contender always follows the slowest."""
    first = turn % len(running) if running else 0
    return running[first:] + running[:first]
