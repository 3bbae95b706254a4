"""The same for deleting a run: cut short at every point, or a worker comes in between.

After every row (deleting.py): once it was hidden, no user and no worker gets at the run; deleting
it again, or `fairtune gc`, comes to the end; then no row and no file of it is left, and the run
beside it is as it was. Of a merged model that is deleted alone the same (deleting_merged.py).
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

from tests.faults.deleting import WORKER, Deletion
from tests.faults.matrix import FILES, SERVERS, Moment, Row
from tests.faults.plays.play import play
from tests.support.installation import wait_until

HIDING = Moment("being hidden, not committed", "hiding")
HIDDEN = Moment("hidden", "before_removal")
REMOVING = Moment("a file removed", "mid_removal")
REMOVED = Moment("all files removed", "before_rows")
FORGETTING = Moment("rows removed, not committed", "rows_gone")
GONE = Moment("gone, not answered", "deleted")
AT_ANY_TIME = (HIDING, HIDDEN, REMOVING, REMOVED, FORGETTING, GONE)


def _cut_short(scene: Deletion) -> None:
    with scene.held() as gate:
        scene.kill_api(gate)
    assert scene.answers == []
    if scene.point == HIDING.point:
        scene.assert_untouched()
    else:
        scene.assert_hidden()


@play("API", "SIGKILL, and DELETE again")
def deleted_again(scene: Deletion) -> None:
    _cut_short(scene)
    assert scene.delete() == (404 if scene.point == GONE.point else 204)


@play("API", "SIGKILL, and `fairtune gc`")
def collected(scene: Deletion) -> None:
    _cut_short(scene)
    command = [sys.executable, "-m", "service.cli.main", "gc"]
    environment = os.environ | scene.house.settings.variables
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    half = scene.point in (HIDDEN.point, REMOVING.point, REMOVED.point, FORGETTING.point)
    assert (scene.named in done.stdout) == half, done.stdout
    if scene.point == HIDING.point:
        scene.assert_untouched()
        assert scene.delete() == 204


@play("worker", "has seen that a job of the run waits, and claims it")
def claimed(scene: Deletion) -> None:
    house = scene.house
    house.outages.flush_broker()
    claiming = house.gates.arm("before_claim")
    house.start_part(WORKER)
    claiming.reached()
    following = house.gates.arm("before_look")
    with scene.held() as gate:
        claiming.open()
        house.send_message()
        if gate.holds(HIDDEN.point) or gate.holds(REMOVING.point) or gate.holds(REMOVED.point):
            following.reached()  # it has not got the job
        # Else the deletion holds what a claim waits for.
    following.reached()
    assert scene.answers == [204]
    following.open()
    house.kill(WORKER)


@play("user", "has asked for a merge, and is answered when the run is hidden")
def asked_too_late(scene: Deletion) -> None:
    with scene.asked("before_lock") as asking, scene.held():
        asking.open()
        wait_until(lambda: scene.asked_answer)
        scene.assert_hidden()
    assert (scene.asked_answer, scene.answers) == (404, [204])


@play("user", "asks for a merge, which is committed when the run is about to be hidden")
def asked_meanwhile(scene: Deletion) -> None:
    with scene.asked("before_commit") as asking:

        def commit() -> None:
            wait_until(scene.house.outages.waits_for_lock)
            asking.open()
            wait_until(lambda: scene.asked_answer)

        with scene.held(before=commit):
            assert scene.queued()
            scene.assert_hidden()
    assert (scene.asked_answer, scene.answers) == (201, [204])


@play("user", "asks for it twice at once, and one answer comes while the other is being made")
def deleted_by_two(scene: Deletion) -> None:
    with scene.held() as first, scene.held():
        first.open()
        wait_until(lambda: scene.answers)
        scene.check()
    assert scene.answers == [204, 204]


def _of_both() -> Iterator[Row]:
    for moment in AT_ANY_TIME:
        quick = FILES if moment == REMOVING else None
        yield Row(deleted_again, (moment,), quick)
    for moment in AT_ANY_TIME:
        yield Row(collected, (moment,), FILES if moment == REMOVED else None)
    yield Row(deleted_by_two, (REMOVING,))


def _of_runs() -> Iterator[Row]:
    for moment in (HIDING, HIDDEN, REMOVING, REMOVED, FORGETTING):
        yield Row(claimed, (moment,), FILES if moment == HIDDEN else None)
    # SQLite lets one write after the other.
    for moment in (HIDDEN, REMOVING, REMOVED):
        yield Row(asked_too_late, (moment,), on=(SERVERS,))
        yield Row(asked_meanwhile, (moment,), on=(SERVERS,))


DELETION_ROWS = tuple(
    replace(row, job="deletion", end="deleted") for row in (*_of_both(), *_of_runs())
)
MERGED_DELETION_ROWS = tuple(
    replace(row, job="deletion of merged", end="deleted") for row in _of_both()
)
