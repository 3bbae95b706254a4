"""What breaks while a run is deleted, each row a test. `--faults all` plays every row."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deleting import WORKER, Deletion
from deletion_rows import DELETION_ROWS
from house import API, House
from matrix import SERVERS, Row
from playing import chosen, noted
from scene import dataset


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    rows = chosen(metafunc.config, DELETION_ROWS)
    metafunc.parametrize(("row", "setting"), rows, scope="module")


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
    scene = Deletion(house, dataset_id, moment.point)
    with noted(outcomes, row, setting):
        try:
            scene.prepare()
            row.play.act(scene)
            scene.check()
        finally:
            house.gates.clear()
