"""Messages that are lost, doubled or late, and workers that race."""

import contextlib
import threading

import httpx

from tests.faults.case_run import CaseRun
from tests.faults.environment import API, WORKERS
from tests.faults.scenarios.scenario import scenario


@scenario("message", "never sent: the API is killed between commit and sending", submits=True)
def message_never_sent(case_run: CaseRun) -> None:
    gate = case_run.environment.gates.arm("before_notify")
    poster = threading.Thread(target=_post_in_vain, args=[case_run])
    poster.start()
    gate.reached()
    case_run.environment.kill(API)
    poster.join()
    gate.open()
    case_run.follow(case_run.environment.newest_run())
    case_run.environment.start_part(API)
    case_run.environment.ready()


def _post_in_vain(case_run: CaseRun) -> None:
    with contextlib.suppress(httpx.TransportError):
        case_run.submit()


@scenario("message", "lost: the broker is emptied while jobs wait", submits=True)
def broker_flushed(case_run: CaseRun) -> None:
    case_run.environment.kill(*WORKERS)  # alive they would have taken it
    case_run.submit()
    case_run.environment.outages.flush_broker()
    for worker in WORKERS:
        case_run.environment.start_part(worker)


@scenario(
    "message", "cannot be sent: the broker is unreachable when the run is submitted", submits=True
)
def broker_away(case_run: CaseRun) -> None:
    case_run.environment.outages.cut_broker()
    case_run.submit()
    case_run.outlast_lease()
    case_run.environment.outages.restore()


def _deliver(case_run: CaseRun, times: int) -> None:
    gate = case_run.reach()
    for _ in range(times - 1):
        case_run.environment.send_message()
    case_run.until(lambda job: job.token == 1)  # by the other worker
    gate.open()


@scenario("message", "delivered twice")
def message_twice(case_run: CaseRun) -> None:
    _deliver(case_run, 2)


@scenario("message", "delivered thirty times")
def message_often(case_run: CaseRun) -> None:
    _deliver(case_run, 30)


@scenario("two workers", "race for one job", submits=True)
def race(case_run: CaseRun) -> None:
    gates = [case_run.environment.gates.arm("before_claim") for _ in WORKERS]
    case_run.submit()
    case_run.environment.hold_each(gates)
    for gate in gates:
        gate.open()


@scenario(
    "two workers", "their clocks a minute apart; the one that is ahead is killed", submits=True
)
def clock_skew(case_run: CaseRun) -> None:
    ahead, behind = WORKERS
    case_run.environment.kill(ahead)
    case_run.environment.start_part(ahead, SKEW_SECONDS="60")
    with case_run.environment.frozen(behind):
        case_run.submit()
        gate = case_run.reach()
    case_run.mark_broken()
    case_run.environment.kill(ahead)
    gate.open()
