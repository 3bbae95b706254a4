"""Scoring of the base model: once per run, however often its program starts."""

import time
from dataclasses import dataclass, field
from typing import Any

from service.domain.events import Progress
from service.domain.states import Phase
from service.domain.steps import StepPlan
from service.fairness import Predictions
from worker.data.tokenize import Prompts, Tokens
from worker.programs.run_data import RunData
from worker.runtime.gpu import peak_gpu_memory
from worker.runtime.progress import PhaseRows
from worker.scoring.evaluate import Scorer

ROWS_PER_SECOND = 20.0
"""Assumed speed of scoring until a split has been scored."""


@dataclass(slots=True)
class BaseScores:
    """The base model's predictions by split; none for a split without labels."""

    predictions: dict[str, Predictions] = field(default_factory=dict)
    expected_seconds: float = 0.0
    """Estimate for scoring all splits of the tuned model."""


def score_base(
    scorer: Scorer, model: Any, tokens: Tokens, data: RunData, examples: int
) -> BaseScores:
    """Score the evaluated splits with the base model, if the specification requests a baseline.

    `examples` is the number of training examples, for the progress events.
    """
    job, reporter, world = scorer.job, scorer.reporter, scorer.world
    total_steps = StepPlan.of(job.spec.training, examples, world.size).total_steps
    scores = BaseScores()
    splits = data.splits if job.spec.evaluation.baseline else []
    if splits:
        reporter.phase(Phase.BASELINE)
    prompts = Prompts(tokens, job.baseline_template or job.template, job.completions)

    phase = PhaseRows(sum(len(data.rows[split]) for split in splits))

    def heartbeat(_left: float) -> None:
        reporter.emit(
            Progress,
            step=0,
            total_steps=total_steps,
            epoch=0,
            gpu_memory_bytes=peak_gpu_memory(),
            phase_share=phase.share,
        )

    for split in data.tuned_splits:
        rows = data.rows[split]
        if split not in splits:
            scores.expected_seconds += len(rows) / ROWS_PER_SECOND
            continue
        started = time.monotonic()
        is_stored, predictions = False, None
        if world.is_rank_zero:
            is_stored, predictions = scorer.stored_base_predictions(rows)
        if world.broadcast_flag(is_stored):
            scores.expected_seconds += len(rows) / ROWS_PER_SECOND
        else:
            predictions = scorer.evaluate(
                model, rows, prompts, "base", None, heartbeat, phase.count
            )
            scores.expected_seconds += time.monotonic() - started
        phase.end_split(len(rows))
        if predictions is not None:
            scores.predictions[split] = predictions
    return scores
