"""Progress of a run over all of its phases, as one percentage."""

from service.domain.states import JobStatus, Phase

_BANDS: dict[str, tuple[float, float]] = {
    Phase.STARTING: (0, 1),
    Phase.LOADING: (1, 3),
    Phase.BASELINE: (3, 10),
    Phase.TRAINING: (10, 90),
    Phase.EVALUATING: (90, 97),
    Phase.SAVING: (97, 98),
    Phase.REPORTING: (98, 99),
    Phase.DONE: (99, 99),
}
"""Percentages at the start and the end of each phase of a train job. The shares are fixed, since
nothing tells in advance how long a phase takes; `eta_seconds` estimates the time."""


def run_percent(
    status: str, phase: str, step: int, total_steps: int, phase_share: float | None
) -> float:
    """Return the percentage of a run: from 0 when queued to 100 once it has succeeded.

    It never falls from one phase to the next. `phase_share` is the completed share of the phase,
    from 0 to 1, or None; that of the training is its completed steps. A run that is started again
    from a checkpoint keeps the percentage of its steps while it loads.
    """
    if status == JobStatus.SUCCEEDED:
        return 100.0
    training = _within(Phase.TRAINING, step / total_steps) if step and total_steps else 0.0
    if phase == Phase.TRAINING:
        return round(max(training, _BANDS[Phase.TRAINING][0]), 1)
    percent = _within(phase, phase_share or 0.0) if phase in _BANDS else 0.0
    return round(max(percent, training), 1)


def _within(phase: str, share: float) -> float:
    start, end = _BANDS[phase]
    return start + (end - start) * min(max(share, 0.0), 1.0)
