"""Checkpoints that are not what was written, full disks, and too little memory."""

import os
from collections.abc import Callable
from pathlib import Path

from service.domain.states import JobStatus
from tests.faults.case_run import CaseRun
from tests.faults.record import record_of
from tests.faults.scenarios.scenario import scenario
from tests.support.installation import wait_until


@scenario("newest checkpoint", "cut short in the store")
def checkpoint_truncated(case_run: CaseRun) -> None:
    _damage(case_run, lambda path: os.truncate(path, path.stat().st_size // 2))


@scenario("newest checkpoint", "one bit changed in the store")
def checkpoint_tampered(case_run: CaseRun) -> None:
    def tamper(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    _damage(case_run, tamper)


@scenario("newest checkpoint", "a file deleted from the store")
def checkpoint_deleted(case_run: CaseRun) -> None:
    _damage(case_run, Path.unlink)


def _damage(case_run: CaseRun, damage: Callable[[Path], None]) -> None:
    gate = case_run.reach()
    newest = wait_until(lambda: case_run.newest_checkpoint(at_least=4))
    damage(case_run.environment.store.root / newest / "optimizer.safetensors")
    case_run.mark_broken()
    case_run.program().kill()
    gate.open()
    case_run.until_status(JobStatus.SUCCEEDED)
    passed_over = [
        event
        for event in record_of(case_run.environment, case_run.run_id).events
        if event.type == "warning" and "checkpoint" in event.data["detail"]
    ]
    assert passed_over, "no event says that the checkpoint was passed over"


@scenario("disk", "of the artifact store is full for longer than a lease", disk="artifacts")
def store_full(case_run: CaseRun) -> None:
    _fill(case_run)


@scenario("disk", "of the job directories is full for longer than a lease", disk="jobs")
def jobs_full(case_run: CaseRun) -> None:
    _fill(case_run)


@scenario("disk", "of everything, SQLite too, is full for longer than a lease", disk=".")
def everything_full(case_run: CaseRun) -> None:
    _fill(case_run)


def _fill(case_run: CaseRun) -> None:
    gate = case_run.reach()
    assert case_run.disk is not None
    case_run.disk.fill()
    gate.open()
    case_run.outlast_lease()
    case_run.disk.free()


@scenario("memory", "suffices for half a micro-batch", submits=True)
def memory_short(case_run: CaseRun) -> None:
    case_run.environment.gates.limit_memory(train=1)
    case_run.submit()


@scenario("memory", "suffices for half an evaluation batch", submits=True)
def memory_short_for_evaluation(case_run: CaseRun) -> None:
    case_run.environment.gates.limit_memory(eval=2)
    case_run.submit()


@scenario("memory", "does not suffice for one row", submits=True)
def memory_none(case_run: CaseRun) -> None:
    case_run.environment.gates.limit_memory(train=0)
    case_run.submit()
