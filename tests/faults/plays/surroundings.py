"""What everything stands on comes and goes: the API, the broker, the database, the machine."""

import contextlib
from collections.abc import Callable

import psutil

from tests.faults.house import API, WORKERS
from tests.faults.plays.play import play
from tests.faults.scene import Scene


@play("API", "SIGKILL, and started again")
def api_killed(scene: Scene) -> None:
    for gate in scene.reach_each():
        scene.house.kill(API)
        gate.open()
        scene.house.start_part(API)
        scene.house.ready()


@play("API", "SIGSTOP for longer than a lease")
def api_frozen(scene: Scene) -> None:
    for gate in scene.reach_each():
        with scene.house.frozen(API):
            gate.open()
            scene.outlast_lease()


@play("machine", "SIGSTOP of every process for longer than a lease")
def machine_suspended(scene: Scene) -> None:
    gate = scene.reach()
    scene.breaks()
    owner = scene.worker()
    # The owner last: who is frozen later would find its lease run out, were that to take long.
    parts = (API, *(worker for worker in WORKERS if worker != owner), owner)
    everything = [*(scene.house.process(part) for part in parts), *scene.house.children()]
    for part in parts:
        scene.house.freeze(part)
    for process in everything:
        process.suspend()
    scene.outlast_lease()
    gate.open()
    for process in everything:
        process.resume()


@play("machine", "SIGKILL of every process and the broker, and all started again")
def machine_lost(scene: Scene) -> None:
    gate = scene.reach()
    scene.breaks()
    scene.house.kill(API, *WORKERS)
    for child in scene.house.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    scene.house.outages.kill_broker()
    gate.open()
    scene.house.heal()


@play("broker", "killed, and started again empty")
def broker_killed(scene: Scene) -> None:
    for gate in scene.reach_each():
        scene.house.outages.kill_broker()
        gate.open()
        scene.house.outages.restore()


@play("broker", "cannot be reached for longer than a lease")
def broker_cut(scene: Scene) -> None:
    for gate in scene.reach_each():
        scene.house.outages.cut_broker()
        gate.open()
        scene.outlast_lease()
        scene.house.outages.restore()


@play("database", "cannot be reached (SQLite: is locked) for longer than a lease")
def database_cut(scene: Scene) -> None:
    for gate in scene.reach_each():
        scene.house.outages.cut_database()
        gate.open()
        scene.outlast_lease()
        scene.house.outages.restore()


@play("database", "does not answer for longer than a lease")
def database_stalled(scene: Scene) -> None:
    for gate in scene.reach_each():
        scene.house.outages.stall_database()
        gate.open()
        scene.outlast_lease()
        scene.house.outages.restore()


@play("bucket", "cannot be reached for longer than a lease")
def bucket_cut(scene: Scene) -> None:
    _take_bucket(scene, scene.house.outages.cut_store)


@play("bucket", "does not answer for longer than a lease")
def bucket_stalled(scene: Scene) -> None:
    _take_bucket(scene, scene.house.outages.stall_store)


@play("bucket", "takes and gives 8,000 bytes a second for longer than a lease")
def bucket_slow(scene: Scene) -> None:
    _take_bucket(scene, scene.house.outages.slow_store)


def _take_bucket(scene: Scene, take: Callable[[], None]) -> None:
    for gate in scene.reach_each():
        take()
        gate.open()
        scene.outlast_lease()
        scene.house.outages.restore()


@play("database", "a commit succeeds, but its answer is lost")
def answer_lost(scene: Scene) -> None:
    scene.reach().open()
