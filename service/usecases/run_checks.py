"""What a specification asks of its dataset's rows: enough to choose by, and enough to prove."""

from collections.abc import Iterator

from service.datasets.stats import DatasetStats, SplitStats
from service.domain.errors import InvalidRequest
from service.domain.evaluation import report_split
from service.domain.spec import Cap, RunSpec
from service.fairness.rates import clopper_pearson_limits
from service.fairness.verdicts import MAX_FURTHER, check_criterion, further_needed


def chooses_on_validation(spec: RunSpec) -> bool:
    """Whether labelled validation rows decide on the checkpoint or on the threshold."""
    return spec.fairness.select == "best_f1_within_caps" or spec.evaluation.threshold == "fitted"


def check_choosing(spec: RunSpec, stats: DatasetStats) -> None:
    """Raise InvalidRequest where a choice is asked for that there is nothing to make by."""
    if spec.fairness.select == "best_f1_within_caps":
        pointer, instead = "/fairness/select", "set select to best_metric"
        if spec.training.eval_strategy == "no":
            raise InvalidRequest.at(
                pointer,
                "best_f1_within_caps compares the evaluations made while training: set "
                f"training.eval_strategy to epoch or steps, or {instead}",
            )
        if not spec.training.load_best_model_at_end:
            raise InvalidRequest.at(
                pointer,
                "the checkpoint that best_f1_within_caps chooses is only taken with "
                f"training.load_best_model_at_end: set it to true, or {instead}",
            )
        _check_validation(pointer, "best_f1_within_caps", instead, spec, stats)
    if spec.evaluation.threshold == "fitted":
        _check_validation(
            "/evaluation/threshold", "threshold fitted", "set threshold to argmax", spec, stats
        )


def _check_validation(
    pointer: str, what: str, instead: str, spec: RunSpec, stats: DatasetStats
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
        f"{what} is decided on a labelled validation split, but {lacks}: use a dataset that has "
        f"one, or {instead}",
    )


def cap_warnings(spec: RunSpec, stats: DatasetStats) -> Iterator[str]:
    """Caps that the rows say too little about, whatever the model turns out to be.

    Groups that the data lacks altogether are left out: `runs` says that their caps will be
    not_applicable.
    """
    caps = [cap for cap in spec.fairness.caps if cap.group in stats.groups]
    validation = stats.splits.get("validation")
    if chooses_on_validation(spec) and validation is not None:
        for cap in caps:
            if not _countable(cap, spec, validation):
                yield (
                    f"the validation split has no {_kind(cap)} of the group {cap.group}: its "
                    f"{cap.metric} cap has no say in what is chosen there"
                )
    labelled = {name for name, split in stats.splits.items() if split.labels}
    split = report_split(spec.evaluation.splits, labelled)
    if split is None:
        return
    if split == "validation" and chooses_on_validation(spec):
        yield (
            "the report is about the validation split, on which the checkpoint or the threshold is "
            "chosen: its figures will look better than they are"
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
            f"the {cap.metric} cap {cap.max:g} on {cap.group} cannot be proven at confidence "
            f"{confidence:g}: {has}; {_needed(cap, rows, confidence)}"
        )


def _kind(cap: Cap, rows: int = 0) -> str:
    return ("negative" if cap.metric == "fpr" else "positive") + ("" if rows == 1 else "s")


def _countable(cap: Cap, spec: RunSpec, split: SplitStats) -> int:
    """Rows of the capped group that its rate is counted among."""
    labels = split.group_labels.get(cap.group, {})
    positives = labels.get(spec.fairness.positive_label, 0)
    return positives if cap.metric == "fnr" else sum(labels.values()) - positives


def _needed(cap: Cap, rows: int, confidence: float) -> str:
    """How many rows would do, if there were no error among them."""
    start = max(rows, 1)
    if not rows and check_criterion(0, 1, cap.max, confidence) == "pass":
        return "1 is needed at least"
    further = further_needed(0, start, cap.max, confidence)
    if further is None:
        return f"not even {MAX_FURTHER:,} more would do"
    return f"{start + further} are needed at least"
