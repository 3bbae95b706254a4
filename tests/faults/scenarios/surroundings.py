"""What everything stands on comes and goes: the API, the broker, the database, the machine."""

import contextlib
from collections.abc import Callable

import psutil

from tests.faults.case_run import CaseRun
from tests.faults.environment import API, WORKERS
from tests.faults.scenarios.scenario import scenario


@scenario("API", "SIGKILL, and started again")
def api_killed(case_run: CaseRun) -> None:
    for gate in case_run.reach_each():
        case_run.environment.kill(API)
        gate.open()
        case_run.environment.start_part(API)
        case_run.environment.ready()


@scenario("API", "SIGSTOP for longer than a lease")
def api_frozen(case_run: CaseRun) -> None:
    for gate in case_run.reach_each():
        with case_run.environment.frozen(API):
            gate.open()
            case_run.outlast_lease()


@scenario("machine", "SIGSTOP of every process for longer than a lease")
def machine_suspended(case_run: CaseRun) -> None:
    gate = case_run.reach()
    case_run.mark_broken()
    owner = case_run.worker()
    # The owner last: who is frozen later would find its lease run out, were that to take long.
    parts = (API, *(worker for worker in WORKERS if worker != owner), owner)
    everything = [
        *(case_run.environment.process(part) for part in parts),
        *case_run.environment.children(),
    ]
    for part in parts:
        case_run.environment.freeze(part)
    for process in everything:
        process.suspend()
    case_run.outlast_lease()
    gate.open()
    for process in everything:
        process.resume()


@scenario("machine", "SIGKILL of every process and the broker, and all started again")
def machine_lost(case_run: CaseRun) -> None:
    gate = case_run.reach()
    case_run.mark_broken()
    case_run.environment.kill(API, *WORKERS)
    for child in case_run.environment.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    case_run.environment.outages.kill_broker()
    gate.open()
    case_run.environment.heal()


@scenario("broker", "killed, and started again empty")
def broker_killed(case_run: CaseRun) -> None:
    for gate in case_run.reach_each():
        case_run.environment.outages.kill_broker()
        gate.open()
        case_run.environment.outages.restore()


@scenario("broker", "cannot be reached for longer than a lease")
def broker_cut(case_run: CaseRun) -> None:
    for gate in case_run.reach_each():
        case_run.environment.outages.cut_broker()
        gate.open()
        case_run.outlast_lease()
        case_run.environment.outages.restore()


@scenario("database", "cannot be reached (SQLite: is locked) for longer than a lease")
def database_cut(case_run: CaseRun) -> None:
    for gate in case_run.reach_each():
        case_run.environment.outages.cut_database()
        gate.open()
        case_run.outlast_lease()
        case_run.environment.outages.restore()


@scenario("database", "does not answer for longer than a lease")
def database_stalled(case_run: CaseRun) -> None:
    for gate in case_run.reach_each():
        case_run.environment.outages.stall_database()
        gate.open()
        case_run.outlast_lease()
        case_run.environment.outages.restore()


@scenario("bucket", "cannot be reached for longer than a lease")
def bucket_cut(case_run: CaseRun) -> None:
    _take_bucket(case_run, case_run.environment.outages.cut_store)


@scenario("bucket", "does not answer for longer than a lease")
def bucket_stalled(case_run: CaseRun) -> None:
    _take_bucket(case_run, case_run.environment.outages.stall_store)


@scenario("bucket", "takes and gives 8,000 bytes a second for longer than a lease")
def bucket_slow(case_run: CaseRun) -> None:
    _take_bucket(case_run, case_run.environment.outages.slow_store)


def _take_bucket(case_run: CaseRun, take: Callable[[], None]) -> None:
    for gate in case_run.reach_each():
        take()
        gate.open()
        case_run.outlast_lease()
        case_run.environment.outages.restore()


@scenario("database", "a commit succeeds, but its answer is lost")
def answer_lost(case_run: CaseRun) -> None:
    case_run.reach().open()
