"""The dataset of a train job: its rows by split, its labels, the splits to score, its examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.domain.errors import ProgramFailure
from service.domain.spec import RunSpec
from service.domain.states import FailureReason
from service.domain.steps import StepPlan
from worker.data.rows import Row, read_rows
from worker.data.truncation import truncation_warnings

if TYPE_CHECKING:  # importing torch takes seconds; `starting` is reported before
    from pathlib import Path

    from worker.data.tokenize import Example, Prompts
    from worker.runtime.events import Reporter


@dataclass(frozen=True, slots=True)
class RunData:
    """Rows by split, and what is evaluated on them."""

    rows: dict[str, list[Row]]
    labels: list[str]
    """Labels of the training rows, sorted; empty if nothing can be evaluated."""
    splits: list[str]
    """Splits that the run is evaluated on."""

    @property
    def validation(self) -> list[Row]:
        return self.rows.get("validation", [])

    @property
    def tuned_splits(self) -> list[str]:
        """Splits that are scored with the tuned model: `splits`, and validation for thresholds.

        Validation is left out if it has no labelled row or the run has no labels.
        """
        has_labels = any(row.label is not None for row in self.validation)
        if not (self.labels and has_labels) or "validation" in self.splits:
            return self.splits
        return [*self.splits, "validation"]


@dataclass(frozen=True, slots=True)
class Examples:
    """Tokenized rows."""

    train: list[Example]
    validation: list[Example]


def read_run_data(path: Path, spec: RunSpec, reporter: Reporter) -> RunData:
    """Read the dataset and determine labels and splits. Raises ProgramFailure."""
    rows: dict[str, list[Row]] = {}
    for row in read_rows(path):
        rows.setdefault(row.split, []).append(row)
    labels = _labels(rows.get("train", []), spec.fairness.positive_label, reporter)
    return RunData(rows, labels, _splits(rows, labels, spec, reporter))


def tokenize_run(data: RunData, prompts: Prompts, spec: RunSpec, reporter: Reporter) -> Examples:
    """Tokenize the rows to train and to validate on, and check all that will be scored.

    Raises ProgramFailure, so that no row ends the run after it has been trained.
    """
    limit = spec.training.max_seq_length
    tokenized = {
        split: _tokenize_split(split, data, prompts, limit, reporter)
        for split in ("train", "validation")
    }
    examples = Examples(*([one for one in split if one] for split in tokenized.values()))
    if not examples.train:
        raise ProgramFailure(
            *(
                (FailureReason.INVALID_SPEC, _ALL_TOO_LONG.format(limit))
                if prompts.counts["too_long"]
                else (FailureReason.INVALID_DATA, "No row to train on has an answer or a label.")
            )
        )
    for split in data.tuned_splits:
        rows = data.rows[split]
        # A row that became an example has every label's answer behind its prompt already.
        for row, example in zip(rows, tokenized.get(split, [None] * len(rows)), strict=True):
            if example is None:
                prompts.encode(row, data.labels)
    if not examples.validation and spec.training.eval_strategy != "no":
        reporter.warn(
            "no_validation",
            "The dataset has no validation split: there is no evaluation during training and no "
            "early stopping, and the last checkpoint is used.",
        )
    plan = StepPlan.of(spec.training, len(examples.train), spec.resources.num_processes)
    if warning := plan.warmup_warning():
        reporter.warn("long_warmup", warning)
    chooses = spec.fairness.select == "best_f1_within_caps"
    if examples.validation and (warning := plan.evaluation_warning(spec.training, chooses=chooses)):
        reporter.warn("no_choice", warning)
    return examples


def compare_prompts(data: RunData, prompts: Prompts, reporter: Reporter) -> list[str]:
    """Compare some prompts of each split with the model's own; return notes for the model card.

    Every difference, and everything that a user has to do to send the trained prompt, is a warning.
    """
    from worker.data.template_check import prompt_differences, prompt_notes

    differences = [
        f"{difference[:-1]} ({split} split)."
        for split, rows in data.rows.items()
        for difference in prompt_differences(prompts, rows, data.labels)
    ]
    for difference in differences:
        reporter.warn("served_prompt_differs", difference)
    notes = prompt_notes(prompts, data.rows["train"][0])
    for note in notes[0 if prompts.tokens.template.is_absent else 1 :]:
        reporter.warn("prompt_note", note)
    return notes + differences


def _labels(train: list[Row], positive: str, reporter: Reporter) -> list[str]:
    if not train:
        raise ProgramFailure(FailureReason.INVALID_DATA, "The dataset has no rows to train on.")
    labels = sorted({row.label for row in train if row.label is not None})
    if not labels:
        reporter.warn(
            "no_labels",
            "The training rows have no labels: the model is trained, but neither evaluated nor "
            "reported on.",
        )
    elif positive not in labels:
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"fairness.positive_label is {positive!r}, but the training rows' labels are "
            f"{', '.join(map(repr, labels))}.",
        )
    return labels


def _splits(
    rows: dict[str, list[Row]], labels: list[str], spec: RunSpec, reporter: Reporter
) -> list[str]:
    """Return the requested splits that have rows; none if there are no labels."""
    requested = list(spec.evaluation.splits) if labels else []
    for split in requested:
        if not rows.get(split):
            reporter.warn("no_rows", f"The dataset has no {split} split, so it is not evaluated.")
    return [split for split in requested if rows.get(split)]


_ALL_TOO_LONG = (
    "training.max_seq_length is {}, which leaves no room for a prompt before the answer in any "
    "training row; set it higher."
)


def _tokenize_split(
    split: str, data: RunData, prompts: Prompts, max_length: int, reporter: Reporter
) -> list[Example | None]:
    """Return the example of each row; None for a row without one."""
    rows = data.rows.get(split, [])
    before = prompts.counts.copy()
    examples = [prompts.example(row, data.labels) for row in rows]
    counts = prompts.counts - before
    for warning in truncation_warnings(counts, len(rows), split, max_length):
        reporter.warn(*warning)
    if skipped := examples.count(None) - counts["too_long"]:
        reporter.warn(
            "rows_without_answer",
            f"{skipped} of {len(rows)} rows of the {split} split have no label and were skipped.",
        )
    return examples
