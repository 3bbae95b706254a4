"""A run in two processes under the real service: what breaks one breaks the attempt alone."""

import psutil
import pytest

from tests.faults.case_run import BODY, CaseRun
from tests.faults.environments import Environments
from tests.faults.matrix import STEP

pytestmark = pytest.mark.extended


def _second_process(case_run: CaseRun) -> psutil.Process:
    (second,) = [
        child for child in case_run.program().children() if "--rank=1" in " ".join(child.cmdline())
    ]
    return second


def test_killed_in_mid_step_it_costs_the_steps_since_the_last_checkpoint(
    environments: Environments,
) -> None:
    case_run = CaseRun(moments=(STEP,))
    # Of 20 cases a step takes 8, 8 and 4: two micro-batches at least for each of the processes.
    rows = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "packing": "none"}
    body = BODY | {"training": BODY["training"] | rows, "resources": {"num_processes": 2}}
    with environments.open("files") as (case_run.environment, case_run.dataset_id):
        case_run.arm()
        case_run.follow(case_run.environment.submit(dataset_id=case_run.dataset_id, **body))
        gate = case_run.reach()
        case_run.mark_broken()
        first, second = case_run.program(), _second_process(case_run)
        second.kill()
        case_run.until_taken_over()
        assert not first.is_running()
        gate.open()
        case_run.until_status("succeeded")
        case_run.environment.heal()
        case_run.check("succeeded")
        assert case_run.job.attempts == 2
        assert case_run.measured()["steps lost"] <= 2
