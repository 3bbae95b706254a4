"""The rows of the matrix, each a test. `--faults all` plays every row on every setting."""

import contextlib
import json
import time
from pathlib import Path

import pytest
from disks import can_mount, run_where_mounting_is_allowed
from house import NOTICED_SECONDS
from houses import Houses
from matrix import ROWS, Row
from record import Reference
from scene import Scene

OBEYED_SECONDS = 10
SLACK_SECONDS = 2.5
"""For a machine that is busy with other tests."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    every = metafunc.config.getoption("--faults") == "all"
    chosen = [
        pytest.param(row, setting, id=f"{row.id}-{setting}")
        for row in ROWS
        for setting in row.on
        if every or setting == row.quick
    ]
    # By setting, so that an installation serves many rows before another takes its place.
    metafunc.parametrize(("row", "setting"), sorted(chosen, key=lambda param: param.values[1]))


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
    began = time.monotonic()
    told = {"what": row.play.what, "how": row.play.how, "when": row.moment, "setting": setting}
    told |= {"outcome": "failed", "play": row.play.name, "end": row.end}
    scene = Scene(reference if row.same else None, row.when)
    try:
        with contextlib.ExitStack() as stack:
            if row.play.disk is None:
                scene.house, scene.dataset_id = stack.enter_context(
                    houses.open(setting, row.settings)
                )
            else:
                scene.house, scene.dataset_id, scene.disk = stack.enter_context(
                    houses.open_on_disk(setting, row.play.disk)
                )
            _play(row, scene)
            told["measured"] = scene.measured()
            _check_times(row, scene.measured())
        told["outcome"] = "passed"
    finally:
        told["seconds"] = time.monotonic() - began
        if outcomes is not None:
            name = f"{ROWS.index(row):03}-{setting}.json"
            (outcomes / name).write_text(json.dumps(told))


def _play(row: Row, scene: Scene) -> None:
    scene.arm()
    if not row.play.submits:
        scene.submit()
    row.play.act(scene)
    scene.until_status(row.end)
    scene.house.heal()
    scene.check(row.end)
    assert scene.job.attempts == row.attempts


def _check_times(row: Row, measured: dict[str, float]) -> None:
    if row.lost is not None:
        assert measured["steps lost"] <= row.lost  # and so another attempt went on
    if row.play.name == "worker_killed":
        assert measured.get("noticed", 0) <= NOTICED_SECONDS + SLACK_SECONDS
    assert measured.get("obeyed", 0) <= OBEYED_SECONDS
