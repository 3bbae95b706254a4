"""Figures by stratum: groups, sources, finer labels and functionalities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from service.fairness import rates
from service.fairness.auc import group_aucs
from service.fairness.calibration import calibration
from service.fairness.columns import BinaryPredictions, Partition, Split
from service.fairness.schema import GroupMetrics, GroupReport, RateEstimate
from service.fairness.schema_groups import FunctionalCell, Functionality, Stratum
from service.fairness.support import is_small_sample

if TYPE_CHECKING:
    from service.fairness.columns import Ints


def group_reports(split: Split) -> tuple[GroupReport, ...]:
    """Return one report per group, by name."""
    aucs = group_aucs(split.truth, split.tuned.scores, split.groups)
    return tuple(
        GroupReport(
            group=stratum.name,
            **{name: getattr(stratum, name) for name in Stratum.model_fields if name != "name"},
            auc=aucs[stratum.name],
            calibration=calibration(
                split.truth[split.groups.rows[stratum.name]],
                split.tuned.scores[split.groups.rows[stratum.name]],
                split.confidence,
            ),
        )
        for stratum in strata(split, split.groups)
    )


def strata(split: Split, partition: Partition) -> tuple[Stratum, ...]:
    """Return counts and error rates of each part, by name."""
    return tuple(_stratum(split, name, rows) for name, rows in partition.rows.items())


def _stratum(split: Split, name: str, rows: Ints) -> Stratum:
    positives = int(split.truth[rows].sum())
    return Stratum(
        name=name,
        n=len(rows),
        positives=positives,
        negatives=len(rows) - positives,
        small_sample=is_small_sample(positives, len(rows) - positives, split.min_support),
        tuned=measure(split, split.tuned, rows),
        base=None if split.base is None else measure(split, split.base, rows),
    )


def measure(split: Split, model: BinaryPredictions, rows: Ints) -> GroupMetrics:
    """Return counts and error rates of a model on a subset of the rows."""
    counts = rates.confusion(split.truth[rows], model.called[rows])
    return GroupMetrics(
        confusion=counts,
        fpr=rates.fpr(counts, split.confidence),
        fnr=rates.fnr(counts, split.confidence),
        accuracy=rates.accuracy(counts, split.confidence),
    )


def functional(split: Split, labels: Sequence[str]) -> tuple[Functionality, ...]:
    """Return the accuracy per finer label and, within each, per group; both by name.

    `labels` are the original labels of the rows, before they are reduced to positive versus other.
    """
    import numpy as np

    number = {name: index for index, name in enumerate(split.groups.rows)}
    group_numbers = np.full(len(split.truth), -1)
    for name, rows in split.groups.rows.items():
        group_numbers[rows] = number[name]

    def accuracy(model: BinaryPredictions, rows: Ints) -> RateEstimate:
        hits = int((split.truth[rows] == model.called[rows]).sum())
        return rates.rate(hits, len(rows), split.confidence, empty="no rows")

    functionalities = []
    for name, rows in split.details.rows.items():
        order = rows[np.argsort(group_numbers[rows], kind="stable")]
        ends = np.searchsorted(group_numbers[order], np.arange(len(number) + 1))
        cells = tuple(
            FunctionalCell(
                group=group, n=int(end - start), accuracy=accuracy(split.tuned, order[start:end])
            )
            for group, start, end in zip(number, ends[:-1], ends[1:], strict=True)
            if end > start
        )
        labels_of_rows = {labels[row] for row in rows}
        functionalities.append(
            Functionality(
                name=name,
                n=len(rows),
                label=labels_of_rows.pop() if len(labels_of_rows) == 1 else None,
                tuned=accuracy(split.tuned, rows),
                base=None if split.base is None else accuracy(split.base, rows),
                by_group=cells,
            )
        )
    return tuple(functionalities)
