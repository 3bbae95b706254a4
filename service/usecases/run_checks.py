"""Checks of a specification against its dataset: labels, and rows to choose and certify by."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from service.datasets.stats import DatasetStats, SplitStats
from service.domain.errors import InvalidRequest
from service.domain.evaluation import report_split
from service.domain.spec import Cap, RunSpec
from service.domain.wording import agree, count
from service.fairness.rates import clopper_pearson_limits
from service.fairness.verdicts import MAX_FURTHER, check_criterion, further_needed


def chooses_on_validation(spec: RunSpec) -> bool:
    """Return True if labelled validation rows choose the checkpoint or the threshold."""
    return spec.fairness.select == "best_f1_within_caps" or spec.evaluation.threshold == "fitted"


def check_choosing(spec: RunSpec, stats: DatasetStats) -> None:
    """Raise InvalidRequest if the data for a requested choice is missing."""
    if spec.fairness.select == "best_f1_within_caps":
        pointer, instead = "/fairness/select", "set select to best_metric"
        if spec.training.eval_strategy == "no":
            raise InvalidRequest.at(
                pointer,
                "best_f1_within_caps compares the evaluations during training: set "
                f"training.eval_strategy to epoch or steps, or {instead}",
            )
        if not spec.training.load_best_model_at_end:
            raise InvalidRequest.at(
                pointer,
                "the checkpoint that best_f1_within_caps chooses is used only with "
                f"training.load_best_model_at_end: set it to true, or {instead}",
            )
        _check_validation(pointer, "best_f1_within_caps", instead, spec, stats)
    if spec.evaluation.threshold == "fitted":
        _check_validation(
            "/evaluation/threshold", "threshold fitted", "set threshold to argmax", spec, stats
        )


def _check_validation(
    pointer: str, choice: str, instead: str, spec: RunSpec, stats: DatasetStats
) -> None:
    positive = spec.fairness.positive_label
    validation = stats.splits.get("validation")
    if not stats.splits["train"].labels:
        lacks = "the training rows have no labels to score"
    elif validation is None:
        lacks = "the dataset has no validation split"
    elif not validation.labels:
        lacks = "the rows of the validation split have no labels"
    elif positive not in validation.labels:
        lacks = f"no row of the validation split is labelled {positive!r}, so there is no F1"
    else:
        return
    raise InvalidRequest.at(
        pointer,
        f"{choice} requires a labelled validation split, but {lacks}: use a dataset that has one, "
        f"or {instead}",
    )


def check_learned(spec: RunSpec, stats: DatasetStats) -> None:
    """Raise InvalidRequest if the run would learn messages that the dataset excludes."""
    if spec.training.train_on == "all" and stats.zero_weight_rows:
        raise InvalidRequest.at(
            "/training/train_on",
            f"{count(stats.zero_weight_rows, 'chat')} of the dataset "
            f"{agree(stats.zero_weight_rows, 'has', 'have')} messages of weight 0, which must not "
            "be learned, and all would train on them: use completion",
        )


def check_labels(spec: RunSpec, body: dict[str, Any], stats: DatasetStats) -> None:
    """Check that the data has the labels, groups and splits that the request itself names.

    Those of a preset may be missing. Raises InvalidRequest.
    """
    fairness = spec.fairness
    labels = stats.splits["train"].labels
    if labels and fairness.positive_label not in labels:
        raise InvalidRequest.at(
            "/fairness/positive_label",
            f"the training rows have no label {fairness.positive_label!r}; they have "
            f"{', '.join(labels)}: set the one that counts as positive",
        )
    if "caps" in (body.get("fairness") or {}):
        splits = {"train", *spec.evaluation.splits} & set(stats.splits)
        check_cap_groups(
            "/fairness/caps",
            fairness.caps,
            {group for split in splits for group in stats.splits[split].groups},
        )
    if "splits" in (body.get("evaluation") or {}):
        for number, split in enumerate(spec.evaluation.splits):
            if split not in stats.splits:
                available = ", ".join(stats.splits)
                raise InvalidRequest.at(
                    f"/evaluation/splits/{number}",
                    f"the dataset has no split {split}; it has {available}",
                )


def check_cap_groups(pointer: str, caps: Sequence[Cap], groups: Collection[str]) -> None:
    """Raise InvalidRequest if a cap is on a group that the data lacks."""
    for number, cap in enumerate(caps):
        if cap.group not in groups:
            available = ", ".join(sorted(groups)) if groups else "no groups"
            raise InvalidRequest.at(
                f"{pointer}/{number}/group",
                f"the data has no group {cap.group!r}; it has {available}",
            )


def cap_warnings(spec: RunSpec, stats: DatasetStats) -> Iterator[tuple[str, str]]:
    """Yield code and text of a warning for each cap that cannot be proven on these rows.

    It cannot, whatever the model is. Groups that the data lacks altogether are omitted: the plan
    warns that their caps will be not_applicable.
    """
    caps = [cap for cap in spec.fairness.caps if cap.group in stats.groups]
    validation = stats.splits.get("validation")
    if chooses_on_validation(spec) and validation is not None:
        for cap in caps:
            if not _countable(cap, spec, validation):
                yield (
                    "cap_without_influence",
                    (
                        f"the validation split has no {_kind(cap)} of the group {cap.group}: its "
                        f"{cap.metric} cap does not influence the choice made there"
                    ),
                )
    labelled = {name for name, split in stats.splits.items() if split.labels}
    split = report_split(spec.evaluation.splits, labelled)
    if split is None:
        return
    if split == "validation" and chooses_on_validation(spec):
        yield (
            "report_on_validation",
            (
                "the report covers the validation split, on which the checkpoint or the threshold "
                "is chosen: its figures will look better than they are"
            ),
        )
    for cap in caps:
        rows = _countable(cap, spec, stats.splits[split])
        confidence = spec.fairness.confidence
        if rows and check_criterion(0, rows, cap.max, confidence) == "pass":
            continue
        has = f"the {split} split has {rows} {_kind(cap, rows)} of the group {cap.group}"
        if rows:
            upper = clopper_pearson_limits(0, rows, confidence)[1]
            has += f", and without a single error the upper limit would be {upper:.3f}"
        yield (
            "unprovable_cap",
            (
                f"the {cap.metric} cap {cap.max:g} on {cap.group} cannot be proven at confidence "
                f"{confidence:g}: {has}; {_needed(cap, rows, confidence)}"
            ),
        )


def _kind(cap: Cap, rows: int = 0) -> str:
    return ("negative" if cap.metric == "fpr" else "positive") + ("" if rows == 1 else "s")


def _countable(cap: Cap, spec: RunSpec, split: SplitStats) -> int:
    """Return the number of rows in the denominator of the capped rate."""
    labels = split.group_labels.get(cap.group, {})
    positives = labels.get(spec.fairness.positive_label, 0)
    return positives if cap.metric == "fnr" else sum(labels.values()) - positives


def _needed(cap: Cap, rows: int, confidence: float) -> str:
    """Return the minimum number of rows that would suffice without a single error, as text."""
    start = max(rows, 1)
    if not rows and check_criterion(0, 1, cap.max, confidence) == "pass":
        return "at least 1 is needed"
    further = further_needed(0, start, cap.max, confidence)
    if further is None:
        return f"even {MAX_FURTHER:,} more would not suffice"
    return f"at least {start + further} are needed"
