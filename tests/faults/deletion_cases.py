"""The same for deleting a run: cut short at every point, or a worker comes in between.

After every case (deleting.py): once it was hidden, no user and no worker gets at the run; deleting
it again, or `fairtune gc`, comes to the end; then no case and no file of it is left, and the run
beside it is as it was. Of a merged model that is deleted alone the same (deleting_merged.py).
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

from tests.faults.deletion import WORKER, Deletion
from tests.faults.matrix import FILES, SERVERS, Case, Moment
from tests.faults.scenarios.scenario import scenario
from tests.support.installation import wait_until

HIDING = Moment("being hidden, not committed", "hiding")
HIDDEN = Moment("hidden", "before_removal")
REMOVING = Moment("a file removed", "mid_removal")
REMOVED = Moment("all files removed", "before_rows")
FORGETTING = Moment("rows removed, not committed", "rows_gone")
GONE = Moment("gone, not answered", "deleted")
AT_ANY_TIME = (HIDING, HIDDEN, REMOVING, REMOVED, FORGETTING, GONE)


def _cut_short(case_run: Deletion) -> None:
    with case_run.held() as gate:
        case_run.kill_api(gate)
    assert case_run.answers == []
    if case_run.point == HIDING.point:
        case_run.assert_untouched()
    else:
        case_run.assert_hidden()


@scenario("API", "SIGKILL, and DELETE again")
def deleted_again(case_run: Deletion) -> None:
    _cut_short(case_run)
    assert case_run.delete() == (404 if case_run.point == GONE.point else 204)


@scenario("API", "SIGKILL, and `fairtune gc`")
def collected(case_run: Deletion) -> None:
    _cut_short(case_run)
    command = [sys.executable, "-m", "service.cli.main", "gc"]
    variables = os.environ | case_run.environment.settings.variables
    done = subprocess.run(
        command, env=variables, capture_output=True, text=True, check=True, timeout=60
    )
    half = case_run.point in (HIDDEN.point, REMOVING.point, REMOVED.point, FORGETTING.point)
    assert (case_run.named in done.stdout) == half, done.stdout
    if case_run.point == HIDING.point:
        case_run.assert_untouched()
        assert case_run.delete() == 204


@scenario("worker", "has seen that a job of the run waits, and claims it")
def claimed(case_run: Deletion) -> None:
    environment = case_run.environment
    environment.outages.flush_broker()
    claiming = environment.gates.arm("before_claim")
    environment.start_part(WORKER)
    claiming.reached()
    following = environment.gates.arm("before_look")
    with case_run.held() as gate:
        claiming.open()
        environment.send_message()
        if gate.holds(HIDDEN.point) or gate.holds(REMOVING.point) or gate.holds(REMOVED.point):
            following.reached()  # it has not got the job
        # Else the deletion holds what a claim waits for.
    following.reached()
    assert case_run.answers == [204]
    following.open()
    environment.kill(WORKER)


@scenario("user", "requested a merge, and is answered when the run is hidden")
def asked_too_late(case_run: Deletion) -> None:
    with case_run.asked("before_lock") as asking, case_run.held():
        asking.open()
        wait_until(lambda: case_run.asked_answer)
        case_run.assert_hidden()
    assert (case_run.asked_answer, case_run.answers) == (404, [204])


@scenario("user", "asks for a merge, which is committed when the run is about to be hidden")
def asked_meanwhile(case_run: Deletion) -> None:
    with case_run.asked("before_commit") as asking:

        def commit() -> None:
            wait_until(case_run.environment.outages.waits_for_lock)
            asking.open()
            wait_until(lambda: case_run.asked_answer)

        with case_run.held(before=commit):
            assert case_run.queued()
            case_run.assert_hidden()
    assert (case_run.asked_answer, case_run.answers) == (201, [204])


@scenario("user", "asks for it twice at once, and one answer comes while the other is being made")
def deleted_by_two(case_run: Deletion) -> None:
    with case_run.held() as first, case_run.held():
        first.open()
        wait_until(lambda: case_run.answers)
        case_run.check()
    assert case_run.answers == [204, 204]


def _of_both() -> Iterator[Case]:
    for moment in AT_ANY_TIME:
        quick = FILES if moment == REMOVING else None
        yield Case(deleted_again, (moment,), quick)
    for moment in AT_ANY_TIME:
        yield Case(collected, (moment,), FILES if moment == REMOVED else None)
    yield Case(deleted_by_two, (REMOVING,))


def _of_runs() -> Iterator[Case]:
    for moment in (HIDING, HIDDEN, REMOVING, REMOVED, FORGETTING):
        yield Case(claimed, (moment,), FILES if moment == HIDDEN else None)
    # SQLite lets one write after the other.
    for moment in (HIDDEN, REMOVING, REMOVED):
        yield Case(asked_too_late, (moment,), on=(SERVERS,))
        yield Case(asked_meanwhile, (moment,), on=(SERVERS,))


DELETION_CASES = tuple(
    replace(case, job="deletion", end="deleted") for case in (*_of_both(), *_of_runs())
)
MERGED_DELETION_CASES = tuple(
    replace(case, job="deletion of merged", end="deleted") for case in _of_both()
)
