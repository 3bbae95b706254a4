"""Scoring a split with the model in hand, and the bias report made from that."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from service.domain.events import EvaluationEvent
from service.domain.job import Job
from service.domain.task import Target
from service.fairness import BiasReport, Predictions, ReportMeta, build_report, label_counts
from service.fairness.metrics import overall_metrics
from service.fairness.schema import FormatSample, ReportWarning, Shown
from service.fairness.stored import read_facts
from worker.data.rows import Row
from worker.data.tokenize import Prompts
from worker.modeling.load import set_training
from worker.runtime.disk_full import DiskSpace
from worker.runtime.distributed import World
from worker.runtime.events import Reporter, StopSignal, file_entry
from worker.runtime.out_of_memory import detect_out_of_memory
from worker.runtime.progress import PROGRESS_SECONDS
from worker.scoring.generation import sample_answers
from worker.scoring.labels import Item, score
from worker.scoring.predictions import labelled, read_probabilities, write_predictions

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
    slow: list[str] = field(default_factory=list)
    """Why labels were scored by the slow way; empty where they were not."""

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
        target: Target,
        step: int | None,
        alive: Callable[[float], None],
        scored: Callable[[int], None] = lambda _done: None,
    ) -> Predictions | None:
        """Score one split, write its predictions, say so. None where no row has a label, and in all
        processes of a run but the first: each scores a share, and that one gathers them.

        `alive` is called every other second with the expected seconds to the end of this, and
        `scored` just before it with the number of rows done.
        """
        spec, split = self.job.spec, rows[0].split
        positive = spec.fairness.positive_label
        cut_before = prompts.truncated
        items = self._items(rows, prompts)
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
            if (now := time.monotonic()) - spoke > PROGRESS_SECONDS:
                scored(done)
                alive((len(rows) - done) * (now - began) / done)
                spoke = now

        probabilities = self._score(model, items, tick, self._slow)
        seconds = time.monotonic() - began
        log.info("%s: %d rows scored in %.1f s", target, len(rows), seconds)
        if not self.world.is_rank_zero:
            return None
        path = self._path(target, rows)
        self.space.write_with_retry(
            path.name,
            lambda: write_predictions(path, rows, self.labels, probabilities, positive, step, cut),
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

    def repeatedly(
        self, rows: Sequence[Row], prompts: Prompts
    ) -> Callable[[Any, int, Callable[[], None]], Predictions]:
        """What scores the labelled ones of `rows` with the weights that the model then holds.

        It takes the model, its step and what to call between two passes, and returns the same in
        all processes of a run, each of which scores a share. Nothing is written. At least one of
        `rows` has a label.
        """
        positive = self.job.spec.fairness.positive_label
        known = [row for row in rows if row.label is not None]
        items = self._items(known, prompts)
        said = False

        def fell_back(why: str) -> None:
            nonlocal said
            if not said:
                self._slow(why)
            said = True

        def scored(model: Any, step: int, between: Callable[[], None]) -> Predictions:
            probabilities = self._score(model, items, lambda _done: between(), fell_back)
            predictions = labelled(known, self.labels, probabilities, positive, step)
            assert predictions is not None
            return predictions

        return scored

    def sample(
        self,
        model: Any,
        rows: Sequence[Row],
        prompts: Prompts,
        scored: Predictions,
        alive: Callable[[None], None],
    ) -> FormatSample | None:
        """What the model answers when it may write freely, on some of the labelled ones of `rows`.

        `scored` says what it was found to say of each. One process alone calls it. None for a model
        that cannot be asked in the fast way.
        """
        if self.slow:
            return None
        spoke = time.monotonic()

        def tick(_done: int) -> None:
            nonlocal spoke
            self.stop.check()
            if time.monotonic() - spoke > PROGRESS_SECONDS:
                alive(None)
                spoke = time.monotonic()

        items = self._items([row for row in rows if row.label is not None], prompts)
        with detect_out_of_memory("eval", self._at_once):
            set_training(model, training=False)
            return sample_answers(
                model,
                items,
                self.labels,
                scored.predictions,
                tokens_to_text=prompts.tokens.text,
                pad=self.pad,
                eos=prompts.tokens.eos,
                device=self.device,
                token_budget=self._at_once * self.job.spec.training.max_seq_length,
                confidence=self.job.spec.fairness.confidence,
                tick=tick,
                gave_up=self.reporter.log,
            )

    @property
    def _at_once(self) -> int:
        """Rows per forward pass, of the longest."""
        return self.job.eval_batch_size or self.job.spec.training.per_device_eval_batch_size

    def _items(self, rows: Sequence[Row], prompts: Prompts) -> list[Item]:
        items = []
        for row in rows:
            answers = prompts.label_answers(row, self.labels)
            items.append(Item(prompts.fitted(row, answers), answers))
        return items

    def _score(
        self,
        model: Any,
        items: Sequence[Item],
        tick: Callable[[int], None],
        fell_back: Callable[[str], None],
    ) -> list[list[float]]:
        with detect_out_of_memory("eval", self._at_once):
            set_training(model, training=False)
            return score(
                model,
                items,
                pad=self.pad,
                token_budget=self._at_once * self.job.spec.training.max_seq_length,
                device=self.device,
                world=self.world,
                tick=tick,
                fell_back=fell_back,
            )

    def _slow(self, why: str) -> None:
        self.slow.append(why)
        self.reporter.warn("slow_scoring", why)

    def _path(self, target: Target, rows: Sequence[Row]) -> Path:
        return self.directory / "evaluations" / f"{target}-{rows[0].split}.parquet"

    def truncated(self, target: Target, rows: Sequence[Row]) -> int | None:
        """Of `rows`, which `target` has scored, those whose text was cut to fit; None: not known.

        Kept in the file with the predictions, since another attempt may have made it.
        """
        try:
            count = read_facts(self._path(target, rows)).get("truncated")
        except (ValueError, OSError) as error:
            log.warning("how many texts %s was given cut is not known: %s", target, error)
            return None
        return count if isinstance(count, int) and not isinstance(count, bool) else None

    def _figures(self, predictions: Predictions) -> dict[str, float | None]:
        """By argmax, whatever the specification's threshold: nothing is fitted to a file."""
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
        train: Sequence[Row],
        *,
        shown: Shown,
        base_shown: Shown | None,
        without_label: int,
        format_sample: FormatSample | None,
    ) -> BiasReport:
        """The run's own report: by the threshold of its specification, for its caps."""
        job, spec = self.job, self.job.spec
        fairness = spec.fairness
        known = [(row.label, row.group) for row in train if row.label is not None]
        assert tuned.split is not None
        return build_report(
            tuned,
            meta=ReportMeta(
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
            positive_label=fairness.positive_label,
            base=base,
            validation=validation,
            train_counts=label_counts((one for one, _ in known), (group for _, group in known))
            if known
            else None,
            caps=fairness.caps,
            min_f1=fairness.min_f1,
            confidence=fairness.confidence,
            min_support=fairness.min_support,
            shown=shown,
            base_shown=base_shown,
            without_label=without_label,
            format_sample=format_sample,
            dataset_warnings=[
                ReportWarning(code=warning["code"], detail=warning["detail"])
                for warning in job.dataset_warnings
            ],
        )
