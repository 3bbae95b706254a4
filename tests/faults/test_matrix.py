"""The cases of the matrix, each a test. `--faults all` executes every case on every setting."""

import contextlib
from pathlib import Path

import pytest

from tests.faults.case_run import CaseRun
from tests.faults.disks import can_mount, run_where_mounting_is_allowed
from tests.faults.environments import Environments
from tests.faults.execution import execute, recorded_outcome, selected_cases
from tests.faults.matrix import CASES, Case
from tests.faults.record import Reference


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize(("case", "setting"), selected_cases(metafunc.config, CASES))


def test_case(
    case: Case,
    setting: str,
    environments: Environments,
    reference: Reference,
    outcomes: Path | None,
    shared: Path,
    request: pytest.FixtureRequest,
) -> None:
    if case.scenario.disk is not None and not can_mount():
        assert setting == "files", "root alone can give a PostgreSQL installation a small disk"
        options = ["--faults", "all", "--faults-shared", str(shared)]
        options += [] if outcomes is None else ["--faults-outcomes", str(outcomes.resolve())]
        run_where_mounting_is_allowed(request.node.nodeid, *options)
        return
    case_run = CaseRun(reference if case.same else None, case.when)
    with recorded_outcome(outcomes, case, setting) as outcome, contextlib.ExitStack() as stack:
        if case.scenario.disk is None:
            case_run.environment, case_run.dataset_id = stack.enter_context(
                environments.open(setting, case.settings)
            )
        else:
            case_run.environment, case_run.dataset_id, case_run.disk = stack.enter_context(
                environments.open_on_disk(setting, case.scenario.disk)
            )
        execute(case, case_run, outcome)
