"""Messages that are lost, doubled or late, and workers that race."""

import contextlib
import threading

import httpx

from tests.faults.house import API, WORKERS
from tests.faults.plays.play import play
from tests.faults.scene import Scene


@play("message", "never sent: the API is killed between commit and sending", submits=True)
def message_never_sent(scene: Scene) -> None:
    gate = scene.house.gates.arm("before_notify")
    poster = threading.Thread(target=_post_in_vain, args=[scene])
    poster.start()
    gate.reached()
    scene.house.kill(API)
    poster.join()
    gate.open()
    scene.follow(scene.house.newest_run())
    scene.house.start_part(API)
    scene.house.ready()


def _post_in_vain(scene: Scene) -> None:
    with contextlib.suppress(httpx.TransportError):
        scene.submit()


@play("message", "lost: the broker is emptied while jobs wait", submits=True)
def broker_flushed(scene: Scene) -> None:
    scene.house.kill(*WORKERS)  # alive they would have taken it
    scene.submit()
    scene.house.outages.flush_broker()
    for worker in WORKERS:
        scene.house.start_part(worker)


@play("message", "cannot be sent: the broker is away when the run is submitted", submits=True)
def broker_away(scene: Scene) -> None:
    scene.house.outages.cut_broker()
    scene.submit()
    scene.outlast_lease()
    scene.house.outages.restore()


def _deliver(scene: Scene, times: int) -> None:
    gate = scene.reach()
    for _ in range(times - 1):
        scene.house.send_message()
    scene.until(lambda job: job.token == 1)  # by the other worker
    gate.open()


@play("message", "delivered twice")
def message_twice(scene: Scene) -> None:
    _deliver(scene, 2)


@play("message", "delivered thirty times")
def message_often(scene: Scene) -> None:
    _deliver(scene, 30)


@play("two workers", "race for one job", submits=True)
def race(scene: Scene) -> None:
    gates = [scene.house.gates.arm("before_claim") for _ in WORKERS]
    scene.submit()
    scene.house.hold_each(gates)
    for gate in gates:
        gate.open()


@play("two workers", "their clocks a minute apart; the one that is ahead is killed", submits=True)
def clock_skew(scene: Scene) -> None:
    ahead, behind = WORKERS
    scene.house.kill(ahead)
    scene.house.start_part(ahead, SKEW_SECONDS="60")
    with scene.house.frozen(behind):
        scene.submit()
        gate = scene.reach()
    scene.breaks()
    scene.house.kill(ahead)
    gate.open()
