"""A loop whose validation answers are given: which checkpoint is the best is known beforehand."""

from pathlib import Path
from typing import Any

from service.fairness import Predictions
from tests.support.train_jobs import make_trainer, spec, token_examples
from worker.training.selection import Selection

ODD = "a/b, c 🙂"
"""A group's name can hold any character."""

GIVEN = {3: (0, 2), 6: (2, 1), 9: (4, 0)}
"""Step -> positives missed, and negatives of ODD called hate; each group has 4 of both.

F1 is 16/18, 12/15, 8/12; the FPR of ODD 0.5, 0.25, 0.
"""
LOSSES = {3: 1.0, 6: 0.9, 9: 0.5}


def answers(step: int, given: dict[int, tuple[int, int]] | None = None) -> Predictions:
    """What the weights of that step say of validation."""
    missed, wrong = (given or GIVEN)[step]
    rows = [(group, label) for group in (ODD, "b") for label in ("hate", "normal") for _ in "1234"]
    called = (
        ["hate"] * 4 + ["hate"] * wrong + ["normal"] * (4 - wrong) + ["hate"] * 4 + ["normal"] * 4
    )
    for row in [place for place, (_, label) in enumerate(rows) if label == "hate"][:missed]:
        called[row] = "normal"
    scores = [0.9 if one == "hate" else 0.2 for one in called]
    return Predictions(
        ids=[str(number) for number in range(len(rows))],
        labels=[label for _, label in rows],
        groups=[group for group, _ in rows],
        sources=[None] * len(rows),
        details=[None] * len(rows),
        predictions=called,
        scores=scores,
        label_scores={"hate": scores, "normal": [1 - score for score in scores]},
        split="validation",
        checkpoint_step=step,
    )


def choosing(
    load: Any,
    directory: Path,
    caps: list[dict[str, Any]],
    min_f1: float | None = None,
    given: dict[int, tuple[int, int]] | None = None,
    **training: Any,
) -> Any:
    """A loop of 9 steps that is evaluated at 3, 6 and 9."""
    run_spec = spec(
        training={"num_train_epochs": 3, "save_total_limit": 1} | training,
        fairness={"select": "best_f1_within_caps", "caps": caps, "min_f1": min_f1},
    )
    selection = Selection(
        run_spec.fairness, fitted=False, score=lambda _model, step, _between: answers(step, given)
    )
    run = make_trainer(
        load, directory, run_spec, token_examples(10), token_examples(3), selection=selection
    )
    run._evaluate = lambda: {"eval_loss": LOSSES[run.state.step]}
    return run
