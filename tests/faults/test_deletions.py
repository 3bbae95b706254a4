"""What breaks while a run or a merged model is deleted. `--faults all` plays every row."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.deleting import WORKER, Deletion
from tests.faults.deleting_merged import MergedDeletion
from tests.faults.deletion_rows import DELETION_ROWS, MERGED_DELETION_ROWS
from tests.faults.house import API, House
from tests.faults.houses import Houses
from tests.faults.invariants import leftovers
from tests.faults.matrix import FILES, SERVERS, SETTINGS, UNSTORED, Row
from tests.faults.playing import chosen, noted
from tests.faults.scene import Scene, dataset


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "row" in metafunc.fixturenames:
        merged = metafunc.function is test_row_of_a_merged_model
        rows = chosen(metafunc.config, MERGED_DELETION_ROWS if merged else DELETION_ROWS)
        metafunc.parametrize(("row", "setting"), rows, scope="module")
    elif "kind" in metafunc.fixturenames:
        every = metafunc.config.getoption("--faults") == "all"
        metafunc.parametrize("kind", SETTINGS if every else (FILES,))


@pytest.fixture(scope="module")
def house(
    setting: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """An API, and no worker."""
    server: Any = request.getfixturevalue("postgres") if setting == SERVERS else None
    folder = tmp_path_factory.mktemp("deletions")
    house = House(setting, folder, folder / "models", server, (WORKER,))
    try:
        house.start_part(API)
        yield house.ready()
    finally:
        house.demolish()


@pytest.fixture(scope="module")
def dataset_id(house: House) -> str:
    return house.upload(dataset())


def test_row(row: Row, setting: str, house: House, dataset_id: str, outcomes: Path | None) -> None:
    (moment,) = row.when
    _play(row, setting, Deletion(house, dataset_id, moment.point), outcomes)


def test_row_of_a_merged_model(
    row: Row, setting: str, house: House, dataset_id: str, outcomes: Path | None
) -> None:
    (moment,) = row.when
    _play(row, setting, MergedDeletion(house, dataset_id, moment.point), outcomes)


def _play(row: Row, setting: str, scene: Deletion, outcomes: Path | None) -> None:
    with noted(outcomes, row, setting):
        try:
            scene.prepare()
            row.play.act(scene)
            scene.check()
        finally:
            scene.house.gates.clear()


def test_a_worker_that_wakes_when_its_run_is_deleted_leaves_nothing(
    kind: str, houses: Houses
) -> None:
    """It was about to put a file into the store, and does so now."""
    scene = Scene(None, (UNSTORED,))
    with houses.open(kind) as (scene.house, scene.dataset_id):
        scene.arm()
        scene.submit()
        gate = scene.reach()
        scene.breaks()
        with scene.house.frozen(scene.worker()):
            scene.until_taken_over()
            scene.ask("cancel")
            scene.until_status("cancelled")
            answer = scene.house.client.delete(f"/v1/runs/{scene.run_id}")
            assert answer.status_code == 204, answer.text
            gate.open()
        scene.house.heal()
        assert leftovers(scene.house) == []
