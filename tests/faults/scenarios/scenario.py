"""What a scenario is."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.case_run import CaseRun
from tests.faults.environment import WORKERS
from tests.faults.gates import Gate


@dataclass(frozen=True)
class Scenario:
    name: str
    what: str
    how: str
    act: Callable[[CaseRun], None]
    submits: bool
    """The scenario submits the run itself, after its preparations."""
    disk: str | None
    """The folder below the data directory (`.`: all of it) that is a small disk of its own."""


def scenario(
    what: str, how: str, *, submits: bool = False, disk: str | None = None
) -> Callable[[Callable[[CaseRun], None]], Scenario]:
    return lambda act: Scenario(act.__name__, what, how, act, submits, disk)


def held_by_program(case_run: CaseRun, gate: Gate) -> bool:
    pid = gate.reached()
    return all(case_run.environment.process(worker).pid != pid for worker in WORKERS)
