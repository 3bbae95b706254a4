"""The program, and the worker, which is supervisor and Celery's process in one."""

from tests.faults.case_run import CaseRun
from tests.faults.scenarios.scenario import held_by_program, scenario


@scenario("program", "SIGKILL")
def program_killed(case_run: CaseRun) -> None:
    gate = case_run.reach()
    case_run.mark_broken()
    case_run.program().kill()
    gate.open()


@scenario("program", "SIGSTOP for longer than its limit")
def program_frozen(case_run: CaseRun) -> None:
    case_run.reach()
    case_run.mark_broken()
    case_run.program().suspend()
    case_run.until_taken_over()


@scenario("program", "hangs, but hears signals")
def program_hangs(case_run: CaseRun) -> None:
    case_run.reach()
    case_run.mark_broken()
    case_run.until_taken_over()


@scenario("worker", "SIGKILL")
def worker_killed(case_run: CaseRun) -> None:
    gate = case_run.reach()
    case_run.mark_broken()
    case_run.environment.kill(case_run.worker())
    gate.open()


@scenario("worker", "SIGSTOP past its lease, SIGCONT when another has the job")
def worker_zombie(case_run: CaseRun) -> None:
    gate = case_run.reach()
    case_run.mark_broken()
    with case_run.environment.frozen(case_run.worker(), anywhere=gate.holds("mid_transaction")):
        case_run.until_taken_over()
        gate.open()


@scenario("worker", "SIGTERM")
def worker_terminated(case_run: CaseRun) -> None:
    gate = case_run.reach()
    _tell(case_run)
    gate.open()


@scenario("worker", "SIGTERM, and again before its program has stopped")
def worker_terminated_twice(case_run: CaseRun) -> None:
    gate = case_run.reach()
    worker = _tell(case_run)
    case_run.environment.tell(worker)
    if held_by_program(case_run, gate):
        # Its program cannot stop by itself: it stands at the gate.
        case_run.until(lambda _: case_run.environment.has_ended(worker))
    gate.open()


def _tell(case_run: CaseRun) -> str:
    """TERM to the worker; returns once it, and a program at the gate, know."""
    case_run.mark_broken()
    worker = case_run.worker()
    case_run.environment.tell(worker)
    case_run.environment.gates.seen("worker_terminated")
    if held_by_program(case_run, case_run.gates[0]):
        case_run.environment.gates.seen("program_told")
    return worker


@scenario("worker", "its database connection stalls past the lease, the others' does not")
def worker_cut_off(case_run: CaseRun) -> None:
    gate = case_run.reach()
    case_run.mark_broken()
    case_run.environment.outages.stall_database(case_run.worker())
    case_run.until_taken_over()
    gate.open()
    case_run.environment.outages.restore()
