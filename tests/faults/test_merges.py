"""What breaks while a merge is under way, each case a test. `--faults all` executes every case."""

from pathlib import Path

import pytest

from tests.faults.environments import Environments
from tests.faults.execution import execute, recorded_outcome, selected_cases
from tests.faults.matrix import Case
from tests.faults.merge_case_run import MergeCaseRun, Merged
from tests.faults.merge_cases import MERGE_CASES
from tests.faults.record import Reference


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize(("case", "setting"), selected_cases(metafunc.config, MERGE_CASES))


def test_case(
    case: Case,
    setting: str,
    environments: Environments,
    reference: Reference,
    merged: Merged,
    outcomes: Path | None,
) -> None:
    case_run = MergeCaseRun(reference, case.when, merged=merged)
    with (
        recorded_outcome(outcomes, case, setting) as outcome,
        environments.open(setting, case.settings) as (case_run.environment, case_run.dataset_id),
    ):
        execute(case, case_run, outcome)
