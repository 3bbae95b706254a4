"""Tracking of the best weights, and early stopping."""

from service.domain.training_spec import TrainingSection
from service.fairness.selection import CheckpointScore, is_better
from worker.training.checkpoints import LoopState


def update_best(
    state: LoopState,
    loss: float,
    training: TrainingSection,
    standing: CheckpointScore | None = None,
) -> bool:
    """Record a validation loss; return True if these weights are the best so far.

    Early stopping follows transformers' EarlyStoppingCallback: patience counts evaluations that
    do not improve the best loss by more than the threshold. Any improvement, however small, is the
    new best.

    If a `standing` is passed, it determines the best weights, and the loss only affects stopping.
    """
    lowest = state.best_metric
    if lowest is None or lowest - loss > training.early_stopping_threshold:
        state.stale = 0
    else:
        state.stale += 1
    patience = training.early_stopping_patience
    state.stopped_early = 0 < patience <= state.stale
    lower = lowest is None or loss < lowest
    if lower:
        state.best_metric = loss
    best = lower if standing is None else is_better(standing, state.best_standing)
    if best:
        state.best_step, state.best_standing = state.step, standing
    return best
