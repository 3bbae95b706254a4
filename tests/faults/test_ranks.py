"""A run in two processes under the real service: what breaks one breaks the attempt alone."""

import psutil

from tests.faults.houses import Houses
from tests.faults.matrix import STEP
from tests.faults.scene import BODY, Scene


def _second_process(scene: Scene) -> psutil.Process:
    (second,) = [
        child for child in scene.program().children() if "--rank=1" in " ".join(child.cmdline())
    ]
    return second


def test_killed_in_mid_step_it_costs_the_steps_since_the_last_checkpoint(houses: Houses) -> None:
    scene = Scene(moments=(STEP,))
    # Of 20 rows a step takes 8, 8 and 4: two micro-batches at least for each of the processes.
    rows = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "packing": "none"}
    body = BODY | {"training": BODY["training"] | rows, "resources": {"num_processes": 2}}
    with houses.open("files") as (scene.house, scene.dataset_id):
        scene.arm()
        scene.follow(scene.house.submit(dataset_id=scene.dataset_id, **body))
        gate = scene.reach()
        scene.breaks()
        first, second = scene.program(), _second_process(scene)
        second.kill()
        scene.until_taken_over()
        assert not first.is_running()
        gate.open()
        scene.until_status("succeeded")
        scene.house.heal()
        scene.check("succeeded")
        assert scene.job.attempts == 2
        assert scene.measured()["steps lost"] <= 2
