"""What breaks while a merge is under way, each row a test. `--faults all` plays every row."""

from pathlib import Path

import pytest

from tests.faults.houses import Houses
from tests.faults.matrix import Row
from tests.faults.merge_rows import MERGE_ROWS
from tests.faults.merging import Merged, MergeScene
from tests.faults.playing import chosen, noted, play
from tests.faults.record import Reference


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize(("row", "setting"), chosen(metafunc.config, MERGE_ROWS))


def test_row(
    row: Row,
    setting: str,
    houses: Houses,
    reference: Reference,
    merged: Merged,
    outcomes: Path | None,
) -> None:
    scene = MergeScene(reference, row.when, merged=merged)
    with (
        noted(outcomes, row, setting) as told,
        houses.open(setting, row.settings) as (scene.house, scene.dataset_id),
    ):
        play(row, scene, told)
