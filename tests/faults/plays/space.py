"""Checkpoints that are not what was written, full disks, and too little memory."""

import os
from collections.abc import Callable
from pathlib import Path

from service.domain.states import JobStatus
from tests.faults.plays.play import play
from tests.faults.record import record_of
from tests.faults.scene import Scene
from tests.support.installation import wait_until


@play("newest checkpoint", "cut short in the store")
def checkpoint_truncated(scene: Scene) -> None:
    _damage(scene, lambda path: os.truncate(path, path.stat().st_size // 2))


@play("newest checkpoint", "one bit changed in the store")
def checkpoint_tampered(scene: Scene) -> None:
    def tamper(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    _damage(scene, tamper)


@play("newest checkpoint", "a file deleted from the store")
def checkpoint_deleted(scene: Scene) -> None:
    _damage(scene, Path.unlink)


def _damage(scene: Scene, damage: Callable[[Path], None]) -> None:
    gate = scene.reach()
    newest = wait_until(lambda: scene.newest_checkpoint(at_least=4))
    damage(scene.house.store.root / newest / "optimizer.safetensors")
    scene.breaks()
    scene.program().kill()
    gate.open()
    scene.until_status(JobStatus.SUCCEEDED)
    passed_over = [
        event
        for event in record_of(scene.house, scene.run_id).events
        if event.type == "warning" and "checkpoint" in event.data["detail"]
    ]
    assert passed_over, "no event says that the checkpoint was passed over"


@play("disk", "of the artifact store is full for longer than a lease", disk="artifacts")
def store_full(scene: Scene) -> None:
    _fill(scene)


@play("disk", "of the job directories is full for longer than a lease", disk="jobs")
def jobs_full(scene: Scene) -> None:
    _fill(scene)


@play("disk", "of everything, SQLite too, is full for longer than a lease", disk=".")
def everything_full(scene: Scene) -> None:
    _fill(scene)


def _fill(scene: Scene) -> None:
    gate = scene.reach()
    assert scene.disk is not None
    scene.disk.fill()
    gate.open()
    scene.outlast_lease()
    scene.disk.free()


@play("memory", "suffices for half a micro-batch", submits=True)
def memory_short(scene: Scene) -> None:
    scene.house.gates.limit_memory(train=1)
    scene.submit()


@play("memory", "suffices for half an evaluation batch", submits=True)
def memory_short_for_evaluation(scene: Scene) -> None:
    scene.house.gates.limit_memory(eval=2)
    scene.submit()


@play("memory", "does not suffice for one row", submits=True)
def memory_none(scene: Scene) -> None:
    scene.house.gates.limit_memory(train=0)
    scene.submit()
