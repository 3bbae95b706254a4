"""Inputs of a bias report as value objects, and the checks that they agree with each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from service.domain.row_keys import SeenRows
from service.fairness.baselines import LabelCounts
from service.fairness.criteria import Criteria
from service.fairness.predictions import Predictions
from service.fairness.schema import FormatSample, ReportMeta, ReportWarning, Shown

__all__ = ["ReportContext", "ScoredData", "check_inputs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredData:
    """Predictions that a report is computed from; all of them are argmax predictions."""

    tuned: Predictions
    """Predictions of the model under report on the reported split."""
    base: Predictions | None = None
    """Predictions of the base model on the same rows; None if it was not scored."""
    validation: Predictions | None = None
    """Predictions of the model under report on the split that a threshold is fitted on."""
    validation_is_sample: bool = False
    """True if `validation` covers only some rows of its split."""
    train_counts: LabelCounts | None = None
    """Rows of the training split (`baselines.label_counts`), for the group-majority baseline."""
    dataset_groups: Collection[str] | None = None
    """Groups of the evaluated dataset in any split; None: those of `train_counts`. The verdict on a
    cap is inconclusive if only other splits have its group, and not applicable if none has."""
    seen: SeenRows | None = None
    """Evaluated rows whose text influenced the model under report; None: unknown."""

    def all_groups(self) -> set[str]:
        """Return the groups of the dataset, as far as they are known."""
        groups = self.train_counts or {} if self.dataset_groups is None else self.dataset_groups
        return {group for group in groups if group is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContext:
    """Facts that a report passes on, with a warning where one is due; no figure uses them."""

    shown: Shown | None = None
    """Prompt of the model under report; None if unknown."""
    base_shown: Shown | None = None
    """Prompt of the base model; None if unknown."""
    without_label: int | None = None
    """Scored rows without a label, which are in no `Predictions`; None if unknown."""
    format_sample: FormatSample | None = None
    dataset_warnings: Sequence[ReportWarning] = ()
    training_unknown: bool = False
    """True if nobody knows on which rows the model under report was trained."""
    differences: Sequence[str] = ()
    """Differences of an exploratory report from the one that certifies the run."""


def check_inputs(data: ScoredData, meta: ReportMeta, criteria: Criteria) -> None:
    """Raise ValueError if the predictions, the metadata and the criteria contradict each other."""
    _check_origin(data, meta)
    _check_rule(meta, criteria.threshold, data.validation)


def _check_origin(data: ScoredData, meta: ReportMeta) -> None:
    if data.base is not None and not data.tuned.same_rows_as(data.base):
        raise ValueError("base and tuned predictions do not cover the same rows in the same order")
    for predictions in (data.tuned, data.base):
        if predictions is not None and predictions.split not in (None, meta.split):
            raise ValueError(
                f"the predictions are of the split {predictions.split!r}, but meta.split is "
                f"{meta.split!r}"
            )
    for predictions in (data.tuned, data.validation):
        step = None if predictions is None else predictions.checkpoint_step
        if step not in (None, meta.checkpoint_step):
            raise ValueError(
                f"the predictions are of step {step}, but meta.checkpoint_step is "
                f"{meta.checkpoint_step}"
            )


def _check_rule(meta: ReportMeta, threshold: float | None, validation: Predictions | None) -> None:
    if (meta.threshold == "given") != (threshold is not None):
        raise ValueError(f"meta.threshold is {meta.threshold!r}, but threshold is {threshold}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], not {threshold}")
    if meta.threshold == "fitted" and validation is None:
        raise ValueError("meta.threshold is 'fitted', but there are no validation predictions")
