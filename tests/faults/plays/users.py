"""What users ask for."""

from service.domain.states import JobStatus
from tests.faults.gates import Gate
from tests.faults.plays.play import held_by_program, play
from tests.faults.scene import Scene


@play("user", "retries a run that ran out of memory")
def retried(scene: Scene) -> None:
    gate = scene.reach()
    scene.house.gates.limit_memory(train=0)
    gate.open()
    scene.until_status(JobStatus.FAILED)
    scene.house.gates.clear()
    scene.ask("retry")


@play("user", "cancels")
def cancelled(scene: Scene) -> None:
    gate = scene.reach()
    scene.ask("cancel")
    _until_program_is_told(scene, gate)
    gate.open()


@play("user", "pauses; later the run goes on, on another worker")
def paused(scene: Scene) -> None:
    gate = scene.reach()
    worker = scene.worker()
    scene.ask("pause")
    _until_program_is_told(scene, gate)
    gate.open()
    scene.until_status(JobStatus.PAUSED)
    scene.check(JobStatus.PAUSED)
    with scene.house.frozen(worker):
        scene.ask("resume")
        scene.until(lambda job: job.status == JobStatus.RUNNING and scene.worker() != worker)


@play("user", "cancels when the result is being written")
def cancelled_too_late(scene: Scene) -> None:
    gate = scene.reach()
    scene.ask("cancel")
    gate.open()


@play("user", "pauses when the result is being written")
def paused_too_late(scene: Scene) -> None:
    gate = scene.reach()
    scene.ask("pause")
    gate.open()


def _until_program_is_told(scene: Scene, gate: Gate) -> None:
    if held_by_program(scene, gate):
        scene.house.gates.seen("program_told")
