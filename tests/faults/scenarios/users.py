"""What users ask for."""

from service.domain.states import JobStatus
from tests.faults.case_run import CaseRun
from tests.faults.gates import Gate
from tests.faults.scenarios.scenario import held_by_program, scenario


@scenario("user", "retries a run that ran out of memory")
def retried(case_run: CaseRun) -> None:
    gate = case_run.reach()
    case_run.environment.gates.limit_memory(train=0)
    gate.open()
    case_run.until_status(JobStatus.FAILED)
    case_run.environment.gates.clear()
    case_run.ask("retry")


@scenario("user", "cancels")
def cancelled(case_run: CaseRun) -> None:
    gate = case_run.reach()
    case_run.ask("cancel")
    _until_program_is_told(case_run, gate)
    gate.open()


@scenario("user", "pauses; later the run goes on, on another worker")
def paused(case_run: CaseRun) -> None:
    gate = case_run.reach()
    worker = case_run.worker()
    case_run.ask("pause")
    _until_program_is_told(case_run, gate)
    gate.open()
    case_run.until_status(JobStatus.PAUSED)
    case_run.check(JobStatus.PAUSED)
    with case_run.environment.frozen(worker):
        case_run.ask("resume")
        case_run.until(lambda job: job.status == JobStatus.RUNNING and case_run.worker() != worker)


@scenario("user", "cancels when the result is being written")
def cancelled_too_late(case_run: CaseRun) -> None:
    gate = case_run.reach()
    case_run.ask("cancel")
    gate.open()


@scenario("user", "pauses when the result is being written")
def paused_too_late(case_run: CaseRun) -> None:
    gate = case_run.reach()
    case_run.ask("pause")
    gate.open()


def _until_program_is_told(case_run: CaseRun, gate: Gate) -> None:
    if held_by_program(case_run, gate):
        case_run.environment.gates.seen("program_told")
