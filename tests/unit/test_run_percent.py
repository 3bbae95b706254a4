"""The percentage of a run: it never falls, and is 100 for a run that has succeeded alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.progress import run_percent
from service.domain.states import JobStatus, Phase
from worker.runtime.progress import PhaseRows

TOTAL = 40
BEFORE = [Phase.STARTING, Phase.LOADING, Phase.BASELINE]
AFTER = [Phase.EVALUATING, Phase.SAVING, Phase.REPORTING, Phase.DONE]
SHARES = st.lists(st.none() | st.floats(0, 1), max_size=4)


def rising(shares):
    """None (unknown) counts only before the first known share of a phase."""
    known = sorted(share for share in shares if share is not None)
    return [None] * (len(shares) - len(known)) + known


@given(
    st.lists(SHARES, min_size=len(BEFORE + AFTER), max_size=len(BEFORE + AFTER)),
    st.integers(0, TOTAL),
    st.sampled_from([0, 10]),
)
def test_it_rises_from_phase_to_phase(shares, last_step, first_step):
    """Also with early stopping (`last_step`), and when resumed from a checkpoint."""
    by_phase = dict(zip(BEFORE + AFTER, shares, strict=True))
    last_step = max(first_step, last_step)
    states = [(phase, first_step, share) for phase in BEFORE for share in rising(by_phase[phase])]
    states += [(Phase.TRAINING, step, None) for step in range(first_step, last_step + 1)]
    states += [(phase, last_step, share) for phase in AFTER for share in rising(by_phase[phase])]
    percents = [run_percent("running", phase, step, TOTAL, share) for phase, step, share in states]
    assert percents == sorted(percents)
    assert all(0 <= percent < 100 for percent in percents)
    assert run_percent(JobStatus.SUCCEEDED, Phase.DONE, last_step, TOTAL, None) == 100


@pytest.mark.parametrize(
    ("phase", "step", "share", "percent"),
    [
        (Phase.STARTING, 0, None, 0),
        (Phase.LOADING, 0, None, 1),
        (Phase.BASELINE, 0, 0.5, 6.5),
        (Phase.TRAINING, 0, None, 10),
        (Phase.TRAINING, 20, None, 50),
        (Phase.EVALUATING, 40, 0.5, 93.5),
        (Phase.EVALUATING, 8, None, 90),
        (Phase.DONE, 40, None, 99),
        (Phase.LOADING, 20, None, 50),
        ("a phase of a later version", 20, None, 50),
    ],
)
def test_it_is_that_of_the_phase(phase, step, share, percent):
    assert run_percent("running", phase, step, TOTAL, share) == percent


def test_the_share_of_several_splits():
    rows = PhaseRows(10)
    assert rows.share == 0
    rows.count(3)
    assert rows.share == 0.3
    rows.end_split(6)
    rows.count(2)
    assert rows.share == 0.8
    rows.end_split(4)
    assert rows.share == 1
    assert PhaseRows(0).share is None
