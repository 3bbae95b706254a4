"""Scoring of a split with a loaded model, and the run's bias report."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from service.domain.events import EvaluationEvent
from service.domain.job import EVALUATIONS_DIR, Job
from service.domain.row_keys import KeyedRow, seen_rows
from service.domain.task import Target
from service.fairness import (
    BiasReport,
    Criteria,
    Predictions,
    ReportContext,
    ReportMeta,
    ScoredData,
    build_report,
    label_counts,
)
from service.fairness.metrics import overall_metrics
from service.fairness.schema import FormatSample, ReportWarning, Shown
from service.fairness.stored import read_metadata
from worker.data.rows import Row
from worker.data.tokenize import Prompts
from worker.data.truncation import truncation_warnings
from worker.modeling.load import set_training
from worker.runtime.disk_full import DiskSpace
from worker.runtime.distributed import World
from worker.runtime.events import Reporter, StopSignal, file_entry
from worker.runtime.out_of_memory import detect_out_of_memory
from worker.runtime.progress import PROGRESS_INTERVAL_SECONDS
from worker.scoring.generation import sample_answers
from worker.scoring.labels import Item, score
from worker.scoring.predictions import labelled_predictions, read_probabilities, write_predictions

log = logging.getLogger("fairtune")


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
    stop: StopSignal
    space: DiskSpace
    world: World
    fallback_reasons: list[str] = field(default_factory=list)
    """Reasons for plain scoring, one forward pass per label; empty if it was never needed."""

    def stored_base_predictions(self, rows: Sequence[Row]) -> tuple[bool, Predictions | None]:
        """Return (True, predictions) if an earlier attempt scored the split with the base model.

        Its file is then in the job directory; a file of other rows is ignored, and gives
        (False, None). The predictions are None if no row has a label.
        """
        path, positive = self._path("base", rows), self.job.spec.fairness.positive_label
        if not path.exists():
            return False, None
        try:
            probabilities = read_probabilities(path, rows, self.labels, positive, None)
        except (ValueError, OSError) as error:
            log.warning("the base model is scored again: %s", error)
            return False, None
        return True, labelled_predictions(rows, self.labels, probabilities, positive, None)

    def evaluate(
        self,
        model: Any,
        rows: Sequence[Row],
        prompts: Prompts,
        target: Target,
        step: int | None,
        heartbeat: Callable[[float], None],
        on_rows_done: Callable[[int], None] = lambda _done: None,
    ) -> Predictions | None:
        """Score one split, write its predictions and emit the evaluation event.

        Returns None if no row has a label, and on nonzero ranks: each rank scores a share, and rank
        0 gathers them. `heartbeat` is called every other second with the estimated remaining
        seconds, and `on_rows_done` just before it with the number of rows done.
        """
        spec, split = self.job.spec, rows[0].split
        positive = spec.fairness.positive_label
        before = prompts.counts.copy()
        items = self._items(rows, prompts)
        counts = prompts.counts - before
        cut = counts["truncated"]
        for warning in truncation_warnings(counts, len(rows), split, spec.training.max_seq_length):
            self.reporter.warn(*warning)
        started = last_progress = time.monotonic()

        def tick(done: int) -> None:
            nonlocal last_progress
            self.stop.check()
            if (now := time.monotonic()) - last_progress > PROGRESS_INTERVAL_SECONDS:
                on_rows_done(done)
                heartbeat((len(rows) - done) * (now - started) / done)
                last_progress = now

        probabilities = self._score(model, items, tick, self._warn_fallback)
        seconds = time.monotonic() - started
        log.info("%s: %d rows scored in %.1f s", target, len(rows), seconds)
        if not self.world.is_rank_zero:
            return None
        path = self._path(target, rows)
        self.space.write_with_retry(
            path.name,
            lambda: write_predictions(path, rows, self.labels, probabilities, positive, step, cut),
        )
        predictions = labelled_predictions(rows, self.labels, probabilities, positive, step)
        self.reporter.emit(
            EvaluationEvent,
            target=target,
            step=step,
            split=split,
            template=prompts.template.name,
            metrics={} if predictions is None else self._metrics(predictions),
            predictions=file_entry(path, self.directory),
        )
        return predictions

    def validation_scorer(
        self, rows: Sequence[Row], prompts: Prompts
    ) -> Callable[[Any, int, Callable[[], None]], Predictions]:
        """Return a function that scores the labelled rows with the model's current weights.

        It takes the model, its step and a callback for between two forward passes, and returns the
        same predictions on all ranks, each of which scores a share. Nothing is written. At least
        one of `rows` has a label.
        """
        positive = self.job.spec.fairness.positive_label
        labelled_rows = [row for row in rows if row.label is not None]
        items = self._items(labelled_rows, prompts)
        warned = False

        def on_fallback(why: str) -> None:
            nonlocal warned
            if not warned:
                self._warn_fallback(why)
            warned = True

        def score_rows(model: Any, step: int, between_passes: Callable[[], None]) -> Predictions:
            probabilities = self._score(model, items, lambda _done: between_passes(), on_fallback)
            predictions = labelled_predictions(
                labelled_rows, self.labels, probabilities, positive, step
            )
            assert predictions is not None
            return predictions

        return score_rows

    def sample(
        self,
        model: Any,
        rows: Sequence[Row],
        prompts: Prompts,
        scored: Predictions,
        heartbeat: Callable[[None], None],
    ) -> FormatSample | None:
        """Return the format check: the model's free answers to some of the labelled `rows`.

        `scored` are the predictions for these rows. Called on rank 0 only. None for a model that
        needs plain scoring.
        """
        if self.fallback_reasons:
            return None
        last_progress = time.monotonic()

        def tick(_done: int) -> None:
            nonlocal last_progress
            self.stop.check()
            if time.monotonic() - last_progress > PROGRESS_INTERVAL_SECONDS:
                heartbeat(None)
                last_progress = time.monotonic()

        items = self._items([row for row in rows if row.label is not None], prompts)
        with detect_out_of_memory("eval", self._batch_rows):
            set_training(model, training=False)
            return sample_answers(
                model,
                items,
                self.labels,
                scored.predictions,
                tokens_to_text=prompts.tokens.decode,
                pad=self.pad,
                eos=prompts.tokens.eos,
                device=self.device,
                token_budget=self._batch_rows * self.job.spec.training.max_seq_length,
                confidence=self.job.spec.fairness.confidence,
                tick=tick,
                on_skip=self.reporter.log,
            )

    @property
    def _batch_rows(self) -> int:
        """Rows of maximum length per forward pass."""
        return self.job.eval_batch_size or self.job.spec.training.per_device_eval_batch_size

    def _items(self, rows: Sequence[Row], prompts: Prompts) -> list[Item]:
        items = []
        for row in rows:
            encoded = prompts.encode(row, self.labels)
            items.append(Item(encoded.prompt, encoded.answers))
        return items

    def _score(
        self,
        model: Any,
        items: Sequence[Item],
        tick: Callable[[int], None],
        on_fallback: Callable[[str], None],
    ) -> list[list[float]]:
        with detect_out_of_memory("eval", self._batch_rows):
            set_training(model, training=False)
            return score(
                model,
                items,
                pad=self.pad,
                token_budget=self._batch_rows * self.job.spec.training.max_seq_length,
                device=self.device,
                world=self.world,
                tick=tick,
                on_fallback=on_fallback,
            )

    def _warn_fallback(self, why: str) -> None:
        self.fallback_reasons.append(why)
        self.reporter.warn("slow_scoring", why)

    def _path(self, target: Target, rows: Sequence[Row]) -> Path:
        return self.directory / EVALUATIONS_DIR / f"{target}-{rows[0].split}.parquet"

    def truncated(self, target: Target, rows: Sequence[Row]) -> int | None:
        """Return how many of the scored `rows` had their text truncated; None if unknown.

        Read from the predictions file, since an earlier attempt may have written it.
        """
        try:
            count = read_metadata(self._path(target, rows)).get("truncated")
        except (ValueError, OSError) as error:
            log.warning("the number of truncated texts for %s is unknown: %s", target, error)
            return None
        return count if isinstance(count, int) and not isinstance(count, bool) else None

    def _metrics(self, predictions: Predictions) -> dict[str, float | None]:
        """Return the metrics at argmax, independent of the specification's threshold rule."""
        import numpy as np

        fairness = self.job.spec.fairness
        truth, called = (
            np.array([label == fairness.positive_label for label in column])
            for column in (predictions.labels, predictions.predictions)
        )
        overall = overall_metrics(truth, called, np.array(predictions.scores), fairness.confidence)
        names = ("accuracy", "precision", "recall", "f1", "fpr", "fnr", "auc", "calibration_error")
        return {name: getattr(overall, name).value for name in names}

    def report(
        self,
        tuned: Predictions,
        base: Predictions | None,
        validation: Predictions | None,
        dataset: Mapping[str, Sequence[Row]],
        *,
        shown: Shown,
        base_shown: Shown | None,
        without_label: int,
        format_sample: FormatSample | None,
    ) -> BiasReport:
        """Build the run's own report, by the threshold rule and the caps of its specification.

        `dataset` holds the rows of every split.
        """
        job, spec = self.job, self.job.spec
        fairness = spec.fairness
        labelled_rows = [
            (row.label, row.group) for row in dataset["train"] if row.label is not None
        ]
        all_rows = [row for rows in dataset.values() for row in rows]
        keyed = [KeyedRow(row.id, row.split, row.text, row.messages) for row in all_rows]
        assert tuned.split is not None
        return build_report(
            ScoredData(
                tuned=tuned,
                base=base,
                validation=validation,
                train_counts=label_counts(
                    (label for label, _ in labelled_rows), (group for _, group in labelled_rows)
                )
                if labelled_rows
                else None,
                dataset_groups={row.group for row in all_rows if row.group is not None},
                seen=seen_rows(keyed, tuned.split, keyed, same_kind=True),
            ),
            Criteria(
                positive_label=fairness.positive_label,
                caps=fairness.caps,
                min_f1=fairness.min_f1,
                confidence=fairness.confidence,
                min_support=fairness.min_support,
            ),
            ReportMeta(
                run_id=job.run_id,
                base_model=spec.base_model,
                template=job.template.name,
                base_template=None
                if base is None
                else (job.baseline_template or job.template).name,
                dataset_id=spec.dataset_id,
                split=tuned.split,
                checkpoint_step=tuned.checkpoint_step,
                threshold=spec.evaluation.threshold,
            ),
            ReportContext(
                shown=shown,
                base_shown=base_shown,
                without_label=without_label,
                format_sample=format_sample,
                dataset_warnings=[
                    ReportWarning(code=warning["code"], detail=warning["detail"])
                    for warning in job.dataset_warnings
                ],
            ),
        )
