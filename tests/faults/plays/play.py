"""What a play is."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.gates import Gate
from tests.faults.house import WORKERS
from tests.faults.scene import Scene


@dataclass(frozen=True)
class Play:
    name: str
    what: str
    how: str
    act: Callable[[Scene], None]
    submits: bool
    """The play submits the run itself, after its preparations."""
    disk: str | None
    """The folder below the data directory (`.`: all of it) that is a small disk of its own."""


def play(
    what: str, how: str, *, submits: bool = False, disk: str | None = None
) -> Callable[[Callable[[Scene], None]], Play]:
    return lambda act: Play(act.__name__, what, how, act, submits, disk)


def held_by_program(scene: Scene, gate: Gate) -> bool:
    pid = gate.reached()
    return all(scene.house.process(worker).pid != pid for worker in WORKERS)
