"""Scoring a split with the model in hand, and the bias report made from that."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from service.domain.events import EvaluationEvent
from service.domain.job import Job
from service.fairness import BiasReport, Predictions, ReportMeta, build_report, label_counts
from worker.programs.memory import rows_at_once
from worker.programs.reporter import Reporter, Stop, file_entry
from worker.programs.space import Space
from worker.scoring.labels import Item, score
from worker.scoring.predictions import labelled, read_probabilities, write_predictions
from worker.training.examples import Prompts
from worker.training.models import set_training
from worker.training.rows import Row
from worker.training.world import World

log = logging.getLogger("fairtune")

BETWEEN_PROGRESS = 2.0
"""Seconds between signs of life."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores rows with one model under one template after another."""

    job: Job
    directory: Path
    labels: list[str]
    """Sorted; a row's probabilities are over these."""
    pad: int
    device: torch.device
    reporter: Reporter
    stop: Stop
    space: Space
    world: World

    def known(self, rows: Sequence[Row]) -> tuple[bool, Predictions | None]:
        """Whether an earlier attempt scored the split with the base model, and what it found.

        Its file lies in this directory then; one that does not fit these rows does not count.
        """
        path, positive = self._path("base", rows), self.job.spec.fairness.positive_label
        if not path.exists():
            return False, None
        try:
            probabilities = read_probabilities(path, rows, self.labels, positive, None)
        except (ValueError, OSError) as error:
            log.warning("the base model is scored again: %s", error)
            return False, None
        return True, labelled(rows, self.labels, probabilities, positive, None)

    def evaluate(
        self,
        model: Any,
        rows: Sequence[Row],
        prompts: Prompts,
        target: Literal["base", "adapter"],
        step: int | None,
        alive: Callable[[float], None],
    ) -> Predictions | None:
        """Score one split, write its predictions, say so. None where no row has a label, and in all
        processes of a run but the first: each scores a share, and that one gathers them.

        `alive` is called every other second with the expected seconds to the end of this.
        """
        spec, split = self.job.spec, rows[0].split
        positive = spec.fairness.positive_label
        cut_before = prompts.truncated
        items = []
        for row in rows:
            answers = prompts.label_answers(row, self.labels)
            items.append(Item(prompts.fitted(row, answers), answers))
        if cut := prompts.truncated - cut_before:
            self.reporter.warn(
                "rows_truncated",
                f"{cut} of {len(rows)} rows of the {split} split are longer than max_seq_length "
                f"{spec.training.max_seq_length} tokens; the ends of their texts were cut off.",
            )
        began = spoke = time.monotonic()

        def tick(done: int) -> None:
            nonlocal spoke
            self.stop.check()
            if (now := time.monotonic()) - spoke > BETWEEN_PROGRESS:
                alive((len(rows) - done) * (now - began) / done)
                spoke = now

        at_once = self.job.eval_batch_size or spec.training.per_device_eval_batch_size
        with rows_at_once("eval", at_once):
            set_training(model, training=False)
            probabilities = score(
                model,
                items,
                pad=self.pad,
                token_budget=at_once * spec.training.max_seq_length,
                device=self.device,
                world=self.world,
                tick=tick,
                fell_back=lambda why: self.reporter.warn("slow_scoring", why),
            )
        seconds = time.monotonic() - began
        log.info("%s: %d rows scored in %.1f s", target, len(rows), seconds)
        if not self.world.leads:
            return None
        path = self._path(target, rows)
        self.space.insist(
            path.name,
            lambda: write_predictions(path, rows, self.labels, probabilities, positive, step),
        )
        predictions = labelled(rows, self.labels, probabilities, positive, step)
        self.reporter.emit(
            EvaluationEvent,
            target=target,
            step=step,
            split=split,
            template=prompts.template.name,
            metrics={} if predictions is None else self._figures(predictions),
            predictions=file_entry(path, self.directory),
        )
        return predictions

    def _path(self, target: Literal["base", "adapter"], rows: Sequence[Row]) -> Path:
        return self.directory / "evaluations" / f"{target}-{rows[0].split}.parquet"

    def _figures(self, predictions: Predictions) -> dict[str, float | None]:
        overall = self.report(predictions, None, [], predictions.checkpoint_step).overall.tuned
        names = ("accuracy", "precision", "recall", "f1", "fpr", "fnr", "auc", "calibration_error")
        return {name: getattr(overall, name).value for name in names}

    def report(
        self,
        tuned: Predictions,
        base: Predictions | None,
        train: Sequence[Row],
        step: int | None,
    ) -> BiasReport:
        fairness = self.job.spec.fairness
        known = [(row.label, row.group) for row in train if row.label is not None]
        assert tuned.split is not None
        return build_report(
            tuned,
            meta=ReportMeta(
                run_id=self.job.run_id,
                base_model=self.job.spec.base_model,
                template=self.job.template.name,
                group_shown=self.job.template.shows_group,
                split=tuned.split,
                checkpoint_step=step,
            ),
            positive_label=fairness.positive_label,
            base=base,
            train_counts=label_counts((one for one, _ in known), (group for _, group in known))
            if known
            else None,
            caps=fairness.caps,
            min_f1=fairness.min_f1,
            confidence=fairness.confidence,
            min_support=fairness.min_support,
        )
