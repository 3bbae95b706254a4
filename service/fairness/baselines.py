"""Trivial baselines: always positive, and the majority label of each row's group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeAlias

LabelCounts: TypeAlias = Mapping[str | None, Mapping[str, int]]
"""Rows of a split by group (None: rows without one), then by label."""


def label_counts(
    labels: Iterable[str], groups: Iterable[str | None]
) -> dict[str | None, dict[str, int]]:
    """Count a split's rows by group and label; the arguments are parallel, one entry per row."""
    counts: dict[str | None, dict[str, int]] = {}
    for (group, label), rows in Counter(zip(groups, labels, strict=True)).items():
        counts.setdefault(group, {})[label] = rows
    return counts


def group_majority(
    groups: Iterable[str | None], train: LabelCounts, positive_label: str
) -> list[bool]:
    """Predict each row as the majority of its group's training rows; True: positive.

    Labels are first reduced to positive versus other. A row without a group, or whose group is tied
    or absent in the training split, gets the majority of the whole split; a tie there is positive.
    """
    # Positives minus others, per group.
    balance = {
        group: sum(rows if label == positive_label else -rows for label, rows in counts.items())
        for group, counts in train.items()
    }
    fallback = sum(balance.values()) >= 0
    balance.pop(None, None)
    majority = {group: lead > 0 for group, lead in balance.items() if lead != 0}
    return [majority.get(group, fallback) for group in groups]
