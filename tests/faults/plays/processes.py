"""The program, and the worker, which is supervisor and Celery's process in one."""

from tests.faults.plays.play import held_by_program, play
from tests.faults.scene import Scene


@play("program", "SIGKILL")
def program_killed(scene: Scene) -> None:
    gate = scene.reach()
    scene.breaks()
    scene.program().kill()
    gate.open()


@play("program", "SIGSTOP for longer than its limit")
def program_frozen(scene: Scene) -> None:
    scene.reach()
    scene.breaks()
    scene.program().suspend()
    scene.until_taken_over()


@play("program", "hangs, but hears signals")
def program_hangs(scene: Scene) -> None:
    scene.reach()
    scene.breaks()
    scene.until_taken_over()


@play("worker", "SIGKILL")
def worker_killed(scene: Scene) -> None:
    gate = scene.reach()
    scene.breaks()
    scene.house.kill(scene.worker())
    gate.open()


@play("worker", "SIGSTOP past its lease, SIGCONT when another has the job")
def worker_zombie(scene: Scene) -> None:
    gate = scene.reach()
    scene.breaks()
    with scene.house.frozen(scene.worker(), anywhere=gate.holds("mid_transaction")):
        scene.until_taken_over()
        gate.open()


@play("worker", "SIGTERM")
def worker_told(scene: Scene) -> None:
    gate = scene.reach()
    _tell(scene)
    gate.open()


@play("worker", "SIGTERM, and again before its program has stopped")
def worker_told_twice(scene: Scene) -> None:
    gate = scene.reach()
    worker = _tell(scene)
    scene.house.tell(worker)
    if held_by_program(scene, gate):
        # Its program cannot stop by itself: it stands at the gate.
        scene.until(lambda _: scene.house.has_ended(worker))
    gate.open()


def _tell(scene: Scene) -> str:
    """TERM to the worker; returns once it, and a program at the gate, know."""
    scene.breaks()
    worker = scene.worker()
    scene.house.tell(worker)
    scene.house.gates.seen("worker_told")
    if held_by_program(scene, scene.gates[0]):
        scene.house.gates.seen("program_told")
    return worker


@play("worker", "its database connection stalls past the lease, the others' does not")
def worker_cut_off(scene: Scene) -> None:
    gate = scene.reach()
    scene.breaks()
    scene.house.outages.stall_database(scene.worker())
    scene.until_taken_over()
    gate.open()
    scene.house.outages.restore()
