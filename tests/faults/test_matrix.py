"""The rows of the matrix, each a test. `--faults all` plays every row on every setting."""

import contextlib
from pathlib import Path

import pytest

from tests.faults.disks import can_mount, run_where_mounting_is_allowed
from tests.faults.houses import Houses
from tests.faults.matrix import ROWS, Row
from tests.faults.playing import chosen, noted, play
from tests.faults.record import Reference
from tests.faults.scene import Scene


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize(("row", "setting"), chosen(metafunc.config, ROWS))


def test_row(
    row: Row,
    setting: str,
    houses: Houses,
    reference: Reference,
    outcomes: Path | None,
    shared: Path,
    request: pytest.FixtureRequest,
) -> None:
    if row.play.disk is not None and not can_mount():
        assert setting == "files", "root alone can give a PostgreSQL installation a small disk"
        options = ["--faults", "all", "--faults-shared", str(shared)]
        options += [] if outcomes is None else ["--faults-outcomes", str(outcomes.resolve())]
        run_where_mounting_is_allowed(request.node.nodeid, *options)
        return
    scene = Scene(reference if row.same else None, row.when)
    with noted(outcomes, row, setting) as told, contextlib.ExitStack() as stack:
        if row.play.disk is None:
            scene.house, scene.dataset_id = stack.enter_context(houses.open(setting, row.settings))
        else:
            scene.house, scene.dataset_id, scene.disk = stack.enter_context(
                houses.open_on_disk(setting, row.play.disk)
            )
        play(row, scene, told)
