"""How a row is played, and where what came of it is noted."""

import contextlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.faults.house import NOTICED_SECONDS
from tests.faults.matrix import SETTINGS, Row
from tests.faults.scene import Scene

OBEYED_SECONDS = 10
SLACK_SECONDS = 2.5
"""For a machine that is busy with other tests."""


def chosen(config: pytest.Config, rows: tuple[Row, ...]) -> list[Any]:
    """Every row on every setting with `--faults all`, and else the quick ones."""
    every = config.getoption("--faults") == "all"
    params = [
        pytest.param(row, setting, id=f"{row.id}-{setting}")
        for row in rows
        for setting in row.on
        if every or setting == row.quick
    ]
    # By setting, so that an installation serves many rows before another takes its place.
    return sorted(params, key=lambda param: SETTINGS.index(param.values[1]))


@contextlib.contextmanager
def noted(outcomes: Path | None, row: Row, setting: str) -> Iterator[dict[str, Any]]:
    """Note what came of a row, also where it raises."""
    began = time.monotonic()
    told = {"what": row.play.what, "how": row.play.how, "when": row.moment, "setting": setting}
    told |= {"outcome": "failed", "play": row.play.name, "end": row.end}
    told |= {"job": row.job, "row": row.id, "day": f"{datetime.now(UTC):%Y-%m-%d}"}
    try:
        yield told
        told["outcome"] = "passed"
    finally:
        told["seconds"] = time.monotonic() - began
        if outcomes is not None:
            (outcomes / f"{row.job}-{row.id}-{setting}.json").write_text(json.dumps(told))


def play(row: Row, scene: Scene, told: dict[str, Any]) -> None:
    scene.prepare()
    scene.arm()
    if not row.play.submits:
        scene.submit()
    row.play.act(scene)
    scene.until_status(row.end)
    scene.house.heal()
    scene.check(row.end)
    assert scene.job.attempts == row.attempts, scene.house.log_tail(scene.job_id)
    told["measured"] = scene.measured()
    _check_times(row, scene.measured())


def _check_times(row: Row, measured: dict[str, float]) -> None:
    if row.lost is not None:
        assert measured["steps lost"] <= row.lost  # and so another attempt went on
    if row.play.name == "worker_killed":
        assert measured.get("noticed", 0) <= NOTICED_SECONDS + SLACK_SECONDS
    assert measured.get("obeyed", 0) <= OBEYED_SECONDS
