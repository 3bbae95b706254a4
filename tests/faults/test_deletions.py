"""What breaks while a run or a merged model is deleted. `--faults all` executes every case."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.case_run import CaseRun, dataset
from tests.faults.deletion import WORKER, Deletion
from tests.faults.deletion_cases import DELETION_CASES, MERGED_DELETION_CASES
from tests.faults.environment import API, Environment
from tests.faults.environments import Environments
from tests.faults.execution import recorded_outcome, selected_cases
from tests.faults.invariants import leftovers
from tests.faults.matrix import FILES, SERVERS, SETTINGS, UNSTORED, Case
from tests.faults.merged_deletion import MergedDeletion


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        merged = metafunc.function is test_case_of_a_merged_model
        cases = selected_cases(metafunc.config, MERGED_DELETION_CASES if merged else DELETION_CASES)
        metafunc.parametrize(("case", "setting"), cases, scope="module")
    elif "kind" in metafunc.fixturenames:
        every = metafunc.config.getoption("--faults") == "all"
        metafunc.parametrize("kind", SETTINGS if every else (FILES,))


@pytest.fixture(scope="module")
def environment(
    setting: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    """An API, and no worker."""
    server: Any = request.getfixturevalue("postgres") if setting == SERVERS else None
    folder = tmp_path_factory.mktemp("deletions")
    environment = Environment(setting, folder, folder / "models", server, (WORKER,))
    try:
        environment.start_part(API)
        yield environment.ready()
    finally:
        environment.close()


@pytest.fixture(scope="module")
def dataset_id(environment: Environment) -> str:
    return environment.upload(dataset())


def test_case(
    case: Case, setting: str, environment: Environment, dataset_id: str, outcomes: Path | None
) -> None:
    (moment,) = case.when
    _execute(case, setting, Deletion(environment, dataset_id, moment.point), outcomes)


def test_case_of_a_merged_model(
    case: Case, setting: str, environment: Environment, dataset_id: str, outcomes: Path | None
) -> None:
    (moment,) = case.when
    _execute(case, setting, MergedDeletion(environment, dataset_id, moment.point), outcomes)


def _execute(case: Case, setting: str, case_run: Deletion, outcomes: Path | None) -> None:
    with recorded_outcome(outcomes, case, setting):
        try:
            case_run.prepare()
            case.scenario.act(case_run)
            case_run.check()
        finally:
            case_run.environment.gates.clear()


@pytest.mark.extended
def test_a_worker_that_wakes_when_its_run_is_deleted_leaves_nothing(
    kind: str, environments: Environments
) -> None:
    """It was about to put a file into the store, and does so now."""
    case_run = CaseRun(None, (UNSTORED,))
    with environments.open(kind) as (case_run.environment, case_run.dataset_id):
        case_run.arm()
        case_run.submit()
        gate = case_run.reach()
        case_run.mark_broken()
        with case_run.environment.frozen(case_run.worker()):
            case_run.until_taken_over()
            case_run.ask("cancel")
            case_run.until_status("cancelled")
            answer = case_run.environment.client.delete(f"/v1/runs/{case_run.run_id}")
            assert answer.status_code == 204, answer.text
            gate.open()
        case_run.environment.heal()
        assert leftovers(case_run.environment) == []
