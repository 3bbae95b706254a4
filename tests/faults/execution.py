"""Execute a case and record its outcome."""

import contextlib
import json
import time
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.faults.case_run import CaseRun
from tests.faults.environment import NOTICED_SECONDS
from tests.faults.matrix import ESSENTIAL, SETTINGS, Case

OBEYED_SECONDS = 10
SLACK_SECONDS = 2.5
"""For a machine that is busy with other tests."""


def _marks(name: str) -> Collection[pytest.MarkDecorator]:
    return () if name in ESSENTIAL else (pytest.mark.extended,)


def selected_cases(config: pytest.Config, cases: tuple[Case, ...]) -> list[Any]:
    """Return every case on every setting with `--faults all`, else the quick ones.

    Of those `make test` executes the essential ones, `make test-all` the rest too.
    """
    every = config.getoption("--faults") == "all"
    params = [
        pytest.param(case, setting, id=(name := f"{case.id}-{setting}"), marks=_marks(name))
        for case in cases
        for setting in case.on
        if every or setting == case.quick
    ]
    # By setting, so that an installation serves many cases before another takes its place.
    return sorted(params, key=lambda param: SETTINGS.index(param.values[1]))


@contextlib.contextmanager
def recorded_outcome(outcomes: Path | None, case: Case, setting: str) -> Iterator[dict[str, Any]]:
    """Record the outcome of a case, of one that raises too."""
    began = time.monotonic()
    outcome = {
        "what": case.scenario.what,
        "how": case.scenario.how,
        "when": case.moment,
        "setting": setting,
    }
    outcome |= {"outcome": "failed", "scenario": case.scenario.name, "end": case.end}
    outcome |= {"job": case.job, "case": case.id, "day": f"{datetime.now(UTC):%Y-%m-%d}"}
    try:
        yield outcome
        outcome["outcome"] = "passed"
    finally:
        outcome["seconds"] = time.monotonic() - began
        if outcomes is not None:
            (outcomes / f"{case.job}-{case.id}-{setting}.json").write_text(json.dumps(outcome))


def execute(case: Case, case_run: CaseRun, outcome: dict[str, Any]) -> None:
    case_run.prepare()
    case_run.arm()
    if not case.scenario.submits:
        case_run.submit()
    case.scenario.act(case_run)
    case_run.until_status(case.end)
    case_run.environment.heal()
    case_run.check(case.end)
    assert case_run.job.attempts == case.attempts, case_run.environment.log_tail(case_run.job_id)
    outcome["measured"] = case_run.measured()
    _check_times(case, case_run.measured())


def _check_times(case: Case, measured: dict[str, float]) -> None:
    if case.lost is not None:
        assert measured["steps lost"] <= case.lost  # and so another attempt went on
    if case.scenario.name == "worker_killed":
        assert measured.get("noticed", 0) <= NOTICED_SECONDS + SLACK_SECONDS
    assert measured.get("obeyed", 0) <= OBEYED_SECONDS
